package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// disk puts the files on this machine's disk and returns the member directory.
func (f files) disk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "member")
	for name, content := range f {
		p := filepath.Join(dir, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, content, 0o600))
	}
	return dir
}

// A process that has the database open, and one that has a WAL segment, keep us out; nothing of the directory is touched by reading.
func TestInUse(t *testing.T) {
	dir := small(t).disk(t)
	fs := base.NewOS()
	refused := func(what string) {
		t.Helper()
		_, err := Open(fs, dir, Options{})
		if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(base.Next(err), "stop pd-server") {
			t.Errorf("%s: %v; next: %s", what, err, base.Next(err))
		}
	}
	db, err := bbolt.Open(filepath.Join(dir, "snap", "db"), 0o600, nil)
	must(t, err)
	refused("bbolt has db open")
	must(t, db.Close())
	for _, name := range []string{"0000000000000002-0000000000000108.wal", "0.tmp"} {
		c, err := fs.LockFile(filepath.Join(dir, "wal", name), base.Fcntl, base.LockExclusive)
		must(t, err)
		refused(name + " is locked")
		must(t, c.Close())
	}
	// All locks were given back, and ours do not stand in our own way.
	locks, err := Lock(fs, dir, base.LockExclusive)
	must(t, err)
	refused("we ourselves hold the directory")
	_, err = Open(fs, dir, Options{Locked: true})
	must(t, err)
	must(t, locks.Close())
	must(t, locks.Close())
}

func TestReadingTouchesNothing(t *testing.T) {
	f := small(t)
	dir := f.disk(t)
	stamps := func() string {
		var b strings.Builder
		must(t, filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
			fmt.Fprintln(&b, p, st.Size(), st.ModTime().UnixNano(), st.Mode())
			return err
		}))
		return b.String()
	}
	before := stamps()
	s, err := Open(base.NewOS(), dir, Options{})
	must(t, err)
	_, err = s.CheckReplay(base.NewOS())
	must(t, err)
	if after := stamps(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	for name, want := range f {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != string(want) {
			t.Errorf("%s changed (%v)", name, err)
		}
	}
}

// The wrong directory is told from a broken one, with what to type next.
func TestNotAMemberDirectory(t *testing.T) {
	dir := small(t).disk(t)
	for _, c := range []struct{ dir, next string }{
		{filepath.Dir(dir), "name " + dir + " instead"},
		{filepath.Join(dir, "snap"), "data-dir"},
		{filepath.Join(dir, "none"), "data-dir"},
	} {
		_, err := Open(base.NewOS(), c.dir, Options{})
		if !errors.Is(err, base.ErrNotStore) || !strings.Contains(base.Next(err), c.next) {
			t.Errorf("%s: %v; next: %s", c.dir, err, base.Next(err))
		}
	}
}
