package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Every row of RocksDB's reader state machine.
func TestReaderStateMachine(t *testing.T) {
	a, b, c := []byte("aaaa"), []byte("bbbb"), []byte("cccc")
	full := func(p []byte) []byte { return physical(typeFull, p) }
	flipped := func(p []byte) []byte {
		p = slices.Clone(p)
		p[len(p)-1] ^= 1
		return p
	}
	padTo := func(b []byte, n int) []byte { return append(slices.Clone(b), make([]byte, n-len(b))...) }
	longLength := func(p []byte) []byte { p = slices.Clone(p); p[5] = 0xFF; return p }
	long := bytes.Repeat([]byte("long "), 20000)
	for _, tc := range []struct {
		name    string
		file    []byte
		records []string
		damage  string // kinds with offsets
		refused string
	}{
		{name: "empty file"},
		{name: "full records", file: cat(full(a), full(b)), records: []string{"aaaa", "bbbb"}},
		{name: "empty record is a record", file: cat(full(nil), full(b)), records: []string{"", "bbbb"}},
		{name: "fragments", file: cat(physical(typeFirst, a), physical(typeMiddle, b), physical(typeLast, c)), records: []string{"aaaabbbbcccc"}},
		{name: "record over several blocks", file: frame(t, long, b), records: []string{string(long), "bbbb"}},
		{name: "preallocated tail", file: padTo(full(a), 3*BlockSize+100), records: []string{"aaaa"}},
		{name: "torn header", file: cat(full(a), full(b)[:6]), records: []string{"aaaa"}, damage: "torn-header@11"},
		{name: "three zeros at the end are a torn header too", file: cat(full(a), make([]byte, 3)), records: []string{"aaaa"}, damage: "torn-header@11"},
		{name: "torn body", file: cat(full(a), full(b)[:9]), records: []string{"aaaa"}, damage: "torn-body@11"},
		{name: "damaged length that looks torn", file: cat(full(a), longLength(full(b)), full(c)), records: []string{"aaaa"}, damage: "torn-body@11 behind"},
		{name: "unfinished fragment at the end", file: cat(full(a), physical(typeFirst, b)), records: []string{"aaaa"}, damage: "torn-fragment@11"},
		{name: "torn body inside a fragment", file: cat(full(a), physical(typeFirst, b), physical(typeLast, c)[:9]), records: []string{"aaaa"}, damage: "torn-body@11"},
		{name: "checksum drops the rest of the block", file: cat(padTo(cat(full(a), flipped(full(b)), full(c)), BlockSize), full(c)),
			records: []string{"aaaa", "cccc"}, damage: "checksum-mismatch@11"},
		{name: "length past the block", file: cat(padTo(cat(full(a), longLength(full(b))), BlockSize), full(c)),
			records: []string{"aaaa", "cccc"}, damage: "bad-length@11"},
		{name: "middle without first", file: cat(physical(typeMiddle, a), full(b)), records: []string{"bbbb"}, damage: "missing-start@0"},
		{name: "last without first", file: cat(physical(typeLast, a), full(b)), records: []string{"bbbb"}, damage: "missing-start@0"},
		{name: "full while a fragment is open", file: cat(physical(typeFirst, a), full(b)), records: []string{"bbbb"}, damage: "unfinished-fragment@0"},
		{name: "first while a fragment is open", file: cat(physical(typeFirst, a), physical(typeFirst, b), physical(typeLast, c)),
			records: []string{"bbbbcccc"}, damage: "unfinished-fragment@0"},
		{name: "an empty first may be left open", file: cat(physical(typeFirst, nil), full(b)), records: []string{"bbbb"}},
		{name: "unknown type", file: cat(full(a), physical(99, b), full(c)), records: []string{"aaaa", "cccc"}, damage: "unknown-type@11"},
		{name: "zeros in the middle: silent for the engine, not for us", file: cat(padTo(full(a), BlockSize), full(c)),
			records: []string{"aaaa", "cccc"}, damage: "zero-gap@11 silent"},
		{name: "data behind zeros in the last block", file: cat(full(a), make([]byte, 20), full(c)), records: []string{"aaaa"}, damage: "zero-gap@11 silent"},
		{name: "zeros inside a fragment", file: cat(padTo(physical(typeFirst, a), BlockSize), physical(typeLast, c)),
			damage: "zero-in-fragment@0 zero-gap@11 silent missing-start@32768"},
		{name: "recyclable", file: cat(recyclable(5, 7, a), recyclable(6, 7, b), recyclable(8, 7, c)), records: []string{"aaaa", "bbbbcccc"}},
		{name: "recycled file ends at a record of another log", file: cat(recyclable(5, 7, a), recyclable(5, 6, b)), records: []string{"aaaa"}},
		{name: "other log inside a fragment", file: cat(recyclable(6, 7, a), recyclable(8, 6, b)), damage: "torn-fragment@0"},
		{name: "type byte 1 became 5", file: cat(full(a), func() []byte { b := full(b); b[6] = 5; return b }(), full(c)), records: []string{"aaaa"},
			damage: "other-log@11 silent"},
		{name: "compressed WAL", file: cat(physical(9, []byte{7, 0, 0, 0}), full(a)), refused: "compressed WAL"},
		{name: "timestamp sizes", file: cat(full(a), physical(10, a)), records: []string{"aaaa"}, refused: "user-defined timestamp size"},
		{name: "timestamp sizes, recyclable", file: recyclable(11, 7, a), refused: "user-defined timestamp size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			records, damage, err := readAll(NewReader(bytes.NewReader(tc.file), "/db/000007.log", 7))
			var got []string
			for _, r := range records {
				got = append(got, string(r))
			}
			if !slices.Equal(got, tc.records) {
				t.Errorf("records %.60q, want %.60q", got, tc.records)
			}
			var kinds []string
			for _, d := range damage {
				s := fmt.Sprintf("%s@%d", d.Kind, d.Offset)
				if d.Silent {
					s += " silent"
				}
				if d.RecordsBehind {
					s += " behind"
				}
				kinds = append(kinds, s)
				if !errors.Is(d, base.ErrCorrupt) {
					t.Errorf("%v has no class", d)
				}
				if d.Offset+d.Bytes > int64(len(tc.file)) || d.Bytes <= 0 {
					t.Errorf("%s: %d bytes at %d of %d", d.Kind, d.Bytes, d.Offset, len(tc.file))
				}
			}
			if s := strings.Join(kinds, " "); s != tc.damage {
				t.Errorf("damage %q, want %q", s, tc.damage)
			}
			if (tc.refused != "") != errors.Is(err, base.ErrUnsupported) || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("error %v, want refusal %q", err, tc.refused)
			}
		})
	}
}

// What pebble's writer frames comes back, at every distance from the end of a block, with true offsets.
func TestReaderRoundTrip(t *testing.T) {
	const seed = 20240607
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	for tail := 0; tail < 30; tail++ {
		records := [][]byte{bytes.Repeat([]byte{'x'}, BlockSize-legacyHeader-tail)}
		for range 20 {
			r := make([]byte, rnd.Intn(1<<uint(rnd.Intn(18))))
			rnd.Read(r)
			records = append(records, r)
		}
		file := frame(t, records...)
		rd := NewReader(bytes.NewReader(file), "m", 0)
		for i, want := range records {
			got, off, err := rd.Next()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("tail %d: record %d: %v", tail, i, err)
			}
			if at := file[off+6]; at != typeFull && at != typeFirst {
				t.Fatalf("tail %d: record %d: no beginning at offset %d", tail, i, off)
			}
		}
	}
}

type brokenReader struct {
	data []byte
	err  error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	n := copy(p, b.data)
	b.data = b.data[n:]
	if n == 0 {
		return 0, b.err
	}
	return n, nil
}

func TestReaderFailedRead(t *testing.T) {
	file := frame(t, bytes.Repeat([]byte{1}, 2*BlockSize))
	r := NewReader(&brokenReader{file[:BlockSize], errors.New("disk gone")}, "/db/000007.log", 7)
	for range 2 {
		if _, _, err := r.Next(); !errors.Is(err, base.ErrIO) || !strings.Contains(err.Error(), "disk gone") {
			t.Fatalf("got %v, want an i/o error that stays", err)
		}
	}
}

func FuzzLogReader(f *testing.F) {
	f.Add(frame(f, []byte("a"), bytes.Repeat([]byte("b"), 40000), nil), uint64(7))
	f.Add(cat(recyclable(5, 7, []byte("a")), recyclable(5, 6, []byte("b"))), uint64(7))
	f.Add(cat(physical(typeFirst, nil), make([]byte, BlockSize), physical(typeLast, []byte("z"))), uint64(0))
	f.Fuzz(func(t *testing.T, file []byte, log uint64) {
		r := NewReader(bytes.NewReader(file), "f", log)
		total, last := 0, int64(-1)
		for steps := 0; ; steps++ {
			b, off, err := r.Next()
			var d *Damage
			switch {
			case err == nil:
				total += len(b)
				if off <= last || total > len(file) {
					t.Fatalf("record at %d after %d, %d bytes out of %d", off, last, total, len(file))
				}
				last = off
			case errors.As(err, &d):
				if d.Bytes <= 0 || d.Offset < 0 || d.Offset+d.Bytes > int64(len(file)) {
					t.Fatalf("%s: %d bytes at %d of %d", d.Kind, d.Bytes, d.Offset, len(file))
				}
			default:
				return
			}
			if steps > len(file)+10 {
				t.Fatal("no end")
			}
		}
	})
}
