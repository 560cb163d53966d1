package hand_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// journalOf is the journal of the edit whose fence is up; nil without one.
func journalOf(t *testing.T, fs vfs.FS, dir string) *edit.Tx {
	t.Helper()
	f, err := engine.ReadFence(memFS(fs), dir)
	must(t, err)
	if f == nil || !f.Ours {
		return nil
	}
	tx, err := edit.Open(memFS(fs), dir, f.PlanID)
	must(t, err)
	return tx
}

// changed is what may happen between a published edit and its rerun, and how the rerun finds it.
type changed struct {
	hurt  func(mem *vfs.MemFS)
	class error
	words string
}

// An edit is broken off between publishing and the end. The rerun proves what is published once more: what changed in between is
// found, the fence stays, and nothing is written.
func TestRerunProvesWhatIsPublished(t *testing.T) {
	for _, c := range []struct{ name, dir, raft string }{{"multi3-lost2", "/store1", "raft-engine"}, {"multi4-dr-learner", "/store3", "raft"}} {
		t.Run(c.name+c.dir, func(t *testing.T) {
			start := only(t, c.name, c.dir)
			run := func(fs base.FS) (*repair.HandResult, error) {
				return repair.Hand(context.Background(), fs, c.dir, scan.Options{}, repair.HandOptions{Verb: repair.CutTail,
					Force: forced("raft-tail", "multi-store"), Now: now, Threads: 1})
			}
			var writes atomic.Int64
			if _, err := run(failing(cloneOf(t, start, c.dir), 0, &writes)); err != nil {
				t.Fatal(err)
			}
			var published *vfs.MemFS
			for n := writes.Load(); n > 0 && published == nil; n-- {
				mem := cloneOf(t, start, c.dir)
				if _, err := run(failing(mem, n, new(atomic.Int64))); !errors.Is(err, syscall.EIO) {
					t.Fatalf("EIO from write %d on: %v", n, err)
				}
				if tx := journalOf(t, mem, c.dir); tx != nil && tx.J.State == edit.Published {
					published = mem
					if tx.J.Proof == "" {
						t.Error("the journal has no proof")
					}
				}
			}
			if published == nil {
				t.Fatal("no write left the edit published and not done")
			}
			raft := func(name string) string { return c.dir + "/" + c.raft + "/" + name }
			change := func(mem *vfs.MemFS, path string, fn func([]byte) []byte) {
				b, err := base.ReadFile(memFS(mem), path)
				must(t, err)
				must(t, base.WriteFileSync(memFS(mem), path, fn(b), ""))
			}
			flip := func(at func(n int) int) func([]byte) []byte {
				return func(b []byte) []byte { b[at(len(b))] ^= 1; return b }
			}
			created := journalOf(t, published, c.dir).J.Created
			damages := map[string]changed{}
			if c.raft == "raft-engine" {
				const ours = "0000000000000002.raftlog"
				damages["a byte of our file"] = changed{func(mem *vfs.MemFS) { change(mem, raft(ours), flip(func(n int) int { return n - 2 })) }, base.ErrPlanMismatch, "not as it was written"}
				damages["our file is gone"] = changed{func(mem *vfs.MemFS) { must(t, mem.Remove(raft(ours))) }, base.ErrPlanMismatch, "not as it was written"}
				damages["another file follows"] = changed{func(mem *vfs.MemFS) {
					must(t, base.WriteFileSync(memFS(mem), raft("0000000000000003.raftlog"), raftlog.AppendHeader(nil, 2), ""))
				}, base.ErrPlanMismatch, "goes on behind the repair"}
				// No file of ours, no rule of a start: only the content of the store tells.
				damages["the rewrite queue says something else"] = changed{func(mem *vfs.MemFS) {
					var b raftlog.Batch
					must(t, b.Put(424242, []byte("R"), []byte{0x10, 5}))
					var f strings.Builder
					_, _, err := raftlog.WriteLog(&f, 2, 1, &b)
					must(t, err)
					must(t, base.WriteFileSync(memFS(mem), raft("0000000000000001.rewrite"), []byte(f.String()), ""))
				}, base.ErrPartial, "does not hold what was staged"}
			} else {
				var table string
				for _, p := range created {
					if strings.HasPrefix(p, c.raft+"/") && strings.HasSuffix(p, ".sst") {
						table = strings.TrimPrefix(p, c.raft+"/")
					}
				}
				if table == "" {
					t.Fatalf("no raft table among %v", created)
				}
				damages["a byte of our table"] = changed{func(mem *vfs.MemFS) { change(mem, raft(table), flip(func(int) int { return 20 })) }, base.ErrCorrupt, table}
				damages["our table is gone"] = changed{func(mem *vfs.MemFS) { must(t, mem.Remove(raft(table))) }, base.ErrIO, table}
			}
			for what, d := range damages {
				mem := cloneOf(t, published, c.dir)
				d.hurt(mem)
				before := tree(t, mem, c.dir)
				_, err := run(memFS(mem))
				if !errors.Is(err, d.class) || !strings.Contains(err.Error(), d.words) {
					t.Errorf("%s: %v; next: %s", what, err, base.Next(err))
				}
				fixtures.SameTree(t, what, tree(t, mem, c.dir), before)
			}
			if res, err := run(memFS(published)); err != nil || res.State != repair.StateDone {
				t.Errorf("without any damage: %+v %v", res, err)
			}
		})
	}
}
