package engine_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/lockholder"
)

func TestMain(m *testing.M) { lockholder.Main(m) }

// times are the mtime and ctime of everything below root.
func times(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		s := st.Sys().(*syscall.Stat_t)
		out[p] = fmt.Sprint(s.Mtim, s.Ctim, s.Size, s.Mode, s.Ino)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A TiKV that runs on any part of the store keeps us out, reader and writer, and is named; afterwards nothing below the
// directory has another time than before.
func TestLockWhileTiKVRuns(t *testing.T) {
	for fixture, files := range map[string][]string{
		"single-titan":  {"flock LOCK", "posix LOCK", "posix db/LOCK", "posix db/titandb/LOCK", "flock raft-engine/LOCK", "posix raft-engine/LOCK"},
		"single-raftdb": {"posix raft/LOCK"},
	} {
		root := fixtures.Dir(t, fixture)
		dir := filepath.Join(root, "data")
		before := times(t, root)
		disk := base.NewOS()
		for _, f := range files {
			_, name, _ := strings.Cut(f, " ")
			pid, release := lockholder.Hold(t, dir, f)
			l, err := engine.Discover(disk, dir, engine.Overrides{})
			if err != nil {
				t.Fatal(err)
			}
			for _, mode := range []base.LockMode{base.LockShared, base.LockExclusive} {
				_, err := l.Lock(disk, mode)
				var e *base.Error
				if !errors.Is(err, base.ErrInUse) || !errors.As(err, &e) || e.Path != filepath.Join(dir, name) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) {
					t.Errorf("%s, mode %d: %v", f, mode, err)
				}
			}
			release()
			locks, err := l.Lock(disk, base.LockExclusive)
			if err != nil {
				t.Fatalf("%s: after the process ended: %v", f, err)
			}
			if err := locks.Close(); err != nil || len(locks.Missing) > 0 {
				t.Errorf("%v, missing %q", err, locks.Missing)
			}
		}
		after := times(t, root)
		if len(before) != len(after) {
			t.Errorf("%d files before, %d after", len(before), len(after))
		}
		for p, was := range before {
			if after[p] != was {
				t.Errorf("%s: %s became %s", p, was, after[p])
			}
		}
	}
}

// Two readers go together; each keeps a writer out until it is done; a failed attempt leaves nothing locked.
func TestReadersAndWriter(t *testing.T) {
	dir := filepath.Join(fixtures.Dir(t, "single-titan"), "data")
	disk := base.NewOS()
	l, err := engine.Discover(disk, dir, engine.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	lock := func(mode base.LockMode, want error) *engine.Locks {
		t.Helper()
		locks, err := l.Lock(disk, mode)
		if !errors.Is(err, want) {
			t.Fatalf("mode %d: %v, want %v", mode, err, want)
		}
		return locks
	}
	r1, r2 := lock(base.LockShared, nil), lock(base.LockShared, nil)
	lock(base.LockExclusive, base.ErrInUse)
	r1.Close()
	lock(base.LockExclusive, base.ErrInUse)
	r2.Close()
	w := lock(base.LockExclusive, nil)
	lock(base.LockShared, base.ErrInUse)
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	lock(base.LockShared, nil).Close()
}

// Lock files and directories that cannot be written: readers work. (To root every file is writable; there the modes do
// not matter.)
func TestReadOnlyStore(t *testing.T) {
	dir := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	disk := base.NewOS()
	l, err := engine.Discover(disk, dir, engine.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"LOCK", "db/LOCK", "db/titandb/LOCK", "raft-engine/LOCK"} {
		if err := os.Chmod(filepath.Join(dir, f), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	locks, err := l.Lock(disk, base.LockShared)
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	if os.Getuid() != 0 {
		if _, err := l.Lock(disk, base.LockExclusive); !errors.Is(err, base.ErrIO) && !errors.Is(err, base.ErrInUse) {
			t.Errorf("writer: %v", err)
		}
	}
}

// A copy without lock files can be used; nothing is made in their place, and the caller is told.
func TestMissingLockFiles(t *testing.T) {
	dir := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	for _, f := range []string{"LOCK", "db/LOCK"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	disk := base.NewOS()
	l, err := engine.Discover(disk, dir, engine.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	locks, err := l.Lock(disk, base.LockExclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	want := []string{filepath.Join(dir, "LOCK"), filepath.Join(dir, "db/LOCK")}
	if strings.Join(locks.Missing, " ") != strings.Join(want, " ") {
		t.Errorf("missing %q, want %q", locks.Missing, want)
	}
	for _, f := range want {
		if _, err := os.Lstat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", f, err)
		}
	}
}
