// Package livestore proves that a store which TiKV has open is left alone: every command that opens it refuses and names the process, and
// not one byte or time stamp in the whole directory changes.
package livestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/lockholder"
)

func TestMain(m *testing.M) { lockholder.Main(m) }

// snapshot has everything about every file and directory that a careless tool could change, and the content of each file. Access
// times are left out: reading changes them where the mount keeps them.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		s := st.Sys().(*syscall.Stat_t)
		out[p] = fmt.Sprintf("mtime %d ctime %d size %d mode %o inode %d links %d owner %d:%d", s.Mtim.Nano(), s.Ctim.Nano(), s.Size, s.Mode, s.Ino, s.Nlink, s.Uid, s.Gid)
		if !e.IsDir() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out[p] += fmt.Sprintf(" %x", b[:min(len(b), 1<<20)])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(t *testing.T, label string, before, after map[string]string) {
	t.Helper()
	for p, s := range before {
		if after[p] != s {
			t.Errorf("%s: %s was %.150s, is %.150s", label, p, s, after[p])
		}
	}
	for p := range after {
		if _, ok := before[p]; !ok {
			t.Errorf("%s: %s is new", label, p)
		}
	}
}

// commands are all ways to open a store.
func commands(dir string, ts mvcc.TS) map[string]func() error {
	fs := base.NewOS()
	reset := func(o repair.ResetOptions) error {
		safe := mvcc.TS(1)
		o.RewindOptions = repair.RewindOptions{T: ts, SafePoint: &safe, Now: time.Unix(1_790_000_000, 0)}
		_, err := repair.Reset(context.Background(), fs, dir, scan.Options{}, o)
		return err
	}
	open := func(o scan.Options) error {
		s, err := scan.Open(fs, dir, o)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	return map[string]func() error{
		"open to read":      func() error { return open(scan.Options{Mode: base.LockShared}) },
		"open without raft": func() error { return open(scan.Options{Mode: base.LockShared, NoRaft: true}) },
		"open to write":     func() error { return open(scan.Options{Mode: base.LockExclusive}) },
		"reset":             func() error { return reset(repair.ResetOptions{}) },
		"reset, everything goes": func() error {
			return reset(repair.ResetOptions{Force: map[string]bool{"wal-damage": true, "raft-tail": true, "panic-mark": true}})
		},
		"reset, dry run": func() error { return reset(repair.ResetOptions{DryRun: true}) },
		"undo":           func() error { _, err := repair.Undo(fs, dir, repair.BackupOptions{}); return err },
		"clean": func() error {
			_, err := repair.Clean(fs, []string{dir}, repair.CleanOptions{Now: time.Unix(1_790_000_000, 0)})
			return err
		},
		"clean, dry run": func() error {
			_, err := repair.Clean(fs, []string{dir}, repair.CleanOptions{Now: time.Unix(1_790_000_000, 0), DryRun: true})
			return err
		},
		"discard": func() error { _, err := repair.Discard(fs, dir, repair.BackupOptions{}); return err },
	}
}

// The locks of a running TiKV, each alone and all together: every command refuses, names the process, and touches nothing. As
// soon as the process has gone, the store opens.
func TestLiveStoreIsLeftAlone(t *testing.T) {
	for _, c := range []struct {
		fixture string
		locks   []string
	}{
		{"single-default", []string{"flock LOCK", "posix db/LOCK", "posix db/titandb/LOCK", "flock raft-engine/LOCK"}},
		{"single-titan", []string{"flock LOCK", "posix db/LOCK", "posix db/titandb/LOCK", "flock raft-engine/LOCK"}},
		{"single-raftdb", []string{"flock LOCK", "posix db/LOCK", "posix db/titandb/LOCK", "posix raft/LOCK"}},
	} {
		t.Run(c.fixture, func(t *testing.T) {
			dir := filepath.Join(fixtures.Dir(t, c.fixture), "data")
			ts := mvcc.TS(fixtures.Facts(t, c.fixture).T1)
			sets := [][]string{c.locks}
			for _, l := range c.locks {
				sets = append(sets, []string{l})
			}
			for _, locks := range sets {
				pid, release := lockholder.Hold(t, dir, locks...)
				before := snapshot(t, dir)
				for name, run := range commands(dir, ts) {
					label := fmt.Sprintf("%v held, %s", locks, name)
					err := run()
					if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) || base.Next(err) == "" {
						t.Errorf("%s: %v, next %q, want one that names process %d", label, err, base.Next(err), pid)
					}
				}
				compare(t, fmt.Sprint(locks), before, snapshot(t, dir))
				release()
			}
			before := snapshot(t, dir)
			for _, name := range []string{"open to read", "open without raft", "open to write", "reset, dry run", "clean, dry run"} {
				if err := commands(dir, ts)[name](); err != nil {
					t.Errorf("nobody holds a lock, %s: %v", name, err)
				}
			}
			compare(t, "nobody holds a lock, and only reading", before, snapshot(t, dir))
		})
	}
}

// Two readers share a store; a writer is alone.
func TestTwoOfUs(t *testing.T) {
	dir := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	open := func(mode base.LockMode) (*scan.Store, error) {
		return scan.Open(base.NewOS(), dir, scan.Options{Mode: mode})
	}
	reader, err := open(base.LockShared)
	if err != nil {
		t.Fatal(err)
	}
	other, err := open(base.LockShared)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	if _, err := open(base.LockExclusive); !errors.Is(err, base.ErrInUse) {
		t.Errorf("a writer beside readers: %v", err)
	}
	if err := errors.Join(reader.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	writer, err := open(base.LockExclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, mode := range []base.LockMode{base.LockShared, base.LockExclusive} {
		if _, err := open(mode); !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), "holds the lock") {
			t.Errorf("mode %v beside a writer: %v", mode, err)
		}
	}
}
