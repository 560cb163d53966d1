package base_test

import (
	"bytes"
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
		}
	}
}
