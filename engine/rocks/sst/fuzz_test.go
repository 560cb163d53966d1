package sst

import (
	"bytes"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

func FuzzReader(f *testing.F) {
	for _, b := range smallTables(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		points, _, err := readAll(t, b)
		if err != nil {
			return
		}
		for i := 1; i < len(points); i++ {
			if ikey.Compare(points[i-1].Key, points[i].Key) >= 0 {
				t.Fatalf("%v before %v", points[i-1].Key, points[i].Key)
			}
		}
	})
}

// FuzzBlock feeds one payload to every decoder of blocks, with every compression.
func FuzzBlock(f *testing.F) {
	b := blockBuilder{interval: 4}
	for _, r := range manyRecords(20) {
		b.add(r.Encode(), []byte(r.Value))
	}
	raw := bytes.Clone(b.finish())
	f.Add(raw, byte(0), uint8(2), []byte("z"))
	for _, code := range []byte{CompressionSnappy, CompressionLZ4, CompressionLZ4HC, CompressionZSTD} {
		c := compressor{code: code}
		out, _, err := c.compress(bytes.Repeat(raw, 4))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(out), code, uint8(2), []byte("z000003"))
	}
	// It claims to be nothing, and has a literal of one byte.
	f.Add(append([]byte{0, 0x17, 0, 'z'}, make([]byte, 16)...), CompressionLZ4, uint8(2), []byte("z"))
	f.Add([]byte{0, 1, 1, 'a', 0, 5, 0, 0, 0, 0, 1, 0, 0, 0}, CompressionZlib, uint8(1), []byte("a"))
	f.Fuzz(func(t *testing.T, payload []byte, code, version uint8, user []byte) {
		out, err := decompress(code, uint32(version), payload, nil)
		if err != nil {
			out = payload
		}
		for i := range 8 {
			form := indexForm{userKey: i&1 != 0, delta: i&2 != 0, firstKey: i&4 != 0}
			foot := footer{off: 1 << 40}
			if es, bad := decodeIndex(out, form, foot.check); bad == "" {
				for j := 1; j < len(es); j++ {
					if form.compare(es[j-1].sep, es[j].sep) >= 0 {
						t.Fatal("separators out of order")
					}
				}
			}
		}
		if p, err := decodeProperties("f", 0, out); err == nil && p.All == nil {
			t.Fatal("properties without a map")
		}
		blk, bad := parseBlock(out)
		if bad != "" {
			return
		}
		var c cursor
		c.load(blk)
		n := 0
		for c.next() {
			n++
		}
		if c.bad == "" && n == 0 && len(blk.entries) > 0 {
			t.Fatal("entries were skipped")
		}
		c.bad = ""
		c.load(blk)
		if c.seekGE(user) && bytes.Compare(c.key[:len(c.key)-8], user) < 0 {
			t.Fatalf("seek to %X is at %X", user, c.key)
		}
	})
}
