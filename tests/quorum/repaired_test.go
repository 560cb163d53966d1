package quorum

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// archive is one fixture with what each of its stores holds, read once.
type archive struct {
	name    string
	mem     *vfs.MemFS
	dirs    []string
	ids     map[string]uint64
	holds   map[string][]*held
	history *history
	facts   fixtures.FactSheet
}

func load(t testing.TB, name string) *archive {
	t.Helper()
	a := &archive{name: name, mem: fixtures.Mem(t, name), ids: map[string]uint64{}, holds: map[string][]*held{}, history: historyOf(t, name), facts: fixtures.Facts(t, name)}
	a.dirs = storeDirs(t, a.mem)
	for _, d := range a.dirs {
		s := open(t, a.mem, d)
		a.ids[d], a.holds[d] = s.Ident.StoreID, holdings(t, s)
		must(t, s.Close())
	}
	return a
}

// subset is one choice of surviving stores.
type subset struct {
	*archive
	survive []string // directories
	failed  []uint64
}

func (s subset) String() string {
	return strings.NewReplacer("/store", "", " ", "+", "[", "", "]", "").Replace(fmt.Sprint(s.survive))
}

// subsets lists every choice of survivors, from one store to all but one.
func (a *archive) subsets() []subset {
	var out []subset
	for mask := 1; mask < 1<<len(a.dirs)-1; mask++ {
		s := subset{archive: a}
		for i, d := range a.dirs {
			if mask>>i&1 == 1 {
				s.survive = append(s.survive, d)
			} else {
				s.failed = append(s.failed, a.ids[d])
			}
		}
		slices.Sort(s.failed)
		out = append(out, s)
	}
	return out
}

// survivors chooses them by name: survivors("/store0", "/store2").
func (a *archive) survivors(dirs ...string) subset {
	s := subset{archive: a, survive: dirs}
	for _, d := range a.dirs {
		if !slices.Contains(dirs, d) {
			s.failed = append(s.failed, a.ids[d])
		}
	}
	slices.Sort(s.failed)
	return s
}

// copyOf copies the survivors alone.
func (s subset) copyOf(t testing.TB) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	for _, d := range s.survive {
		if ok, err := vfs.Clone(s.mem, to, d, d); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	return to
}

// before is what the survivors hold.
func (s subset) before() cluster {
	var c cluster
	for _, d := range s.survive {
		c = append(c, s.holds[d]...)
	}
	return c
}

const planID = "drop-peers-test"

// options are those of a plan for a subset; a rewind with T.
func (s subset) options(ts mvcc.TS) plan.Options {
	o := plan.Options{PlanID: planID, Tool: "test", Made: "2026-09-21T00:00:00Z", FailedStores: s.failed, Forced: []string{"empty-region"}}
	if ts != 0 {
		o.ToTS, o.SafePoint = ts, 1
	}
	return o
}

// repaired are the stores after a repair.
type repaired struct {
	subset
	fs     *vfs.MemFS
	plan   *plan.Plan
	after  cluster
	stores map[uint64]*scan.Store
}

func (s subset) look(t testing.TB, fs *vfs.MemFS, p *plan.Plan) *repaired {
	t.Helper()
	r := &repaired{subset: s, fs: fs, plan: p, stores: map[uint64]*scan.Store{}}
	for _, d := range s.survive {
		st := open(t, fs, d)
		r.stores[st.Ident.StoreID] = st
		r.after = append(r.after, holdings(t, st)...)
	}
	return r
}

func (r *repaired) close(t testing.TB) {
	for _, s := range r.stores {
		must(t, s.Close())
	}
}

// counts tells that a check has met something to check.
type counts struct{ regions, must, rows, lost, replicas, exact int }

// check holds the result to what the survivors held before, and to what the writer of the cluster knows.
func (r *repaired) check(t testing.TB, n *counts) {
	t.Helper()
	for id, s := range r.stores {
		if s.Fenced() {
			t.Errorf("store %d is fenced", id)
		}
		r.starts(t, s)
	}
	leaders, without := r.after.leaders()
	// A source whose merge is committed waits on stores that lag behind until its target's leader brings the merge there.
	without = slices.DeleteFunc(without, func(id uint64) bool { return r.after.takenIn(id, leaders) })
	if len(without) > 0 {
		t.Errorf("regions %v have no quorum", without)
	}
	partition(t, leaders)
	n.regions += len(leaders)
	r.versions(t, leaders, n)
	r.rows(t, leaders, n)
	r.replicas(t, n)
}

// starts wants every region of a store to pass TiKV's start rules.
func (r *repaired) starts(t testing.TB, s *scan.Store) {
	t.Helper()
	for _, reg := range s.Regions {
		if !reg.Live() {
			continue
		}
		raft, err := s.RaftStateOf(reg.ID)
		must(t, err)
		vs, err := s.StartCheck(reg, raft)
		must(t, err)
		for _, v := range vs {
			if v.Consequence == raftstate.StopsStart || !r.untouched(reg.ID) {
				t.Errorf("store %d: %v", s.Ident.StoreID, v)
			}
		}
	}
}

// untouched tells that the plan does nothing to a region.
func (r *repaired) untouched(id uint64) bool {
	return !slices.ContainsFunc(r.plan.Regions, func(p plan.RegionPlan) bool { return p.ID == id && p.Decision != plan.DecisionHealthy })
}

// versions: everything that a survivor had applied or knew to be committed is there, unless the plan says that it is lost; nothing is
// there that no survivor had; nothing is above T.
func (r *repaired) versions(t testing.TB, leaders []*held, n *counts) {
	t.Helper()
	want, known := r.before().survived()
	got := map[version]write{}
	for _, h := range leaders {
		maps.Copy(got, h.effective())
	}
	ts := r.plan.ToTS
	bad := 0
	for v, w := range want {
		if ts != 0 && v.commit > ts {
			continue
		}
		n.must++
		if g, ok := got[v]; ok && g == w {
			continue
		}
		if lossAt(r.plan, v.key) == plan.LossCertain {
			n.lost++
			continue
		}
		if bad++; bad < 4 {
			t.Errorf("%s was applied, or known to be committed, on a survivor, is not in the result, and the plan does not say so", v)
		}
	}
	for v, w := range got {
		c, acknowledged := r.history.commits[v]
		k, ok := known[v]
		switch {
		case ts != 0 && v.commit > ts:
			t.Errorf("%s is above T", v)
		case !acknowledged || mvcc.TS(c.StartTS) != w.start || c.Delete != (w.kind == mvcc.WriteDelete):
			t.Errorf("%s (start %d): history does not know it", v, w.start)
		case !ok && ts == 0 || ok && k != w:
			t.Errorf("%s: no survivor had it", v)
		}
	}
}

// rows: what a client reads of the kept regions is, key by key, a row of history; with T it is the row of T wherever any survivor had it.
func (r *repaired) rows(t testing.TB, leaders []*held, n *counts) {
	t.Helper()
	ts := r.plan.ToTS
	if ts == 0 {
		ts = mvcc.MaxTS
	}
	seen := map[string]bool{}
	for _, h := range leaders {
		v, err := r.stores[h.store].NewPlainView(ts)
		must(t, err)
		rows, err := v.Rows(userKey(t, h.region.StartKey), userKey(t, h.region.EndKey))
		must(t, err)
		for rows.Next() {
			value, err := rows.Value()
			must(t, err)
			key := string(rows.UserKey())
			c := r.history.commits[version{key, rows.CommitTS()}]
			if c.Delete || !bytes.Equal(c.Value, value) {
				t.Errorf("%X@%d has the value %X, the writer wrote %X", key, rows.CommitTS(), value, c.Value)
			}
			if seen[key] {
				t.Errorf("%X is in two regions", key)
			}
			seen[key] = true
			n.rows++
			if r.plan.ToTS == 0 {
				continue
			}
			if at, ok := r.history.at(key, ts); !ok || mvcc.TS(at.CommitTS) != rows.CommitTS() {
				r.differs(t, key, fmt.Sprintf("it is at %d", rows.CommitTS()))
			} else {
				n.exact++
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
		if r.plan.ToTS != 0 {
			if n := r.locksIn(t, h); n > 0 {
				t.Errorf("region %d has %d locks after the rewind", h.region.ID, n)
			}
		}
	}
	if r.plan.ToTS == 0 {
		return
	}
	for key := range r.history.byKey {
		if at, ok := r.history.at(key, ts); ok && !at.Delete && !seen[key] {
			r.differs(t, key, "it is not there")
		}
	}
}

// differs: a row is not that of T. The plan must name a loss there, and no survivor may have known better (see versions).
func (r *repaired) differs(t testing.TB, key, what string) {
	t.Helper()
	if loss := lossAt(r.plan, key); loss == "" || loss == plan.LossNone {
		t.Errorf("%X is not what it was at T: %s; the plan lists no loss there", key, what)
	}
}

func (r *repaired) locksIn(t testing.TB, h *held) (n int) {
	locks, err := r.stores[h.store].Locks()
	must(t, err)
	for _, l := range locks {
		if h.covers(string(l.User)) {
			n++
		}
	}
	return n
}

// replicas: those of a region that are kept hold the same data, by the hashes that verify compares.
func (r *repaired) replicas(t testing.TB, n *counts) {
	t.Helper()
	var proofs []*repair.Proof
	for _, d := range r.survive {
		s := r.stores[r.ids[d]]
		p, err := repair.Prove(t.Context(), s, repair.ProveOptions{Plan: r.plan, Hash: true, Threads: 2})
		must(t, err)
		for _, f := range p.Findings {
			t.Error(f)
		}
		proofs = append(proofs, p)
	}
	differ, compared, missing := repair.Compare(r.plan, proofs)
	if len(differ) > 0 || missing > 0 {
		t.Errorf("%d regions not compared; replicas differ: %v", missing, differ)
	}
	n.replicas += compared
}

func userKey(t testing.TB, k raftstate.Key) []byte {
	t.Helper()
	if len(k) == 0 {
		return nil
	}
	user, _, err := mvcc.DecodeBytes(k)
	must(t, err)
	return user
}

// tree is every path below a directory with a digest of its content; backups only on demand.
func tree(t testing.TB, fs vfs.FS, dir string, backups bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(string)
	walk = func(d string) {
		names, err := fs.List(d)
		must(t, err)
		for _, n := range names {
			p := fs.PathJoin(d, n)
			st, err := fs.Stat(p)
			must(t, err)
			switch {
			case !st.IsDir():
				b, err := base.ReadFile(base.NewMem(fs), p)
				must(t, err)
				out[p] = fmt.Sprintf("%d bytes %X", len(b), sha256.Sum256(b))
			case backups || d != dir || n != edit.BackupRoot:
				out[p] = "directory"
				walk(p)
			}
		}
	}
	walk(dir)
	return out
}

func (s subset) trees(t testing.TB, fs vfs.FS, backups bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, d := range s.survive {
		maps.Copy(out, tree(t, fs, d, backups))
	}
	return out
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%.1500s", what, d)
	}
}

// undo takes the repair back on every store and wants every file as it was.
func (s subset) undo(t testing.TB, fs vfs.FS, p *plan.Plan) {
	t.Helper()
	for _, d := range s.survive {
		if part := p.Store(s.ids[d]); part == nil || part.Idle() {
			continue
		}
		b, err := repair.Undo(base.NewMem(fs), d, repair.BackupOptions{})
		if err != nil {
			t.Fatalf("undo %s: %v\nnext: %s", d, err, base.Next(err))
		}
		if b.State != string(edit.Undone) || b.Fenced {
			t.Errorf("undo %s: %+v", d, b)
		}
	}
	same(t, "after undo", s.trees(t, fs, false), s.trees(t, s.mem, false))
}
