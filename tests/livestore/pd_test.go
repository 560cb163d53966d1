package livestore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/lockholder"
)

// The locks of a running PD, each alone: bbolt's and goleveldb's by flock(2), etcd's on its log by fcntl(2). Every command that writes
// refuses, names the process, and touches nothing.
func TestLivePDIsLeftAlone(t *testing.T) {
	root := fixtures.Dir(t, "multi3-lost2", fixtures.WithPD())
	dir := filepath.Join(root, "pd")
	fs := base.NewOS()
	clean := func(dirs ...string) func() error {
		return func() error {
			_, err := repair.Clean(fs, dirs, repair.CleanOptions{Now: time.Unix(1_790_000_000, 0)})
			return err
		}
	}
	verbs := map[string]func() error{
		"clean":               clean(dir),
		"clean, a store, too": clean(filepath.Join(root, "store0"), dir),
		"undo":                func() error { _, err := repair.Undo(fs, dir, repair.BackupOptions{}); return err },
		"discard":             func() error { _, err := repair.Discard(fs, dir, repair.BackupOptions{}); return err },
	}
	for _, l := range []string{"flock member/snap/db", "flock region-meta/LOCK", "ofd member/wal/0000000000000000-0000000000000000.wal", "ofd member/wal/0.tmp"} {
		pid, release := lockholder.Hold(t, dir, l)
		before := snapshot(t, root)
		for name, run := range verbs {
			if err := run(); !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) || base.Next(err) == "" {
				t.Errorf("%v held, %s: %v, next %q, want one that names process %d", l, name, err, base.Next(err), pid)
			}
		}
		compare(t, fmt.Sprint(l), before, snapshot(t, root))
		release()
	}
	if err := verbs["clean, a store, too"](); err != nil {
		t.Errorf("nobody holds a lock: %v", err)
	}
}
