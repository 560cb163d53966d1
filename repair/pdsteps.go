package repair

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// PDSteps reads what is left of a stopped cluster, directories of PD members and of stores in any order, and computes what PD needs
// before TiKV is started. Nothing is written. All must belong to one cluster; at least one store or PD directory is needed.
func PDSteps(fs base.FS, dirs []string, so scan.Options) (*plan.PDSteps, error) {
	in := plan.PDStepsInput{Stores: []plan.StoreLeft{}}
	var known []*pd.Knowledge
	cluster, from := uint64(0), ""
	one := func(id uint64, dir string) error {
		if from != "" && id != cluster {
			return &base.Error{Class: base.ErrUsage, Op: "compute the steps for PD", Path: dir, Offset: -1,
				Reason: fmt.Sprintf("it belongs to cluster %d, %s to %d", id, from, cluster), Next: "name directories of one cluster"}
		}
		cluster, from = id, dir
		return nil
	}
	for _, dir := range dirs {
		if pd.Is(fs, dir) {
			k, err := pd.Read(fs, dir)
			if err != nil {
				return nil, err
			}
			known = append(known, k)
			if err := one(k.ClusterID.Value, dir); err != nil {
				return nil, err
			}
			continue
		}
		s, err := storeLeft(fs, dir, so)
		if err != nil {
			return nil, err
		}
		in.Stores = append(in.Stores, *s)
		if err := one(s.ClusterID, dir); err != nil {
			return nil, err
		}
	}
	if len(known) > 0 {
		var err error
		if in.PD, err = pdLeft(known); err != nil {
			return nil, err
		}
	}
	out := plan.StepsForPD(in)
	return &out, nil
}

func storeLeft(fs base.FS, dir string, so scan.Options) (*plan.StoreLeft, error) {
	so.NoRaft = false
	s, err := scan.Open(fs, dir, so)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m, err := s.Maxima()
	if err != nil {
		return nil, err
	}
	out := &plan.StoreLeft{Dir: dir, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID,
		MaxID: plan.IDFound{Value: m.ID, Where: m.IDWhere}, MaxTS: plan.TSFound{Value: m.TS, Where: m.TSWhere}}
	// What a rewind has removed was given out all the same.
	txs, err := edit.List(fs, s.Layout.Dir)
	if err != nil {
		return nil, err
	}
	for _, t := range txs {
		var res struct {
			Newest mvcc.TS `json:"newest_commit_ts"`
			Rewind struct {
				Newest mvcc.TS `json:"newest_commit_ts"`
			} `json:"rewind"` // of apply
		}
		if t.J.State == "" || t.Result(&res) != nil || max(res.Newest, res.Rewind.Newest) <= out.MaxTS.Value {
			continue
		}
		out.MaxTS = plan.TSFound{Value: max(res.Newest, res.Rewind.Newest), Where: fmt.Sprintf("newest commit before %s, in the result of %s", t.J.Verb, t.Backup())}
	}
	return out, s.Close()
}

// pdLeft joins the members.
func pdLeft(known []*pd.Knowledge) (*plan.PDLeft, error) {
	c, err := pd.Compare(known)
	if err != nil {
		return nil, err
	}
	var k *pd.Knowledge
	given := map[uint64]bool{}
	for _, x := range known {
		given[x.Etcd.MemberID] = true
		if x.Dir == c.Newest {
			k = x
		}
	}
	p := &plan.PDLeft{ClusterID: k.ClusterID.Value, Newest: plan.PDMember{Dir: k.Dir}, Why: c.Why, Given: c.Given, Voters: c.Voters, Lost: []string{},
		Etcd34: strings.HasPrefix(k.Etcd.Line, "3.4"), Backend: k.Etcd.Backend, HardCommit: k.Etcd.HardCommit, ConsistentIndex: k.Etcd.ConsistentIndex,
		Commit: k.Etcd.Commit, LastIndex: k.Etcd.LastIndex, Markers: k.Markers, Dirs: c.Order, Stores: []plan.PDStoreLeft{}, Limits: []plan.PDLimit{},
		Schedulers: slices.Sorted(maps.Keys(k.Schedulers))}
	if len(k.Etcd.Damage) > 0 {
		p.Damaged = k.Etcd.Damage[0]
	}
	for _, m := range k.Etcd.Members {
		name := m.Name
		if name == "" {
			name = fmt.Sprintf("member %x", m.ID)
		}
		if m.ID == k.Etcd.MemberID {
			p.Newest.Name, p.Newest.PeerURLs, p.Newest.ClientURLs = m.Name, m.PeerURLs, m.ClientURLs
		} else if !given[m.ID] {
			p.Lost = append(p.Lost, name)
		}
	}
	for _, ch := range k.Tail {
		p.Tail = append(p.Tail, ch.Key)
	}
	for _, s := range k.Stores {
		p.Stores = append(p.Stores, plan.PDStoreLeft{ID: s.ID, Address: s.Address, State: s.State})
	}
	p.Limits = limits(k.Config["schedule"])
	for _, x := range known {
		p.HasMeta = p.HasMeta || x.RegionMeta != nil || x.RegionMetaError != ""
		if x.AllocID != nil && x.AllocID.Value > p.AllocID.Value {
			p.AllocID = plan.IDFound{Value: x.AllocID.Value, Where: inDir(x.AllocID.Source)}
			p.AllocPossible = x.AllocID.Source.Certainty == pd.Possible || x != k && k.AllocID != nil && k.AllocID.Value < x.AllocID.Value
		}
		if floor, source := x.TSOFloor(); floor > p.Window.Value {
			p.Window = plan.TSFound{Value: floor, Where: inDir(source)}
			p.WindowPossible = source.Certainty == pd.Possible
		}
		pdIDs(x, &p.MaxID)
	}
	return p, nil
}

func inDir(s pd.Source) string { return s.String() + " in " + s.Dir }

// pdIDs raises m to the largest id that the records of a member name; the bound of ids is no record.
func pdIDs(k *pd.Knowledge, m *plan.IDFound) {
	note := func(id uint64, where string) {
		if id > m.Value {
			*m = plan.IDFound{Value: id, Where: where}
		}
	}
	for _, s := range k.Stores {
		note(s.ID, "a store in "+k.Dir)
	}
	for _, r := range k.Regions() {
		note(r.ID, fmt.Sprintf("region %d in region-meta of %s", r.ID, k.Dir))
		for _, p := range r.Peers {
			note(p.ID, fmt.Sprintf("a peer of region %d in region-meta of %s", r.ID, k.Dir))
		}
	}
	for _, d := range k.DR.Records {
		note(d.StateID, "the state id of DR Auto-Sync in "+k.Dir)
	}
}

// limits reads the limits of the persisted configuration.
func limits(raw json.RawMessage) []plan.PDLimit {
	out := []plan.PDLimit{}
	var all map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var n json.Number
		if json.Unmarshal(all[name], &n) == nil && strings.HasSuffix(name, "-limit") {
			out = append(out, plan.PDLimit{Name: name, Value: n.String()})
		}
	}
	return out
}
