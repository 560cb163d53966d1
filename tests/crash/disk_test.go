package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// mode is what a careful operator gives to TiKV's files: not what a program gets by default.
const mode = 0o640

// disk is a store in a directory of this machine.
type disk struct {
	t   *testing.T
	dir string
	ts  mvcc.TS
}

func (d disk) fs(f *faults) base.FS { return faultFS{base.NewOS(), f} }

func (d disk) reset(f *faults) (*repair.Result, error) {
	safe := mvcc.TS(1)
	return repair.Reset(context.Background(), d.fs(f), d.dir, scan.Options{}, repair.ResetOptions{
		RewindOptions: repair.RewindOptions{T: d.ts, SafePoint: &safe, Now: now, Threads: 1}})
}

func (d disk) undo(f *faults) error {
	_, err := repair.Undo(d.fs(f), d.dir, repair.BackupOptions{})
	return err
}

func (d disk) sum() string {
	d.t.Helper()
	s, err := digestAt(base.NewOS(), d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d disk) fenced() bool {
	d.t.Helper()
	f, err := engine.ReadFence(base.NewOS(), d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	return f != nil && f.Ours
}

// attributes: TiKV's user has to be able to open every file of the store, those of the repair too; and what the backup saves are
// links, which take no space.
func (d disk) attributes(label string) {
	d.t.Helper()
	names, err := filepath.Glob(filepath.Join(d.dir, "db", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, n := range names {
		st, err := os.Stat(n)
		if err != nil {
			d.t.Fatal(err)
		}
		if !st.IsDir() && st.Mode().Perm() != mode {
			d.t.Errorf("%s: %s has mode %v", label, n, st.Mode())
		}
	}
	saved, err := filepath.Glob(filepath.Join(d.dir, "tikv-repair", "*", "files", "db", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, b := range saved {
		n := filepath.Join(d.dir, "db", filepath.Base(b))
		if filepath.Base(b) == "CURRENT" {
			continue // the name has another file now
		}
		x, errX := os.Stat(b)
		y, errY := os.Stat(n)
		if errX != nil || errY != nil || !os.SameFile(x, y) {
			d.t.Errorf("%s: %s is no link to %s: %v %v", label, b, n, errX, errY)
		}
	}
}

// Real directories, links and permissions: every seventh changing operation fails with EIO; then the command is run again, and on
// a second directory undone.
func TestCrashOnDisk(t *testing.T) {
	began := time.Now()
	store := derive(t)
	ts := mvcc.TS(fixtures.Facts(t, fixture).T1)
	fresh := func() disk {
		d := disk{t, filepath.Join(t.TempDir(), "data"), ts}
		fixtures.CopyToDisk(t, store, dataDir, d.dir)
		err := filepath.WalkDir(d.dir, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return os.Chmod(p, mode)
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	whole := fresh()
	before := whole.sum()
	all := &faults{}
	if _, err := whole.reset(all); err != nil {
		t.Fatal(err)
	}
	after := whole.sum()
	whole.attributes("uninterrupted")
	oldTree, err := tree(store, dataDir)
	if err != nil {
		t.Fatal(err)
	}
	points := 0
	for k := 1; k <= all.writes; k += 7 {
		for _, then := range []string{"reset", "undo"} {
			points++
			d := fresh()
			f := &faults{write: k, err: syscall.EIO}
			_, err := d.reset(f)
			label := fmt.Sprintf("EIO at write %d (%s), then %s", k, strings.TrimPrefix(f.failed, d.dir), then)
			copied := strings.HasPrefix(f.failed, "link ") // a copy takes the place of a link that cannot be made
			switch {
			case err == nil:
				if !copied || d.fenced() || d.sum() != after {
					t.Errorf("%s: success, fenced %v, rewound %v", label, d.fenced(), d.sum() == after)
				}
			case !errors.Is(err, syscall.EIO) || errors.Is(err, base.ErrPartial) != d.fenced() || base.Next(err) == "":
				t.Errorf("%s: fenced %v, error %v", label, d.fenced(), err)
			case d.sum() != before && d.sum() != after:
				t.Errorf("%s: neither before nor after", label)
			}
			if then == "undo" {
				if err := d.undo(&faults{}); err != nil && !(errors.Is(err, base.ErrPlanMismatch) && !d.fenced() && d.sum() == before) {
					t.Errorf("%s: %v", label, err)
				}
				got, err := tree(base.NewOS(), d.dir)
				if err != nil {
					t.Fatal(err)
				}
				if diff := differ(withoutHarmless(withoutBackups(got)), withoutBackups(oldTree)); diff != "" {
					t.Errorf("%s: %s", label, diff)
				}
				continue
			}
			if _, err := d.reset(&faults{}); err != nil {
				t.Errorf("%s: %v", label, err)
			}
			if d.sum() != after || d.fenced() {
				t.Errorf("%s: rewound %v, fenced %v", label, d.sum() == after, d.fenced())
			}
			if !copied {
				d.attributes(label)
			}
			if res, err := d.reset(&faults{}); err != nil || res.State != repair.StateUnchanged {
				t.Errorf("%s: the second rerun says %+v, %v", label, res, err)
			}
		}
	}
	t.Logf("%d points on disk (every 7th of %d changing operations), %.1f s", points, all.writes, time.Since(began).Seconds())
}
