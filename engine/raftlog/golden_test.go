package raftlog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// annotator prints each byte of a log file once, with its meaning. It reads the bytes on its own, so that it also is a second
// opinion about the decoder.
type annotator struct {
	out strings.Builder
	b   []byte
	off int
}

func (a *annotator) take(n int, format string, args ...any) []byte {
	v := a.b[a.off : a.off+n]
	h := hex.EncodeToString(v)
	if len(h) > 48 {
		h = h[:40] + fmt.Sprintf("..+%d", n-20)
	}
	fmt.Fprintf(&a.out, "%04d-%04d  %-48s  %s\n", a.off, a.off+n, h, fmt.Sprintf(format, args...))
	a.off += n
	return v
}

func (a *annotator) uv(format string) uint64 {
	v, n := binary.Uvarint(a.b[a.off:])
	a.take(n, format, v)
	return v
}

func (a *annotator) file(seq uint64) {
	a.take(53, "magic")
	version := binary.BigEndian.Uint64(a.b[a.off:])
	a.take(8, "version %d", version)
	sig := uint32(0)
	if version == 2 {
		a.take(8, "alignment 0")
		sig = uint32(seq)
	}
	for a.off+16 <= len(a.b) && binary.BigEndian.Uint64(a.b[a.off+8:]) >= 16 {
		a.batch(sig)
	}
	if a.off < len(a.b) {
		a.take(len(a.b)-a.off, "tail: no batch")
	}
}

func (a *annotator) batch(sig uint32) {
	start := a.off
	first := binary.BigEndian.Uint64(a.b[a.off:])
	a.take(8, "batch of %d bytes, compression %d", first>>8, first&0xFF)
	itemOff := int(binary.BigEndian.Uint64(a.b[a.off:]))
	a.take(8, "items at +%d", itemOff)
	var block []byte
	if itemOff > 16 {
		raw := a.b[a.off : start+itemOff]
		block, _ = DecodeBlock(raw, byte(first))
		if first&0xFF == 1 {
			a.take(4, "  decoded length %d", binary.LittleEndian.Uint32(a.b[a.off:]))
		}
		body := a.take(start+itemOff-4-a.off, "  entries block")
		_ = body
		a.take(4, "  CRC of the entries block %s", okIf(crc(raw[:len(raw)-4]) == binary.LittleEndian.Uint32(raw[len(raw)-4:])))
	}
	section := a.off
	tail := uint64(0)
	for n := a.uv("  %d items"); n > 0; n-- {
		a.uv("  group %d")
		switch a.take(1, "    item type")[0] {
		case 1:
			count := a.uv("    %d entries")
			if count > 0 {
				a.uv("    first index %d")
			}
			for ; count > 0; count-- {
				v, k := binary.Uvarint(a.b[a.off:])
				e, err := raftstate.ParseEntry(block[tail:v])
				a.take(k, "    ends at %d of the block: index %d term %d %d bytes of data %s", v, e.Index, e.Term, len(e.Data), okIf(err == nil))
				tail = v
			}
		case 2:
			if a.take(1, "    command")[0] == 2 {
				a.uv("    compact: drop entries below %d")
			} else {
				a.out.WriteString("                                                                  clean\n")
			}
		case 3:
			op := a.take(1, "    1 put, 2 delete")[0]
			k := a.uv("    key of %d bytes")
			key := a.take(int(k), "    key")
			if op == 1 {
				v := a.uv("    value of %d bytes")
				val := a.b[a.off : a.off+int(v)]
				if string(key) == stateKey {
					s, _ := raftstate.ParseRaftLocalState(val)
					a.take(int(v), "    raft state: term %d vote %d commit %d last %d", s.HardState.Term, s.HardState.Vote, s.HardState.Commit,
						s.LastIndex)
				} else {
					a.take(int(v), "    value")
				}
			}
		}
	}
	end := start + int(first>>8)
	if a.off < end-4 {
		a.take(end-4-a.off, "  not counted")
	}
	got := crc(a.b[section:a.off])
	want := binary.LittleEndian.Uint32(a.b[a.off:])
	a.take(4, "  CRC of the items, mixed with %d %s", sig, okIf(got == want^sig))
}

func okIf(ok bool) string {
	if ok {
		return "(good)"
	}
	return "(BAD)"
}

// TestGolden: "file seq=N" gives a whole file as hex; the output is every byte with its meaning, then what the reader makes of it.
// The inputs are those that raft-engine 0.4.2 itself was seen to read in this way.
func TestGolden(t *testing.T) {
	datadriven.RunTest(t, "testdata/golden", func(t *testing.T, d *datadriven.TestData) string {
		var seq uint64
		d.ScanArgs(t, "seq", &seq)
		b := []byte{}
		for _, line := range strings.Split(d.Input, "\n") {
			line, _, _ = strings.Cut(line, "#")
			switch strings.TrimSpace(line) {
			case "v1":
				b = append(b, fileHeader(1)...)
				continue
			case "v2":
				b = append(b, fileHeader(2)...)
				continue
			case "zeros":
				b = append(b, make([]byte, 64)...)
				continue
			}
			h, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, h...)
		}
		a := annotator{b: b}
		a.file(seq)
		dir := newDir().write(FileName(Append, seq), b)
		if d.HasArg("rewrite") {
			dir = newDir().write(FileName(Rewrite, seq), b)
		}
		e, rep, err := dir.open()
		if err != nil {
			return a.out.String() + "error: " + err.Error() + "\n"
		}
		f := rep.Files[0]
		fmt.Fprintf(&a.out, "valid to %d of %d, %d batches, tail %s", f.Valid, f.Size, f.Batches, f.Tail)
		if f.Stop != "" {
			fmt.Fprintf(&a.out, ": %s", f.Stop)
		}
		a.out.WriteString("\n")
		for id := uint64(0); id < 400; id++ {
			first, last, ok, _ := e.Bounds(id)
			if keys := e.Keys(id); ok || len(keys) > 0 {
				fmt.Fprintf(&a.out, "group %d: entries %d..%d, keys %x", id, first, last, keys)
				if err := e.Entries(id, 0, ^uint64(0), func(raftstate.Entry) error { return nil }); err != nil {
					fmt.Fprintf(&a.out, ", %v", err)
				}
				a.out.WriteString("\n")
			}
		}
		return a.out.String()
	})
}
