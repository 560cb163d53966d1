package base

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The quick way and the usual one give the same, whatever size is expected.
func TestReadEnd(t *testing.T) {
	content := []byte("0123456789abcdef")
	mem := NewMem(vfs.NewMem())
	if err := WriteFileSync(mem, "f", content, ""); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(disk, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 1, 15, 16, 17, 1 << 40} {
		for _, room := range []int{2, 9, 16, 17, 18, 100} {
			want := content[max(0, len(content)-(room-1)):]
			for name, fs := range map[string]FS{"f": mem, disk: NewOS()} {
				got, actual, err := ReadEnd(fs, name, size, make([]byte, room))
				if err != nil || actual != int64(len(content)) || !bytes.Equal(got, want) {
					t.Errorf("%s, size %d, buffer %d: %q, %d, %v; want %q", name, size, room, got, actual, err, want)
				}
			}
		}
	}
	for name, fs := range map[string]FS{"none": mem, disk + "x": NewOS()} {
		if _, _, err := ReadEnd(fs, name, 16, make([]byte, 9)); !errors.Is(err, ErrIO) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := ReadEnd(NewOS(), filepath.Dir(disk), 16, make([]byte, 9)); !errors.Is(err, ErrIO) {
		t.Errorf("a directory: %v", err)
	}
}

func TestReadEndTakesNoMemory(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4097)
	var stop error
	p := NewPulse(time.Now, func() error { return stop })
	for what, fs := range map[string]FS{"bare": NewOS(), "watched": p.Watch(NewOS())} {
		// The name is copied for the kernel.
		if n := testing.AllocsPerRun(10, func() {
			if _, _, err := ReadEnd(fs, name, 10000, buf); err != nil {
				t.Fatal(err)
			}
		}); n > 1 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	if n := p.read.Load(); n < 10*4096 {
		t.Errorf("%d bytes were counted", n)
	}
	stop = &Error{Class: ErrInterrupted, Op: "interrupted", Offset: -1}
	if _, _, err := ReadEnd(p.Watch(NewOS()), name, 10000, buf); !errors.Is(err, ErrInterrupted) || !p.Refused() {
		t.Errorf("it is read all the same: %v", err)
	}
}
