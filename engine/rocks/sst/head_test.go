package sst

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

var headNames = []string{"tikv.min_ts", "tikv.max_ts", "tikv.num_errors", propDeleted, propCompression, "no.such.property"}

// headOf reads a head and says what it found.
func headOf(h *HeadReader, name string, size int64) (string, error) {
	head, err := h.Read(name, ReaderOptions{Size: size})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%X %v", head.Values, head.RangeDels), nil
}

// The head of every table says what opening it says, in one read; of a file whose size is not known, and one with long properties as well.
func TestHeadSaysWhatOpenSays(t *testing.T) {
	eachFixture(t, func(t *testing.T, fs base.FS, name string) {
		r := openFixture(t, fs, name)
		values := make([][]byte, len(headNames))
		for i, n := range headNames {
			if v, ok := r.Props().All[n]; ok {
				values[i] = []byte(v)
			}
		}
		want := fmt.Sprintf("%X %v", values, r.Props().NumRangeDels > 0)
		h := NewHeadReader(fs, headNames)
		end, size, err := base.ReadEnd(fs, name, r.Size(), h.buf)
		if err != nil || !h.quick(name, end, size) {
			t.Errorf("not in one read: %v", err)
		}
		for _, size := range []int64{r.Size(), 0} {
			if got, err := headOf(h, name, size); err != nil || got != want {
				t.Errorf("size %d: %s, %v; want %s", size, got, err, want)
			}
		}
		if quick := h.quick(name, end[len(end)-footerSize:], size); quick {
			t.Error("read quickly from a footer alone")
		}
		if err := h.open(name, ReaderOptions{}); err != nil || fmt.Sprintf("%X %v", h.head.Values, h.head.RangeDels) != want {
			t.Errorf("the usual way: %X, %v; want %s", h.head.Values, err, want)
		}
		if _, err := headOf(h, name, r.Size()+1); err == nil {
			t.Error("the wrong size was taken")
		}
	})
}

// FuzzHead: the quick way takes nothing that the usual way refuses, and finds the same.
func FuzzHead(f *testing.F) {
	for _, b := range smallTables(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h := NewHeadReader(memFile(t, b), headNames)
		h.buf = h.buf[:min(len(h.buf), max(2, len(b)))] // not always the whole file
		end, size, err := base.ReadEnd(h.fs, testFile, int64(len(b)), h.buf)
		if err != nil || !h.quick(testFile, end, size) {
			return
		}
		quick := fmt.Sprintf("%X %v", h.head.Values, h.head.RangeDels)
		h.buf = make([]byte, headRead+1)
		if err := h.open(testFile, ReaderOptions{LargestSeq: ikey.MaxSeq}); err != nil {
			t.Fatalf("taken quickly: %s, refused otherwise: %v", quick, err)
		}
		if usual := fmt.Sprintf("%X %v", h.head.Values, h.head.RangeDels); usual != quick {
			t.Fatalf("%s, usually %s", quick, usual)
		}
	})
}

func TestHeadTakesNoMemory(t *testing.T) {
	for name, b := range smallTables(t) {
		h := NewHeadReader(memFile(t, b), headNames)
		end := bytes.Clone(b[max(0, len(b)-headRead):])
		if !h.quick(testFile, end, int64(len(b))) {
			continue // its properties are compressed, or patched
		}
		if n := testing.AllocsPerRun(10, func() { h.quick(testFile, end, int64(len(b))) }); n > 1 { // a footer of version 6 is copied
			t.Errorf("%v: %v allocations", name, n)
		}
	}
}
