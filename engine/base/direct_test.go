package base_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// What is written directly reads like what is written through the cache, whatever the length and the pieces.
func TestWriteDirect(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for name, fs := range map[string]base.FS{"disk": base.NewOS(), "memory": base.NewMem(vfs.NewMem())} {
		dir := "/"
		if name == "disk" {
			dir = t.TempDir()
		}
		for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, 3<<20 - 4096, 3<<20 + 5} {
			path := filepath.Join(dir, "file")
			f, err := fs.Create(path, base.DiskWriteCategory)
			if err != nil {
				t.Fatal(err)
			}
			f = base.WriteDirect(f)
			want := make([]byte, size)
			for i := range want {
				want[i] = byte(rng.Uint32())
			}
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(600<<10))
				if m, err := f.Write(bytes.Clone(rest[:n])); err != nil || m != n {
					t.Fatalf("%s, %d bytes: %d of %d written, %v", name, size, m, n, err)
				}
				rest = rest[n:]
			}
			if size%2 == 0 {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := base.ReadFile(fs, path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes read of %d, equal: %v, %v", name, len(got), size, bytes.Equal(got, want), err)
			}
			r, err := base.ReadDirect(fs).Open(path)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				off := rng.IntN(size + 1)
				p := make([]byte, rng.IntN(size-off+1))
				if len(p) == 0 {
					continue
				}
				if n, err := r.ReadAt(p, int64(off)); err != nil || n != len(p) || !bytes.Equal(p, want[off:off+len(p)]) {
					t.Errorf("%s: %d of %d bytes read directly at %d of %d, %v", name, n, len(p), off, size, err)
				}
			}
			if size > 3 {
				if n, err := r.ReadAt(make([]byte, 10), int64(size)-3); n != 3 || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s: %d bytes read at the end of %d, %v", name, n, size, err)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
