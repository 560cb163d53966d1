package quorum

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// version is one Put or Delete record of one key.
type version struct {
	key    string // user key
	commit mvcc.TS
}

func (v version) String() string { return fmt.Sprintf("%X@%d", v.key, v.commit) }

// write is what a version says, as far as its record does: the value of a Put without a short one is compared by reading it.
type write struct {
	kind  byte
	start mvcc.TS
}

// held is what one store holds of one live region: read from its files and its log alone, without the planner.
type held struct {
	store  uint64
	region raftstate.Region
	// data are the versions in the region's range, pending those that TiKV will apply from the log above the applied index when it commits
	// them: their header has the region's version. Of the pending, committed are known to be committed here.
	data, pending, committed map[version]write
	// after counts the entries above applied that follow an admin command there: what they mean depends on it.
	after    int
	derived  raftstate.Derived
	lastTerm uint64
}

// holdings reads every live region of a store.
func holdings(t testing.TB, s *scan.Store) []*held {
	t.Helper()
	var out []*held
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		h := &held{store: s.Ident.StoreID, region: r.State.Region, data: map[version]write{}, pending: map[version]write{}, committed: map[version]write{}}
		lower, upper := r.Bounds()
		v, err := s.DB.CF(scan.CFWrite).NewVisible(lower, upper, nil)
		must(t, err)
		for ok := v.First(); ok; ok = v.Next() {
			if at, w, ok := versionOf(t, v.User(), v.Value()); ok {
				h.data[at] = w
			}
		}
		must(t, v.Err())
		must(t, v.Close())
		raft, err := s.RaftStateOf(r.ID)
		must(t, err)
		h.derived = raftstate.Derive(raft, r.Apply)
		terms := &raftlog.Terms{Store: s.Raft, Region: r.ID}
		h.lastTerm, _ = h.derived.TermOf(h.derived.Last, terms.Term)
		must(t, terms.Err)
		h.tail(t, s, r)
		out = append(out, h)
	}
	return out
}

func versionOf(t testing.TB, dbKey, value []byte) (version, write, bool) {
	t.Helper()
	prefix, ts, ok := mvcc.SplitKey(dbKey)
	w, err := mvcc.ParseWrite(value)
	if !ok || err != nil {
		t.Fatalf("write record %X: %v", dbKey, err)
	}
	if w.Type != mvcc.WritePut && w.Type != mvcc.WriteDelete {
		return version{}, write{}, false
	}
	user, _, err := mvcc.DecodeBytes(prefix[1:])
	must(t, err)
	return version{string(user), ts}, write{w.Type, w.StartTS}, true
}

// tail follows the entries above applied as TiKV does: a write whose header has another version than the region by then does nothing.
func (h *held) tail(t testing.TB, s *scan.Store, r scan.Region) {
	t.Helper()
	d := h.derived
	moved := false
	must(t, s.Raft.Entries(r.ID, d.Applied+1, d.Last+1, func(e raftstate.Entry) error {
		cmd, err := raftstate.Decode(e)
		if err != nil {
			return err
		}
		if moved {
			h.after++
			return nil
		}
		switch {
		case cmd.Admin != nil && cmd.Kind == raftstate.CommandAdmin:
			// A split or a merge changes version and range: what follows is left to the regions that come out of it.
			moved = cmd.Header.Epoch == r.State.Region.Epoch && cmd.Admin.Type != raftstate.AdminCompactLog
			return nil
		case cmd.Header.Epoch.Version != r.State.Region.Epoch.Version:
			return nil
		}
		for _, q := range cmd.Requests {
			if q.CF != scan.CFWrite || q.Op != raftstate.OpPut {
				continue
			}
			if at, w, ok := versionOf(t, append([]byte{mvcc.DataPrefix}, q.Key...), q.Value); ok {
				h.pending[at] = w
				if e.Index <= d.Commit {
					h.committed[at] = w
				}
			}
		}
		return nil
	}))
}

// effective are the versions that the region shows once TiKV has applied its log.
func (h *held) effective() map[version]write {
	out := maps.Clone(h.data)
	maps.Copy(out, h.pending)
	return out
}

func (h *held) covers(user string) bool {
	k := mvcc.EncodeBytes(nil, []byte(user))
	return bytes.Compare(k, h.region.StartKey) >= 0 && (len(h.region.EndKey) == 0 || bytes.Compare(k, h.region.EndKey) < 0)
}

// cluster is what several stores hold together.
type cluster []*held

// survived are the versions that a survivor has applied or knows to be committed: they must not be lost silently. known are those that
// any of them has seen at all.
func (c cluster) survived() (must, known map[version]write) {
	must, known = map[version]write{}, map[version]write{}
	for _, h := range c {
		maps.Copy(must, h.data)
		maps.Copy(must, h.committed)
		maps.Copy(known, h.data)
		maps.Copy(known, h.pending)
	}
	return must, known
}

// leaders are the replicas that win an election: of every region with a quorum among the stores the one with the longest log. Regions
// without a quorum are returned apart.
func (c cluster) leaders() (with []*held, without []uint64) {
	by := map[uint64][]*held{}
	for _, h := range c {
		by[h.region.ID] = append(by[h.region.ID], h)
	}
	for _, id := range slices.Sorted(maps.Keys(by)) {
		newest := slices.MaxFunc(by[id], func(a, b *held) int {
			return cmp.Or(cmp.Compare(a.region.Epoch.Version, b.region.Epoch.Version), cmp.Compare(a.region.Epoch.ConfVer, b.region.Epoch.ConfVer))
		})
		if !quorum(newest.region, by[id]) {
			without = append(without, id)
			continue
		}
		voters := slices.DeleteFunc(slices.Clone(by[id]), func(h *held) bool {
			p, ok := newest.region.PeerOn(h.store)
			return !ok || p.Role == raftstate.Learner
		})
		with = append(with, slices.MaxFunc(voters, func(a, b *held) int {
			return cmp.Or(cmp.Compare(a.lastTerm, b.lastTerm), cmp.Compare(a.derived.Last, b.derived.Last))
		}))
	}
	slices.SortFunc(with, func(a, b *held) int { return bytes.Compare(a.region.StartKey, b.region.StartKey) })
	return with, without
}

// takenIn tells whether another region with a leader and a newer version holds the whole range of a region, and its store has a copy of that
// one which is yet to get there.
func (c cluster) takenIn(id uint64, leaders []*held) bool {
	found := false
	for _, h := range c {
		if h.region.ID != id {
			continue
		}
		found = true
		if !slices.ContainsFunc(leaders, func(l *held) bool {
			return l.region.ID != id && l.region.Epoch.Version > h.region.Epoch.Version && bytes.Compare(l.region.StartKey, h.region.StartKey) <= 0 &&
				(len(l.region.EndKey) == 0 || len(h.region.EndKey) > 0 && bytes.Compare(h.region.EndKey, l.region.EndKey) <= 0) &&
				slices.ContainsFunc(c, func(x *held) bool {
					return x.store == h.store && x.region.ID == l.region.ID && x.region.Epoch.Version < l.region.Epoch.Version
				})
		}) {
			return false
		}
	}
	return found
}

// quorum tells whether enough of a descriptor's voters are there, in both halves of a joint configuration.
func quorum(r raftstate.Region, here []*held) bool {
	var all, have [2]int // incoming, outgoing
	for _, p := range r.Peers {
		there := slices.ContainsFunc(here, func(h *held) bool {
			own, ok := h.region.PeerOn(h.store)
			return ok && h.store == p.StoreID && own.ID == p.ID
		})
		in := [2]bool{p.Role == raftstate.Voter || p.Role == raftstate.IncomingVoter, p.Role == raftstate.Voter || p.Role == raftstate.DemotingVoter}
		for i := range in {
			if in[i] {
				all[i]++
				if there {
					have[i]++
				}
			}
		}
	}
	return have[0] > all[0]/2 && have[1] > all[1]/2
}

// partition wants the regions to cover all keys, each once.
func partition(t testing.TB, regions []*held) {
	t.Helper()
	next := raftstate.Key{}
	for i, h := range regions {
		if !bytes.Equal(h.region.StartKey, next) || i > 0 && len(next) == 0 {
			t.Errorf("region %d begins at %q where %q comes next", h.region.ID, h.region.StartKey, next)
		}
		next = h.region.EndKey
	}
	if len(next) > 0 {
		t.Errorf("nothing after %q", next)
	}
}

// history is what the writer of the cluster knows.
type history struct {
	commits map[version]fixtures.Commit
	byKey   map[string][]fixtures.Commit // in commit order
}

func historyOf(t testing.TB, name string) *history {
	h := &history{map[version]fixtures.Commit{}, map[string][]fixtures.Commit{}}
	for _, c := range fixtures.History(t, name) {
		h.commits[version{string(c.Key), mvcc.TS(c.CommitTS)}] = c
		h.byKey[string(c.Key)] = append(h.byKey[string(c.Key)], c)
	}
	return h
}

// at is the newest acknowledged commit of a key at ts.
func (h *history) at(key string, ts mvcc.TS) (fixtures.Commit, bool) {
	all := h.byKey[key]
	for i := len(all) - 1; i >= 0; i-- {
		if mvcc.TS(all[i].CommitTS) <= ts {
			return all[i], true
		}
	}
	return fixtures.Commit{}, false
}

// lossAt is what a plan says about loss at a key; the empty string: nothing.
func lossAt(p *plan.Plan, user string) plan.Certainty {
	k := mvcc.EncodeBytes(nil, []byte(user))
	worst := plan.Certainty("")
	for _, r := range p.Regions {
		if bytes.Compare(k, r.Range.Start) >= 0 && (len(r.Range.End) == 0 || bytes.Compare(k, r.Range.End) < 0) {
			switch {
			case r.Loss.Certainty == plan.LossCertain:
				return plan.LossCertain
			case r.Loss.Certainty != "":
				worst = r.Loss.Certainty
			}
		}
	}
	return worst
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
