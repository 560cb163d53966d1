package base_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/lockholder"
)

func TestMain(m *testing.M) { lockholder.Main(m) }

func lockFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "LOCK")
	if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	return name
}

// A lock of the engine's kind keeps both of our modes out and is named; the other kind is not seen, which is why both are
// taken where TiKV's is not known for sure.
func TestLockAgainstEngine(t *testing.T) {
	fs := base.NewOS()
	for how, kind := range map[string]base.LockKind{"flock": base.Flock, "posix": base.Fcntl} {
		name := lockFile(t)
		pid, release := lockholder.Hold(t, "/", how+" "+name)
		defer release()
		for _, mode := range []base.LockMode{base.LockShared, base.LockExclusive} {
			c, err := fs.LockFile(name, kind, mode)
			if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) || base.Next(err) == "" {
				t.Errorf("%s, mode %d: %v, %v", how, mode, c, err)
			}
			other, err := fs.LockFile(name, 1-kind, mode)
			if err != nil {
				t.Errorf("%s, mode %d, other kind: %v", how, mode, err)
				continue
			}
			other.Close()
		}
	}
}

// The owner of another tikv-repair's lock is found as well.
func TestLockAgainstOurselves(t *testing.T) {
	name := lockFile(t)
	pid, release := lockholder.Hold(t, "/", "ofd-read "+name)
	defer release()
	fs := base.NewOS()
	if c, err := fs.LockFile(name, base.Fcntl, base.LockShared); err != nil {
		t.Errorf("second reader: %v", err)
	} else {
		c.Close()
	}
	if _, err := fs.LockFile(name, base.Fcntl, base.LockExclusive); !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) {
		t.Errorf("writer: %v", err)
	}
}

// Readers share, a writer is alone, and a lock is gone when it is closed. Closing another descriptor of the file, as
// reading it does, does not drop it.
func TestLockModes(t *testing.T) {
	fs := base.NewOS()
	for _, kind := range []base.LockKind{base.Flock, base.Fcntl} {
		name := lockFile(t)
		take := func(mode base.LockMode, wantErr error) io.Closer {
			t.Helper()
			c, err := fs.LockFile(name, kind, mode)
			if !errors.Is(err, wantErr) {
				t.Fatalf("kind %d, mode %d: %v, want %v", kind, mode, err, wantErr)
			}
			return c
		}
		r1, r2 := take(base.LockShared, nil), take(base.LockShared, nil)
		if b, err := base.ReadFile(fs, name); err != nil || string(b) != "x" {
			t.Errorf("content %q, %v", b, err)
		}
		take(base.LockExclusive, base.ErrInUse)
		r1.Close()
		take(base.LockExclusive, base.ErrInUse)
		r2.Close()
		w := take(base.LockExclusive, nil)
		take(base.LockShared, base.ErrInUse)
		w.Close()
		take(base.LockShared, nil).Close()
		st, err := os.Stat(name)
		if err != nil || st.ModTime().Unix() != 1e9 || st.Size() != 1 {
			t.Errorf("lock file was touched: %v, %v", st, err)
		}
	}
}

func TestLockMissingFileIsNotMade(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	for _, fs := range []base.FS{base.NewOS(), base.NewMem(vfs.NewMem())} {
		if _, err := fs.LockFile(name, base.Fcntl, base.LockExclusive); !errors.Is(err, base.ErrIO) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lock file was made: %v", err)
	}
}

// "Not there" is told from other failures, on both file systems and by both of Go's ways of asking.
func TestNotExist(t *testing.T) {
	dir := t.TempDir()
	for _, fs := range []base.FS{base.NewOS(), base.NewMem(vfs.NewMem())} {
		name := filepath.Join(dir, "none")
		if ok, err := base.Exists(fs, name); ok || err != nil {
			t.Errorf("exists: %v, %v", ok, err)
		}
		_, statErr := fs.Stat(name)
		_, openErr := fs.Open(name)
		_, listErr := fs.List(name)
		for what, err := range map[string]error{"stat": statErr, "open": openErr, "list": listErr, "remove": fs.Remove(name), "rename": fs.Rename(name, name+"2"), "link": fs.Link(name, name+"2")} {
			if !errors.Is(err, os.ErrNotExist) || !os.IsNotExist(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := base.ReadFile(fs, name); !errors.Is(err, base.ErrIO) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("read: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if ok, err := base.Exists(base.NewOS(), filepath.Join(dir, "file", "below")); ok || !errors.Is(err, base.ErrIO) {
		t.Errorf("below a file: %v, %v", ok, err)
	}
}

func TestWriteFileSyncTakesAttributes(t *testing.T) {
	fs := base.NewOS()
	dir := t.TempDir()
	like, name := filepath.Join(dir, "like"), filepath.Join(dir, "name")
	if err := os.WriteFile(like, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(like, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(like, 1234, 5678); err != nil {
			t.Fatal(err)
		}
	}
	content := []byte("abc")
	if err := base.WriteFileSync(fs, name, content, like); err != nil {
		t.Fatal(err)
	}
	var got, want unix.Stat_t
	if err := errors.Join(unix.Stat(name, &got), unix.Stat(like, &want), base.SyncDir(fs, dir)); err != nil {
		t.Fatal(err)
	}
	if got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid {
		t.Errorf("mode %o uid %d gid %d, want %o %d %d", got.Mode, got.Uid, got.Gid, want.Mode, want.Uid, want.Gid)
	}
	if b, err := base.ReadFile(fs, name); err != nil || string(b) != "abc" || string(content) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	if err := fs.CopyAttrs(name, filepath.Join(dir, "none")); !errors.Is(err, base.ErrIO) {
		t.Errorf("no such file to be like: %v", err)
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("cause")
	e := &base.Error{Class: base.ErrCorrupt, Op: "read", Path: "/d/1.sst", Offset: 12, CF: "write", Region: 4, Key: []byte{0x7a, 0xab}, Reason: "why", Err: cause, Next: "type this"}
	if got, want := e.Error(), "read /d/1.sst at offset 12, column family write, region 4, key 7AAB: why: cause"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	wrapped := fmt.Errorf("outer: %w", e)
	if !errors.Is(wrapped, base.ErrCorrupt) || !errors.Is(wrapped, cause) || base.Next(wrapped) != "type this" {
		t.Errorf("%v does not lead to its class, cause and hint", wrapped)
	}
	if base.IO("op", "p", nil) != nil || base.IO("op", "p", wrapped) != wrapped {
		t.Error("IO changes what it should keep")
	}
}
