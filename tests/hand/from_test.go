package hand_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// replica is what a test knows of one peer before it catches up.
type replica struct {
	region    scan.Region
	derived   raftstate.Derived
	committed uint64
}

func replicas(t *testing.T, fs vfs.FS, dir string) map[uint64]replica {
	t.Helper()
	s := open(t, fs, dir)
	defer s.Close()
	out := map[uint64]replica{}
	for _, r := range s.Regions {
		if !r.Live() || r.State.State != raftstate.Normal && r.State.State != raftstate.Merging {
			continue
		}
		d := derive(t, s, r)
		out[r.ID] = replica{r, d, d.Committed}
	}
	return out
}

// Every replica of every fixture catches up from every other one: it applies up to what either of them knows to be committed, and holds then
// what the other one holds. Only a log that begins too late and a command that changes the region keep it from that, and are named.
func TestApplyTailFromAnotherStore(t *testing.T) {
	var equal, appended, replaced, ahead, snapshots, stops int
	for _, name := range multis {
		dirs := fixtures.Stores(t, name)
		for _, lagging := range dirs {
			for _, other := range dirs {
				if lagging == other {
					continue
				}
				what := fmt.Sprintf("%s%s from %s", name, lagging, other)
				mem := fixtures.Mem(t, name)
				mine, theirs := replicas(t, mem, lagging), replicas(t, mem, other)
				b, untouched := look(t, mem, lagging), tree(t, mem, other)
				args := repair.HandArgs{From: []string{other}}
				res, err := try(mem, lagging, repair.ApplyTail, args)
				must(t, err)
				named := map[uint64]string{}
				for _, p := range res.Problems {
					named[regionOfProblem(t, p.Where)] = p.Name
				}
				lines := map[uint64]repair.HandLine{}
				for _, l := range res.Lines {
					lines[l.Region] = l
				}
				s, o := open(t, mem, lagging), open(t, mem, other)
				allStart(t, what, s, b.broken)
				got, want := contentOf(t, s), contentOf(t, o)
				for id, m := range mine {
					th, there := theirs[id]
					r := regionOf(t, s, id)
					d := derive(t, s, r)
					goal := m.committed
					if there {
						goal = max(goal, th.committed)
					}
					if l, ok := lines[id]; ok != (d.Applied > m.derived.Applied) || ok && (l.Tail.To != d.Applied || l.Tail.From != m.derived.Applied) {
						t.Errorf("%s, region %d: line %+v for applied %d → %d", what, id, l, m.derived.Applied, d.Applied)
					} else if ok {
						appended += int(l.Tail.Appended)
						replaced += int(l.Tail.Replaced)
					}
					if d.Applied < goal {
						switch named[id] {
						case "needs-snapshot":
							snapshots++
							if th.derived.Truncated.Index <= m.derived.Last {
								t.Errorf("%s, region %d: no snapshot is needed: %+v %+v", what, id, m.derived, th.derived)
							}
						case "tail-stops":
							stops++
						default:
							t.Errorf("%s, region %d: applied %d, want %d: %q", what, id, d.Applied, goal, named[id])
						}
						continue
					}
					if d.Applied != goal || len(d.Invariants()) > 0 && m.derived.Unpersisted == 0 {
						t.Errorf("%s, region %d: applied %d, want %d; %v", what, id, d.Applied, goal, d.Invariants())
					}
					if !there || d.Applied != th.derived.Applied {
						ahead++ // beyond what the other one has applied: compared when that one has caught up, too
						continue
					}
					lower, upper := r.Bounds()
					for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
						if g, w := within(got[cf], lower, upper), within(want[cf], lower, upper); !slices.Equal(g, w) {
							t.Errorf("%s, region %d, %s: %d records, want %d", what, id, cf, len(g), len(w))
						}
					}
					equal++
				}
				s.Close()
				o.Close()
				fixtures.SameTree(t, what+", the source", tree(t, mem, other), untouched)
				if res.State == repair.StateDone {
					if lagging == dirs[0] {
						b.judged(t, mem)
					}
					nothingToDo(t, mem, lagging, repair.ApplyTail, args)
					undo(t, mem, lagging, b.tree)
				}
			}
		}
	}
	t.Logf("%d replicas equal to the other one, %d further on; %d entries appended, %d replaced; %d need a snapshot, %d stop", equal, ahead, appended, replaced, snapshots, stops)
	if equal < 500 || appended < 500 || stops == 0 {
		t.Error("the fixtures should give more")
	}
}

func regionOfProblem(t *testing.T, where string) uint64 {
	t.Helper()
	var store, id uint64
	if _, err := fmt.Sscanf(where, "store %d, region %d", &store, &id); err != nil {
		t.Errorf("%q: %v", where, err)
	}
	return id
}

// When each store has caught up from all others, all replicas are one, and every commit that a client was told of is in each of them.
func TestAllReplicasBecomeOne(t *testing.T) {
	lacked := 0
	for _, name := range multis {
		mem := fixtures.Mem(t, name)
		dirs := fixtures.Stores(t, name)
		history := fixtures.History(t, name)
		missing := func() (n int) {
			for _, dir := range dirs {
				s := open(t, mem, dir)
				n += missingCommits(t, s, history, nil)
				s.Close()
			}
			return n
		}
		before := missing()
		left := map[string]map[uint64]bool{} // regions that could not catch up
		for _, dir := range dirs {
			var from []string
			for _, d := range dirs {
				if d != dir {
					from = append(from, d)
				}
			}
			res, err := try(mem, dir, repair.ApplyTail, repair.HandArgs{From: from})
			must(t, err)
			left[dir] = map[uint64]bool{}
			for _, p := range res.Problems {
				left[dir][regionOfProblem(t, p.Where)] = true
			}
		}
		after, equal := 0, 0
		first := map[uint64]string{} // region → dir
		for _, dir := range dirs {
			s := open(t, mem, dir)
			after += missingCommits(t, s, history, left[dir])
			c := contentOf(t, s)
			for _, r := range s.Regions {
				if !r.Live() || left[dir][r.ID] {
					continue
				}
				d, ok := first[r.ID]
				if !ok {
					first[r.ID] = dir
					continue
				}
				o := open(t, mem, d)
				or := regionOf(t, o, r.ID)
				if or.State.Region.Epoch == r.State.Region.Epoch {
					if a, b := derive(t, o, or), derive(t, s, r); a.Applied != b.Applied || a.CommitTerm != b.CommitTerm && a.Unpersisted+b.Unpersisted == 0 {
						t.Errorf("%s, region %d: %s %+v, %s %+v", name, r.ID, d, a, dir, b)
					}
					oc := contentOf(t, o)
					lower, upper := r.Bounds()
					for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
						if g, w := within(c[cf], lower, upper), within(oc[cf], lower, upper); !slices.Equal(g, w) {
							t.Errorf("%s, region %d, %s: %s has %d records, %s %d", name, r.ID, cf, dir, len(g), d, len(w))
						}
					}
					equal++
				}
				o.Close()
			}
			s.Close()
		}
		t.Logf("%s: %d commits that some replica lacked, %d now; %d replicas equal; left: %v", name, before, after, equal, left)
		if lacked += before; after != 0 || equal == 0 {
			t.Errorf("%s: %d commits are missing, before %d", name, after, before)
		}
	}
	if lacked == 0 {
		t.Error("no replica lagged")
	}
}

// missingCommits counts the acknowledged commits of live regions that are neither a write record nor still a lock.
func missingCommits(t *testing.T, s *scan.Store, history []fixtures.Commit, but map[uint64]bool) int {
	t.Helper()
	locked := map[string]bool{}
	locks, err := s.Locks()
	must(t, err)
	for _, l := range locks {
		for _, x := range l.Locks {
			locked[fmt.Sprintf("%X %d", l.User, x.StartTS)] = true
		}
	}
	n := 0
	for _, c := range history {
		id, err := s.RegionOfUser(c.Key)
		must(t, err)
		if id == 0 || but[id] || locked[fmt.Sprintf("%X %d", c.Key, c.StartTS)] {
			continue
		}
		if _, _, ok, err := s.DB.CF(scan.CFWrite).Get(mvcc.DataKey(c.Key, mvcc.TS(c.CommitTS))); err != nil || !ok {
			must(t, err)
			n++
		}
	}
	return n
}

// What --from must not be.
func TestApplyTailFromValidates(t *testing.T) {
	mem := fixtures.Mem(t, "multi3-lost2")
	cloned := fixtures.Mem(t, "multi5-lost3")
	for _, d := range []string{"/store0", "/store1"} {
		if ok, err := vfs.Clone(cloned, mem, d, "/other"+d); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if ok, err := vfs.Clone(fixtures.Mem(t, "multi3-lost2"), mem, "/store0", "/copy"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	before := tree(t, mem, "/store0")
	for _, c := range []struct {
		args repair.HandArgs
		want error
	}{
		{repair.HandArgs{From: []string{"/store0"}}, base.ErrUsage},
		{repair.HandArgs{From: []string{"/store0/"}}, base.ErrUsage},
		{repair.HandArgs{From: []string{"/copy"}}, base.ErrUsage},
		{repair.HandArgs{From: []string{"/other/store1"}}, base.ErrUsage},
		{repair.HandArgs{From: []string{"/store1"}, To: 7}, base.ErrUsage},
		{repair.HandArgs{From: []string{"/store1"}, To: 7, Regions: []uint64{6, 8}}, base.ErrUsage},
	} {
		if _, err := try(mem, "/store0", repair.ApplyTail, c.args); !errors.Is(err, c.want) || base.Next(err) == "" {
			t.Errorf("%+v: %v", c.args, err)
		}
	}
	// A region that is named and that the source has given away.
	_, err := try(mem, "/other/store1", repair.ApplyTail, repair.HandArgs{From: []string{"/other/store0"}, Regions: []uint64{10}})
	if !errors.Is(err, base.ErrUsage) {
		t.Error(err)
	}
	fixtures.SameTree(t, "refused", tree(t, mem, "/store0"), before)
}

// Real RocksDB of the three lines opens what a replica has become and agrees on every key.
func TestRocksDBOpensAfterCatchingUp(t *testing.T) {
	mem := fixtures.Mem(t, "multi4-dr-learner")
	const dir = "/store0"
	do(t, mem, dir, repair.ApplyTail, repair.HandArgs{From: []string{"/store1", "/store3"}})
	s := open(t, mem, dir)
	c := contentOf(t, s)
	s.Close()
	for _, v := range oracle.Versions() {
		for _, db := range []string{"db", "raft"} {
			r, err := oracle.ReadFS(t, v, mem, dir+"/"+db, oracle.Options{ReadWrite: true, Opens: 2})
			must(t, err)
			if db == "raft" {
				continue
			}
			for cf, rows := range r.Rows {
				if len(rows) != len(c[cf]) {
					t.Errorf("RocksDB %s reads %d rows of %s, we %d", v, len(rows), cf, len(c[cf]))
				}
				for _, kv := range rows {
					if got := c[cf][string(kv.Key)]; len(got) < len(kv.Value) || got[len(got)-len(kv.Value):] != string(kv.Value) {
						t.Errorf("RocksDB %s reads another value of %s %X", v, cf, kv.Key)
						break
					}
				}
			}
		}
	}
}
