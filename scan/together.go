package scan

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Together is what several directories show only when they are seen together. Findings are the worst first, at most maxAlike of one name;
// More counts the others by name.
type Together struct {
	Findings   []plan.Problem
	More       map[string]uint64
	NotChecked []string

	alike map[string]int
}

func (t *Together) add(p plan.Problem) {
	if t.alike[p.Name()]++; t.alike[p.Name()] > maxAlike {
		t.More[p.Name()]++
		return
	}
	t.Findings = append(t.Findings, p)
}

// Worst is the severity of the worst finding; plan.Info without one.
func (t *Together) Worst() plan.Severity {
	worst := plan.Info
	for _, p := range t.Findings {
		worst = max(worst, p.Severity())
	}
	return worst
}

// CheckTogether joins the results of several directories: are they stores of one cluster, each once; do their regions, taken at the newest
// epoch that any of them shows, cover the key space without gap and overlap; do equal epochs mean equal regions. failed is the number of
// directories that could not be checked at all: what they hold is not known.
//
// A store may lag behind: it still shows a region as it was before a split or a merge. So a region counts with its newest descriptor, and one that
// another store has merged into its neighbour does not count.
func CheckTogether(results []*CheckResult, failed int) *Together {
	t := &Together{Findings: []plan.Problem{}, More: map[string]uint64{}, NotChecked: []string{}, alike: map[string]int{}}
	clusters := map[uint64][]*CheckResult{}
	for _, r := range results {
		if r.ClusterID == 0 || r.StoreID == 0 {
			t.NotChecked = append(t.NotChecked, "regions of "+r.Dir+" together with the others: it is not known which store it is")
			failed++
			continue
		}
		clusters[r.ClusterID] = append(clusters[r.ClusterID], r)
	}
	var ids []uint64
	for id := range clusters {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) > 1 {
		mix := &plan.ClusterMix{}
		for _, id := range ids {
			one := plan.ClusterDirs{ClusterID: id}
			for _, r := range clusters[id] {
				one.Dirs = append(one.Dirs, r.Dir)
			}
			mix.Clusters = append(mix.Clusters, one)
		}
		t.add(mix)
	}
	for _, id := range ids {
		j := &joiner{t: t, stores: clusters[id], unseen: failed > 0, regions: map[uint64]*joined{}}
		j.run()
	}
	plan.Sort(t.Findings)
	slices.SortFunc(t.NotChecked, cmp.Compare)
	return t
}

// joiner looks at the stores of one cluster.
type joiner struct {
	t       *Together
	stores  []*CheckResult
	unseen  bool // there are stores, or parts of them, that were not read
	regions map[uint64]*joined
}

// joined is one region as all stores show it.
type joined struct {
	newest raftstate.Region
	stores []uint64        // that show it so
	merged raftstate.Epoch // of a tombstone that remembers a merge; zero: none
}

func (j *joiner) run() {
	j.distinct()
	for _, s := range j.stores {
		if !s.regionsRead {
			j.t.NotChecked = append(j.t.NotChecked, "gaps over all directories as far as "+s.Dir+" may fill them: not all of its region states are known")
			j.unseen = true
		}
		for _, r := range s.regions {
			j.take(s.StoreID, r)
		}
	}
	j.absent()
	j.cover()
}

// distinct looks for directories that are the same store.
func (j *joiner) distinct() {
	dirs := map[uint64][]string{}
	for _, s := range j.stores {
		dirs[s.StoreID] = append(dirs[s.StoreID], s.Dir)
	}
	for id, d := range dirs {
		if len(d) > 1 {
			j.t.add(&plan.StoreTwice{Store: id, Dirs: d})
		}
	}
}

// compareEpoch orders descriptors of one region by age: the range first, then the peers.
func compareEpoch(a, b raftstate.Epoch) int {
	return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ConfVer, b.ConfVer))
}

// take joins what one store shows of one region.
func (j *joiner) take(store uint64, r Region) {
	d := r.State.Region
	at := j.regions[r.ID]
	if at == nil {
		at = &joined{}
		j.regions[r.ID] = at
	}
	if r.State.State == raftstate.Tombstone && r.State.MergeState != nil && compareEpoch(d.Epoch, at.merged) > 0 {
		at.merged = d.Epoch
	}
	if !r.Live() {
		return
	}
	age := compareEpoch(d.Epoch, at.newest.Epoch)
	switch {
	case len(at.stores) == 0 || age > 0:
		at.newest, at.stores = d, []uint64{store}
	case age == 0:
		if differs := differ(at.newest, d); differs != "" {
			j.t.add(&plan.RegionDisagree{Region: r.ID, Epoch: d.Epoch, Stores: slices.Clone(at.stores), OtherStores: []uint64{store}, Differs: differs})
			return
		}
		at.stores = append(at.stores, store)
	}
}

// differ names what two descriptors of one epoch do not have in common; the order of peers means nothing.
func differ(a, b raftstate.Region) string {
	if !bytes.Equal(a.StartKey, b.StartKey) || !bytes.Equal(a.EndKey, b.EndKey) {
		return "range"
	}
	byID := func(ps []raftstate.Peer) []raftstate.Peer {
		return slices.SortedFunc(slices.Values(ps), func(x, y raftstate.Peer) int { return cmp.Compare(x.ID, y.ID) })
	}
	if !slices.Equal(byID(a.Peers), byID(b.Peers)) {
		return "peers"
	}
	return ""
}

// absent names the stores that hold peers of live regions and were not given.
func (j *joiner) absent() {
	shown := map[uint64]bool{}
	for _, s := range j.stores {
		shown[s.StoreID] = true
	}
	missing := map[uint64]bool{}
	p := &plan.StoreAbsent{}
	for _, r := range j.live() {
		there := false
		for _, peer := range r.newest.Peers {
			if !shown[peer.StoreID] {
				missing[peer.StoreID], there = true, true
			}
		}
		if there {
			p.Regions++
		}
	}
	for id := range missing {
		p.Stores = append(p.Stores, id)
	}
	if slices.Sort(p.Stores); len(p.Stores) > 0 {
		j.t.add(p)
		j.unseen = true
	}
}

// live are the regions that exist in the cluster, by start key.
func (j *joiner) live() []*joined {
	var out []*joined
	for _, r := range j.regions {
		if len(r.stores) > 0 && compareEpoch(r.merged, r.newest.Epoch) < 0 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *joined) int {
		return cmp.Or(bytes.Compare(a.newest.StartKey, b.newest.StartKey), cmp.Compare(a.newest.ID, b.newest.ID))
	})
	return out
}

// cover looks for gaps and overlaps.
//
// Invariant of a cluster: sorted by start key, each region ends exactly where the next one starts, the first starts at "" and the last ends at "".
func (j *joiner) cover() {
	live := j.live()
	if len(live) == 0 {
		return
	}
	gap := func(start, end []byte, after, before uint64) {
		j.t.add(&plan.ClusterGap{Start: upperHex(start), End: upperHex(end), After: after, Before: before, Unseen: j.unseen})
	}
	if first := live[0].newest; len(first.StartKey) > 0 {
		gap(nil, first.StartKey, 0, first.ID)
	}
	widest := live[0]          // the region that reaches furthest so far
	open := []*joined{live[0]} // those that may reach beyond the next start
	for _, r := range live[1:] {
		end, start := widest.newest.EndKey, r.newest.StartKey
		if len(end) > 0 && bytes.Compare(start, end) > 0 {
			gap(end, start, widest.newest.ID, r.newest.ID)
		}
		open = slices.DeleteFunc(open, func(x *joined) bool {
			return len(x.newest.EndKey) > 0 && bytes.Compare(x.newest.EndKey, start) <= 0
		})
		for _, before := range open {
			j.overlap(before, r)
		}
		open = append(open, r)
		if e := r.newest.EndKey; len(end) > 0 && (len(e) == 0 || bytes.Compare(e, end) > 0) {
			widest = r
		}
	}
	if end := widest.newest.EndKey; len(end) > 0 {
		gap(end, nil, widest.newest.ID, 0)
	}
}

func (j *joiner) overlap(a, b *joined) {
	x, y := a.newest, b.newest
	end := x.EndKey
	if len(end) == 0 || len(y.EndKey) > 0 && bytes.Compare(y.EndKey, end) < 0 {
		end = y.EndKey
	}
	j.t.add(&plan.ClusterOverlap{Region: y.ID, Stores: b.stores, Other: x.ID, OtherStores: a.stores, Start: upperHex(y.StartKey), End: upperHex(end),
		Version: y.Epoch.Version, Against: x.Epoch.Version})
}
