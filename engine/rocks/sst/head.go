package sst

import (
	"bytes"
	"errors"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// headRead is what is read of a table's end at first: footer, metaindex and properties lie in it, unless the properties are very long.
const headRead = 8 << 10

var headPool = sync.Pool{New: func() any {
	b := make([]byte, headRead)
	return &b
}}

// HeadReader reads some properties of tables, verified as Open does, and nothing else: one read a table as a rule, and no memory. A store
// may have 100,000 tables, of which most are never opened. It is for one goroutine.
type HeadReader struct {
	fs      base.FS
	names   []string
	lengths uint64 // bit i%64: there is a name of i bytes

	buf, key, last []byte
	head           Head
}

// Head is what the end of a table says.
type Head struct {
	// Values are the properties that were asked for, in the order of the names, as stored; nil for those that the table does not have.
	Values [][]byte
	// RangeDels tells whether there is a block of range tombstones.
	RangeDels bool
}

// NewHeadReader reads the properties of these names.
func NewHeadReader(fs base.FS, names []string) *HeadReader {
	h := &HeadReader{fs: fs, names: names, buf: make([]byte, headRead+1), head: Head{Values: make([][]byte, len(names))}}
	for _, n := range names {
		h.lengths |= 1 << (len(n) % 64)
	}
	return h
}

// Read reads one table. The result is valid until the next call.
func (h *HeadReader) Read(path string, o ReaderOptions) (*Head, error) {
	end, size, err := base.ReadEnd(h.fs, path, o.Size, h.buf)
	if err == nil && (o.Size == 0 || o.Size == size) && h.quick(path, end, size) {
		return &h.head, nil
	}
	// It is not all in this end, or something is wrong: what exactly, the usual way tells.
	return &h.head, h.open(path, o)
}

// quick decodes a head that lies in the end of the file as a whole. It takes nothing that the usual way would not take.
func (h *HeadReader) quick(path string, end []byte, size int64) bool {
	foot, err := decodeFooter(path, end, uint64(size))
	if err != nil {
		return false
	}
	start := uint64(size) - uint64(len(end))
	block := func(at handle) ([]byte, bool) {
		if at.off < start || foot.check(at) != "" {
			return nil, false
		}
		raw := end[at.off-start:][:at.size+trailerSize]
		stored, computed := foot.checksums(at, raw)
		return raw[:at.size], stored == computed && raw[at.size] == CompressionNone
	}
	meta, ok := block(foot.meta)
	if !ok {
		return false
	}
	var props, legacy handle
	h.head.RangeDels = false
	n := 0
	bad := eachEntryIn(meta, &h.key, func(key, value []byte, _ int) string {
		at, _, ok := decodeHandle(value)
		if !ok || foot.check(at) != "" || n > 0 && bytes.Compare(key, h.last) <= 0 {
			return "bad"
		}
		h.last = append(h.last[:0], key...)
		n++
		switch string(key) {
		case metaProperties:
			if props = at; at == (handle{}) {
				return "bad"
			}
		case metaPropertiesLegacy:
			legacy = at
		case metaRangeDel:
			h.head.RangeDels = true
		case metaCompressionDict:
			return "bad"
		}
		return ""
	})
	if props == (handle{}) {
		props = legacy
	}
	if bad != "" || props == (handle{}) {
		return false
	}
	payload, ok := block(props)
	if !ok {
		return false
	}
	clear(h.head.Values)
	return h.take(payload, false) == ""
}

// take finds the properties in their block. The values alias it unless they are to be copied.
func (h *HeadReader) take(payload []byte, copied bool) (bad string) {
	return eachEntryIn(payload, &h.key, func(key, value []byte, _ int) string {
		if h.lengths&(1<<(len(key)%64)) == 0 {
			return ""
		}
		for i, n := range h.names {
			if string(key) == n {
				if copied {
					value = bytes.Clone(value)
				}
				h.head.Values[i] = value[:len(value):len(value)]
			}
		}
		return ""
	})
}

// open reads a head as Open does.
func (h *HeadReader) open(path string, o ReaderOptions) error {
	f, err := h.fs.Open(path)
	if err != nil {
		return base.IO("open", path, err)
	}
	r := &Reader{path: path, f: f, o: o}
	var payload []byte
	if err = r.readEnd(h.buf[:headRead]); err == nil {
		payload, err = r.propertiesBlock()
	}
	clear(h.head.Values)
	if err == nil {
		if bad := h.take(payload, true); bad != "" {
			err = r.corrupt(r.foot.meta.off, "properties block: %s", bad)
		}
	}
	if e := r.Close(); err == nil {
		err = e
	}
	if err != nil {
		var e *base.Error
		if errors.As(err, &e) && e.CF == "" {
			e.CF = o.CF
		}
		return err
	}
	_, h.head.RangeDels = r.meta[metaRangeDel]
	return nil
}

// readEnd reads and decodes footer and metaindex; buf takes the end of the file.
func (r *Reader) readEnd(buf []byte) error {
	st, err := r.f.Stat()
	if err != nil {
		return base.IO("stat", r.path, err)
	}
	r.size = st.Size()
	if r.o.Size != 0 && r.o.Size != r.size {
		return r.corrupt(uint64(min(r.size, r.o.Size)), "file has %d bytes, the MANIFEST says %d", r.size, r.o.Size)
	}
	r.tail = buf[:min(r.size, int64(len(buf)))]
	if err := r.readAt(r.tail, uint64(r.size)-uint64(len(r.tail))); err != nil {
		return err
	}
	if r.foot, err = decodeFooter(r.path, r.tail, uint64(r.size)); err != nil {
		return err
	}
	return r.readMetaindex()
}
