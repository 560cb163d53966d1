package titan_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/titan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func FuzzIndex(f *testing.F) {
	f.Add(index(2, 20, 3350))
	f.Add([]byte{})
	f.Add([]byte{1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := titan.ParseIndex(b)
		if err != nil {
			return
		}
		y, err := titan.ParseIndex(index(x.File, x.Offset, x.Size))
		if err != nil || x != y {
			t.Errorf("%X decodes to %+v, again to %+v, %v", b, x, y, err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	b, err := base.ReadFile(base.NewMem(fixtures.Mem(f, "single-titan")), fixtureDir+"/MANIFEST-000001")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(manifest(edit(1, 5, 10, 3), edit(11, 2, 100), edit(13, 3, 50, 1, 0, "a", "b"), edit(12, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := titan.ParseManifest("M", b)
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Errorf("error without a class: %v", err)
		}
		if err == nil && (m.Torn < 0 || m.Torn > int64(len(b))) {
			t.Errorf("%d of %d bytes are torn", m.Torn, len(b))
		}
	})
}

// FuzzEdit mutates what stands inside a sound frame, which FuzzManifest rarely gets past.
func FuzzEdit(f *testing.F) {
	f.Add(edit(1, 5, 10, 3))
	f.Add(edit(14, 3, 50, 1, 0, 0, "a", "b"))
	f.Add(edit(11, 2, 100, 12, 2))
	f.Fuzz(func(t *testing.T, e []byte) {
		m, err := titan.ParseManifest("M", manifest(e))
		if err != nil && !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("error without a class: %v", err)
		}
		if err == nil && m.Torn != 0 {
			t.Errorf("%d bytes torn", m.Torn)
		}
	})
}

func FuzzBlobRecord(f *testing.F) {
	for _, c := range []byte{0, 1, 4, 7} {
		w := newBlob(1, 0, 0)
		w.add(c, []byte("k"), bytes.Repeat([]byte("v"), 100))
		f.Add(c, w.b[8+9:])
	}
	f.Fuzz(func(t *testing.T, compression byte, payload []byte) {
		w := newBlob(1, 0, 0)
		off, size := w.raw(compression, payload)
		blob := w.finish()
		s := store(t, map[int][]byte{5: blob}, edit(11, 5, len(blob)))
		v, err := s.Get(index(5, off, size), []byte("k"))
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Errorf("error without a class: %v", err)
		}
		if walkErr := s.Walk(5, func(_, _ int64, key, value []byte) error {
			if err == nil && (string(key) != "k" || !bytes.Equal(v, value)) {
				return io.ErrUnexpectedEOF
			}
			return nil
		}); err == nil && walkErr != nil {
			t.Errorf("get works, walk gives %v", walkErr)
		}
	})
}

func FuzzBlobFile(f *testing.F) {
	w := newBlob(3, 0, 512)
	off, size := w.add(7, []byte("k"), bytes.Repeat([]byte("v"), 100))
	f.Add(w.finish(), off, size)
	f.Add([]byte{}, uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, blob []byte, off, size uint64) {
		s := store(t, map[int][]byte{5: blob}, edit(11, 5, len(blob)))
		_, err := s.Get(index(5, off, size), []byte("k"))
		walkErr := s.Walk(5, func(_, _ int64, _, _ []byte) error { return nil })
		for _, e := range []error{err, walkErr} {
			if e != nil && !errors.Is(e, base.ErrCorrupt) && !errors.Is(e, base.ErrUnsupported) {
				t.Errorf("error without a class: %v", e)
			}
		}
	})
}
