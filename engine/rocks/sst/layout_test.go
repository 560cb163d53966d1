package sst

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// TestLayout writes a table from the lines of a story and prints its bytes with their meaning beside them.
//
//	write [compression=CODE] [filter=none|whole|prefix] [extractor=NAME] [titan]
//	put|delete|single|blob KEY SEQ [VALUE]      \xNN escapes as in Go
//	range START END SEQ
//
//	filter form=bloom|ribbon version=N keys=N       the filter block of so many keys alone
func TestLayout(t *testing.T) {
	datadriven.RunTest(t, "testdata/layout", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "filter" {
			return describeFilter(t, d)
		}
		if d.Cmd != "write" {
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		o := WriterOptions{CFName: "write", CFID: 2}
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "compression":
				n, err := strconv.ParseUint(a.Vals[0], 10, 8)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				o.Compression = byte(n)
			case "filter":
				o.Filter = map[string]FilterKind{"none": FilterNone, "whole": FilterWholeKey, "prefix": FilterPrefix}[a.Vals[0]]
			case "extractor":
				o.PrefixExtractor = a.Vals[0]
			case "titan":
				o.Collectors = []Collector{NewBlobCollector()}
			default:
				d.Fatalf(t, "unknown argument %s", a.Key)
			}
		}
		var points, dels []record
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			f := strings.Fields(line)
			for i := range f {
				s, err := strconv.Unquote(`"` + f[i] + `"`)
				if err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
				f[i] = s
			}
			f = append(f, "", "")
			num := func(s string) uint64 {
				n, err := strconv.ParseUint(s, 10, 56)
				if err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
				return n
			}
			switch k, ok := map[string]ikey.Kind{"put": ikey.KindPut, "delete": ikey.KindDelete, "single": ikey.KindSingleDelete, "blob": ikey.KindBlobIndex}[f[0]]; {
			case ok:
				points = append(points, kind(k, put(f[1], num(f[2]), f[3])))
			case f[0] == "range":
				dels = append(dels, rangeDel(f[1], f[2], num(f[3])))
			default:
				d.Fatalf(t, "unknown line %s", line)
			}
		}
		b, _ := write(t, o, points, dels)
		return describe(t, b)
	})
}

// printer writes ranges of a file, hex on the left, meaning on the right.
type printer struct {
	strings.Builder
	b  []byte
	at int
}

// take describes the next n bytes.
func (p *printer) take(n int, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	for first := true; n > 0 || first; first = false {
		m := min(n, 12)
		fmt.Fprintf(p, "%04d  %-24x  %s\n", p.at, p.b[p.at:p.at+m], what)
		p.at, n, what = p.at+m, n-m, `"`
	}
}

func (p *printer) varint(what string) int {
	v, n := binary.Uvarint(p.b[p.at:])
	p.take(n, "%s %d", what, v)
	return int(v)
}

func (p *printer) entries(end int, key func(k []byte) string, value func(k, v []byte) string) {
	last := []byte{}
	for p.at < end {
		shared := p.varint("shared")
		unshared := p.varint("non-shared")
		vlen := p.varint("value length")
		k := append(last[:shared:shared], p.b[p.at:p.at+unshared]...)
		p.take(unshared, "key %s", key(k))
		p.take(vlen, "value %s", value(k, p.b[p.at:p.at+vlen]))
		last = k
	}
}

// filter describes a filter block of n bytes.
func (p *printer) filter(n int) {
	f := parseFilter(p.b[p.at : p.at+n])
	switch f.form {
	case FormLegacyBloom:
		p.take(n-5, "Bloom filter bits")
		p.take(1, "probes")
		p.take(4, "number of 64-byte lines")
	case FormFastBloom:
		p.take(n-5, "Bloom filter bits, %d lines of 64 bytes", (n-5)/64)
		p.take(1, "not a legacy filter")
		p.take(1, "fast local Bloom")
		p.take(1, "%d probes", f.probes)
		p.take(2, "reserved")
	case FormRibbon:
		p.take(n-5, "solution: %d blocks of %d columns of 16 bytes, %d of them of one less", f.lay.blocks, f.lay.columns, f.lay.upper)
		p.take(1, "Ribbon")
		p.take(1, "seed %d", f.seed)
		p.take(3, "%d blocks of 128 slots", f.lay.blocks)
	}
}

func describeFilter(t *testing.T, d *datadriven.TestData) string {
	o := WriterOptions{Filter: FilterWholeKey, FilterMillibits: DefaultFilterMillibits}
	var form string
	var keys int
	var version int
	d.ScanArgs(t, "form", &form)
	d.ScanArgs(t, "version", &version)
	d.ScanArgs(t, "keys", &keys)
	o.FormatVersion = uint32(version)
	if form == "ribbon" {
		o.FilterForm = FormRibbon
	}
	b := newFilterBuilder(&o)
	for i := range keys {
		b.add(fmt.Appendf(nil, "key%06d", i))
	}
	p := &printer{b: b.finish()}
	p.filter(len(p.b))
	return p.String()
}

func internalKey(k []byte) string {
	d, _ := ikey.Decode(k)
	return fmt.Sprintf("%q sequence %d %v", d.User, d.Seq, d.Kind)
}

func handleText(_, v []byte) string {
	h, _, _ := decodeHandle(v)
	return fmt.Sprintf("offset %d size %d", h.off, h.size)
}

func describe(t *testing.T, b []byte) string {
	r, err := openBytes(t, b, ReaderOptions{})
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	p := &printer{b: b}
	block := func(title string, h handle, key func([]byte) string, value func(k, v []byte) string) {
		if p.at != int(h.off) {
			t.Fatalf("%s is at %d, not at %d", title, h.off, p.at)
		}
		fmt.Fprintf(p, "%s\n", title)
		end := p.at + int(h.size)
		switch code := b[end]; {
		case code != CompressionNone:
			size, n := binary.Uvarint(b[p.at:])
			p.take(n, "decompressed size %d", size)
			p.take(end-p.at, "%s", CompressionName(code))
		case key == nil:
			p.filter(int(h.size))
		default:
			n := int(binary.LittleEndian.Uint32(b[end-4:]))
			p.entries(end-4-4*n, key, value)
			for range n {
				p.take(4, "restart point")
			}
			p.take(4, "number of restart points %d", n)
		}
		p.take(1, "compression type %s", CompressionName(b[end]))
		p.take(4, "checksum")
	}
	quoted := func(k []byte) string { return fmt.Sprintf("%q", k) }
	for i, e := range r.index {
		block(fmt.Sprintf("-- data block %d", i), e.h, internalKey, func(_, v []byte) string { return quoted(v) })
	}
	if h, ok := r.filter(); ok {
		block("-- filter block", h, nil, nil)
	}
	block("-- index block", r.foot.index, internalKey, handleText)
	if h, ok := r.meta[metaRangeDel]; ok {
		block("-- range tombstone block", h, internalKey, func(_, v []byte) string { return quoted(v) })
	}
	block("-- properties block", r.meta[metaProperties], quoted, func(k, v []byte) string {
		switch u, n := binary.Uvarint(v); {
		case string(k) == propIndexType:
			return fmt.Sprintf("%d (u32)", binary.LittleEndian.Uint32(v))
		case n == len(v) && n > 0 && string(k) != propWholeKey && string(k) != propPrefixFiltering:
			return fmt.Sprint(u)
		}
		return quoted(v)
	})
	block("-- metaindex block", r.foot.meta, quoted, handleText)
	fmt.Fprintln(p, "-- footer")
	p.take(1, "checksum type %v", r.foot.checksum)
	for i, h := range []handle{r.foot.meta, r.foot.index} {
		p.take(len(appendHandle(nil, h)), "%s: offset %d size %d", []string{"metaindex", "index"}[i], h.off, h.size)
	}
	p.take(len(b)-12-p.at, "padding")
	p.take(4, "format version %d", r.foot.version)
	p.take(8, "magic number")
	return p.String()
}
