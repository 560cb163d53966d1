package base_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

var errStop = &base.Error{Class: base.ErrInterrupted, Op: "interrupted", Offset: -1}

// Every operation is refused once the run is to end, closing excepted; nothing is done, the refusal is known, and unwinding ends it.
func TestWatchRefuses(t *testing.T) {
	mem := vfs.NewMem()
	under := base.NewMem(mem)
	if err := base.WriteFileSync(under, "f", []byte("12345"), ""); err != nil {
		t.Fatal(err)
	}
	var stop error
	p := base.NewPulse(func() time.Time { return time.Unix(0, 0) }, func() error { return stop })
	fs := p.Watch(under)
	f, err := fs.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	g, err := fs.Create("g", base.DiskWriteCategory)
	if err != nil {
		t.Fatal(err)
	}
	ph := base.Begin(fs, "reading").Reads(10)
	if _, err := io.ReadAll(f); err != nil {
		t.Fatal(err)
	}
	if s, ok := p.Sign(); !ok || s.Done != 5 || s.Total != 10 || s.Step != "reading" {
		t.Errorf("%+v", s)
	}
	ph.End()
	if _, ok := p.Sign(); ok {
		t.Error("a phase that has ended is shown")
	}
	stop = errStop
	one := make([]byte, 1)
	for name, do := range map[string]func() error{
		"open":           func() error { _, err := fs.Open("f"); return err },
		"create":         func() error { _, err := fs.Create("h", base.DiskWriteCategory); return err },
		"open directory": func() error { _, err := fs.OpenDir("/"); return err },
		"open to write":  func() error { _, err := fs.OpenReadWrite("f", base.DiskWriteCategory); return err },
		"reuse":          func() error { _, err := fs.ReuseForWrite("f", "h", base.DiskWriteCategory); return err },
		"link":           func() error { return fs.Link("f", "h") },
		"remove":         func() error { return fs.Remove("f") },
		"remove all":     func() error { return fs.RemoveAll("f") },
		"rename":         func() error { return fs.Rename("f", "h") },
		"mkdir":          func() error { return fs.MkdirAll("d", 0o755) },
		"lock":           func() error { _, err := fs.LockFile("f", base.Flock, base.LockShared); return err },
		"pebble's lock":  func() error { _, err := fs.Lock("h"); return err },
		"list":           func() error { _, err := fs.List("/"); return err },
		"stat":           func() error { _, err := fs.Stat("f"); return err },
		"free space":     func() error { _, err := fs.GetDiskUsage("f"); return err },
		"attributes":     func() error { return fs.CopyAttrs("f", "g") },
		"truncate":       func() error { return fs.Truncate("f", 1) },
		"read":           func() error { _, err := f.Read(one); return err },
		"read at":        func() error { _, err := f.ReadAt(one, 0); return err },
		"write":          func() error { _, err := g.Write(one); return err },
		"write at":       func() error { _, err := g.WriteAt(one, 0); return err },
		"stat a file":    func() error { _, err := f.Stat(); return err },
		"sync":           func() error { return g.Sync() },
		"sync data":      func() error { return g.SyncData() },
		"sync to":        func() error { _, err := g.SyncTo(1); return err },
		"a loop":         func() error { return base.Stopped(fs) },
		"an item":        func() error { return base.Begin(fs, "items").Items(3, "things").Did(1) },
		"direct reads":   func() error { return base.Stopped(base.ReadDirect(fs)) },
	} {
		if err := do(); !errors.Is(err, base.ErrInterrupted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !p.Refused() || !errors.Is(base.Refused(fs), base.ErrInterrupted) {
		t.Error("the refusals are forgotten")
	}
	if names, err := mem.List("/"); err != nil || len(names) != 2 {
		t.Errorf("something was done: %v, %v", names, err)
	}
	if err := errors.Join(f.Close(), g.Close()); err != nil {
		t.Error(err)
	}
	if err := base.Unrefused(fs).Remove("g"); err != nil {
		t.Error(err)
	}
	base.Unwind(fs)
	if err := errors.Join(fs.Remove("f"), base.Stopped(fs)); err != nil {
		t.Error(err)
	}
	if !p.Refused() {
		t.Error("unwinding forgets the refusals")
	}
}

// A run that may go on is not unwound: Ctrl-C still works after it.
func TestUnwindOfARunThatMayGoOn(t *testing.T) {
	var stop error
	p := base.NewPulse(time.Now, func() error { return stop })
	fs := p.Watch(base.NewMem(vfs.NewMem()))
	base.Unwind(fs)
	stop = errStop
	if _, err := fs.List("/"); !errors.Is(err, base.ErrInterrupted) {
		t.Error(err)
	}
}

// What nobody watches counts for nobody, and is never refused.
func TestUnwatched(t *testing.T) {
	fs := base.NewMem(vfs.NewMem())
	ph := base.Begin(fs, "x").Items(3, "things")
	if err := errors.Join(ph.Did(1), base.Stopped(fs), base.Refused(fs)); err != nil {
		t.Error(err)
	}
	base.Unwind(fs)
	ph.End()
}

// RemoveAll of a watched directory takes away what is in it, and of a link the link.
func TestWatchedRemoveAll(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	gone := filepath.Join(dir, "gone")
	for _, d := range []string{kept, filepath.Join(gone, "a", "b")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(kept, "f"), filepath.Join(gone, "a", "f"), filepath.Join(gone, "a", "b", "f")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(kept, filepath.Join(gone, "link")); err != nil {
		t.Fatal(err)
	}
	fs := base.NewPulse(time.Now, func() error { return nil }).Watch(base.NewOS())
	for range 2 { // the second time there is nothing
		if err := fs.RemoveAll(gone); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(kept, "f")); err != nil {
		t.Errorf("what a link leads to is gone: %v", err)
	}
}

// unremovable is a directory in which nothing may be removed, as one of another user.
type unremovable struct {
	base.FS
	dir string
}

func (u unremovable) Remove(name string) error {
	if filepath.Dir(name) == u.dir {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.EACCES}
	}
	return u.FS.Remove(name)
}

// A link that cannot be removed is not followed either: what it leads to is somebody else's.
func TestWatchedRemoveAllOfALinkThatStays(t *testing.T) {
	dir, kept := t.TempDir(), filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(kept, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Dir(kept), link); err != nil {
		t.Fatal(err)
	}
	fs := base.NewPulse(time.Now, func() error { return nil }).Watch(unremovable{base.NewOS(), dir})
	if err := fs.RemoveAll(link); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what the link leads to is gone: %v", err)
	}
}

// The quick way to the end of a file is open to a run that is watched: it counts, and it is refused.
func TestReadEndIsWatched(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	var stop error
	p := base.NewPulse(time.Now, func() error { return stop })
	fs, buf := p.Watch(base.NewOS()), make([]byte, 4097)
	ph := base.Begin(fs, "reading").Reads(1 << 30)
	defer ph.End()
	n := testing.AllocsPerRun(10, func() {
		if _, _, err := base.ReadEnd(fs, name, 10000, buf); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 { // the name is copied for the kernel
		t.Errorf("%v allocations", n)
	}
	if s, ok := p.Sign(); !ok || s.Done != 11*4096 {
		t.Errorf("%d bytes are counted, 11 ends of 4096 have been read", s.Done)
	}
	stop = errStop
	if _, _, err := base.ReadEnd(fs, name, 10000, buf); !errors.Is(err, base.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
}
