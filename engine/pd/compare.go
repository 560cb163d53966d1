package pd

import (
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Comparison puts the directories of several members of one PD cluster side by side.
type Comparison struct {
	// Newest is the directory whose log is the newest, Why in words.
	Newest string `json:"newest"`
	Why    string `json:"why"`
	// Given of Voters members were given. With a majority, everything that was ever committed is in the newest log.
	Given    int  `json:"given"`
	Voters   int  `json:"voters"`
	Majority bool `json:"majority"`
	// Order lists the directories, the newest first, then as given.
	Order       []string     `json:"order"`
	Differences []Difference `json:"differences"`
	Warnings    []string     `json:"warnings"`
}

// Difference is one thing that the members do not agree on.
type Difference struct {
	What   string   `json:"what"`
	Values []string `json:"values"` // in Order
}

// Compare finds the newest of several members' directories; at least one is needed. The error has class ErrUsage when they are not of one
// etcd cluster.
func Compare(ks []*Knowledge) (Comparison, error) {
	states := make([]*etcd.State, len(ks))
	for i, k := range ks {
		states[i] = k.state
	}
	e, err := etcd.Compare(states)
	if err != nil {
		return Comparison{}, err
	}
	first := ks[e.Newest]
	c := Comparison{Newest: first.Dir, Why: e.Why, Majority: e.Majority, Order: []string{first.Dir}, Differences: []Difference{}, Warnings: append([]string{}, e.Warnings...)}
	order, ids := []*Knowledge{first}, map[uint64]bool{}
	for i, k := range ks {
		ids[k.Etcd.MemberID] = true
		if i != e.Newest {
			order = append(order, k)
			c.Order = append(c.Order, k.Dir)
		}
	}
	for _, m := range first.state.Possible.Members {
		if m.Learner {
			continue
		}
		c.Voters++
		if ids[m.ID] {
			c.Given++
		}
	}
	c.diff(order)
	return c, nil
}

func (c *Comparison) diff(order []*Knowledge) {
	for _, x := range []struct {
		what string
		of   func(*Knowledge) string
	}{
		{"PD cluster id", func(k *Knowledge) string { return fmt.Sprint(k.ClusterID.Value) }},
		{"etcd cluster id", func(k *Knowledge) string { return fmt.Sprintf("%x", k.Etcd.ClusterID) }},
		{"last term and index", func(k *Knowledge) string { return fmt.Sprintf("%d, %d", k.Etcd.LastTerm, k.Etcd.LastIndex) }},
		{"commit index", func(k *Knowledge) string { return fmt.Sprint(k.Etcd.Commit) }},
		{"revision", func(k *Knowledge) string { return fmt.Sprint(k.Etcd.Revision) }},
		{"stores", func(k *Knowledge) string { return storesText(k.Stores) }},
		{"end of the TSO window", func(k *Knowledge) string {
			if k.TSO.Window == nil {
				return "none"
			}
			return k.TSO.Window.TS.String()
		}},
		{"bound of ids", func(k *Knowledge) string {
			if k.AllocID == nil {
				return "none"
			}
			return fmt.Sprint(k.AllocID.Value)
		}},
		{"GC safe point", func(k *Knowledge) string { return k.GC.SafePoint.TS.String() }},
		{"min-resolved-ts", func(k *Knowledge) string {
			if k.MinResolvedTS == nil {
				return "none"
			}
			return k.MinResolvedTS.TS.String()
		}},
		{"replication state", func(k *Knowledge) string {
			if k.DR.Last == nil {
				return "none"
			}
			return k.DR.Last.DRStatus.String()
		}},
		{"regions in region-meta", func(k *Knowledge) string { return fmt.Sprint(k.liveRegions()) }},
	} {
		var vs []string
		for _, k := range order {
			vs = append(vs, x.of(k))
		}
		if slices.ContainsFunc(vs, func(v string) bool { return v != vs[0] }) {
			c.Differences = append(c.Differences, Difference{x.what, vs})
		}
	}
}

func storesText(ss []Store) string {
	text := ""
	for i, s := range ss {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", s.ID, s.State)
	}
	return text
}

func (k *Knowledge) liveRegions() int {
	n := 0
	for _, t := range k.Tilings {
		n += len(t.Live)
	}
	return n
}

// MaxID is the largest id of a store, region or peer that the directory names, and the bound of ids: what is allocated anew must be
// above it.
func (k *Knowledge) MaxID() uint64 {
	var n uint64
	if k.AllocID != nil {
		n = k.AllocID.Value
	}
	for _, s := range k.Stores {
		n = max(n, s.ID)
	}
	for _, r := range k.Regions() {
		n = max(n, r.ID)
		for _, p := range r.Peers {
			n = max(n, p.ID)
		}
	}
	return n
}

// Regions are all descriptors of the directory, those of etcd and every record of region-meta.
func (k *Knowledge) Regions() []raftstate.Region {
	out := slices.Clone(k.EtcdRegions)
	if k.RegionMeta != nil {
		for _, r := range k.RegionMeta.Records {
			out = append(out, r.Region)
		}
	}
	return out
}

// TSOFloor is a timestamp that no timestamp which PD gave out reaches: one above the last of the largest window's millisecond, 0 when no
// window was ever saved.
func (k *Knowledge) TSOFloor() (floor mvcc.TS, source Source) {
	for _, w := range k.TSO.All {
		if f := w.TS + 1<<18; f > floor {
			floor, source = f, w.Source
		}
	}
	return floor, source
}
