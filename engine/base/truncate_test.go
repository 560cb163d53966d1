package base

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestTruncate(t *testing.T) {
	dir := t.TempDir()
	mem := vfs.NewMem()
	if err := mem.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, fs := range map[string]FS{"disk": NewOS(), "memory": NewMem(mem)} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(dir, "f")
			if err := WriteFileSync(fs, p, []byte("0123456789"), ""); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				size int64
				ok   bool
				want string
			}{{10, true, "0123456789"}, {7, true, "0123456"}, {8, false, "0123456"}, {-1, false, "0123456"}, {0, true, ""}} {
				err := fs.Truncate(p, c.size)
				if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrIO) {
					t.Errorf("truncate to %d: %v", c.size, err)
				}
				if b, err := ReadFile(fs, p); err != nil || string(b) != c.want {
					t.Errorf("after truncate to %d: %q %v", c.size, b, err)
				}
			}
			if err := fs.Truncate(filepath.Join(dir, "absent"), 0); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("absent file: %v", err)
			}
			if names, err := fs.List(dir); err != nil || len(names) != 1 {
				t.Errorf("left behind: %v %v", names, err)
			}
		})
	}
}

// Truncate keeps mode and inode on a disk: TiKV must be able to go on with the file.
func TestTruncateInPlace(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, []byte("0123456789"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := NewOS().Truncate(p, 4); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || after.Mode() != before.Mode() || after.Size() != 4 {
		t.Errorf("before %v, after %v", before, after)
	}
}

// A truncation in memory is durable when it returns, as on a disk.
func TestTruncateSurvivesPowerCut(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := NewMem(mem)
	if err := WriteFileSync(fs, "/f", bytes.Repeat([]byte("x"), 100), ""); err != nil {
		t.Fatal(err)
	}
	if err := SyncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
	if err := fs.Truncate("/f", 30); err != nil {
		t.Fatal(err)
	}
	b, err := ReadFile(NewMem(mem.CrashClone(vfs.CrashCloneCfg{})), "/f")
	if err != nil || len(b) != 30 {
		t.Errorf("%d bytes after the cut, %v", len(b), err)
	}
}
