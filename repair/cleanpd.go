package repair

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/engine/pd/regionmeta"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// CleanRegionMeta is what a region-meta knew that nobody else knows.
type CleanRegionMeta struct {
	Regions    int `json:"regions"`    // descriptors, all of them
	Superseded int `json:"superseded"` // of these: PD drops them at its next start
	Holes      int `json:"holes"`
	// BeyondEtcd counts the regions that etcd has no descriptor of, or an older one: nearly all, etcd keeps the first region.
	BeyondEtcd int `json:"beyond_etcd"`
	// Stores are the ids of the stores that it was compared with. Newer are the regions of which it knew a later epoch than any of
	// them: PD would reject their heartbeats as stale. Elsewhere are those that live on none of them.
	Stores    []uint64      `json:"compared_with_stores"`
	Newer     []CleanRegion `json:"newer_than_stores"`
	Elsewhere []CleanRegion `json:"on_no_store"`
	Older     int           `json:"older_than_stores"` // PD would learn the rest from heartbeats
	MaxID     uint64        `json:"max_id"`            // of regions and peers
	Damage    []string      `json:"damage,omitempty"`
}

// CleanRegion is one region with what region-meta and the stores know of it.
type CleanRegion struct {
	Region uint64           `json:"region_id"`
	Epoch  raftstate.Epoch  `json:"epoch"`
	Stores *raftstate.Epoch `json:"epoch_on_stores,omitempty"`
}

// cleanPD takes region-meta away. PD knows no mark that would keep it from starting: the step that counts is one rename, and an
// interrupted clean is known by its journal.
//
//	crash before the rename: PD starts as before; a rerun, or undo, ends the plan.
//	crash after: PD starts with an empty cache; a rerun, or undo as long as PD was not started, ends the plan.
type cleanPD struct {
	fs    base.FS
	dir   string
	locks *pd.Locks
	o     *CleanOptions
	tx    *edit.Tx
	plan  cleanPlan
	known *pd.Knowledge // nil when it cannot be read
	res   *CleanDir
}

func (c *cleanPD) result() *CleanDir { return c.res }
func (c *cleanPD) Close() error      { return c.locks.Close() }
func (c *cleanPD) meta() string      { return c.fs.PathJoin(c.dir, regionmeta.Dir) }

func (c *cleanPD) look(all []cleaner) error {
	if err := c.read(); err != nil {
		return err
	}
	if err := c.others(all); err != nil {
		return err
	}
	if err := c.resume(); err != nil || c.tx != nil {
		return err
	}
	there, err := base.Exists(c.fs, c.meta())
	if err != nil || !there {
		return err
	}
	if c.known != nil {
		if err := c.compare(all); err != nil {
			return err
		}
	}
	c.plan = cleanPlan{Format: planFormat, Verb: cleanVerb, Tool: c.o.Version, RegionMeta: c.res.RegionMeta, Written: c.o.Now}
	c.plan.PlanID = planID(cleanVerb, c.dir, "", c.o.Now)
	c.res.State = StateDryRun
	return nil
}

// read learns what the directory says. One that cannot be decoded is cleaned all the same: a damaged region-meta is a reason to.
func (c *cleanPD) read() error {
	k, err := pd.ReadLocked(c.fs, c.dir)
	if errors.Is(err, base.ErrCorrupt) || errors.Is(err, base.ErrUnsupported) {
		c.res.Notes = append(c.res.Notes, fmt.Sprintf("what this PD knew cannot be read, and which other members it has: %v", err))
		return nil
	}
	c.known = k
	return err
}

// others names the members whose directories are not given.
func (c *cleanPD) others(all []cleaner) error {
	if c.known == nil {
		return nil
	}
	given := map[uint64]bool{c.known.Etcd.MemberID: true}
	for _, x := range all {
		if o, ok := x.(*cleanPD); ok && o != c {
			k := o.known
			if k == nil {
				var err error
				if k, err = pd.ReadLocked(o.fs, o.dir); err != nil {
					continue // told when it is that one's turn
				}
			}
			given[k.Etcd.MemberID] = true
		}
	}
	for _, m := range c.known.Etcd.Members {
		if !given[m.ID] {
			name := m.Name
			if name == "" {
				name = fmt.Sprintf("member %x", m.ID)
			}
			c.res.OtherMembers = append(c.res.OtherMembers, name)
		}
	}
	return nil
}

func (c *cleanPD) resume() error {
	txs, err := edit.List(c.fs, c.dir)
	if err != nil {
		return err
	}
	for _, t := range txs {
		refuse := func(reason, next string) error {
			return &base.Error{Class: base.ErrPlanMismatch, Op: "continue plan " + t.J.PlanID, Path: c.dir, Offset: -1, Reason: reason, Next: next}
		}
		switch {
		case t.J.State == edit.Undoing:
			return refuse("an undo of this plan was interrupted", "tikv-repair undo "+c.dir)
		case t.J.State != edit.Staged && t.J.State != edit.Published:
			continue
		case c.o.DryRun:
			return refuse("this plan is half done; a preview of what is left makes no sense", "tikv-repair clean "+c.dir)
		}
		if err := t.Plan(&c.plan); err != nil {
			return err
		}
		c.tx, c.res.RegionMeta, c.res.State = t, c.plan.RegionMeta, string(t.J.State)
		c.o.Say("continuing plan %s, interrupted in state %s", t.J.PlanID, t.J.State)
		return nil
	}
	return nil
}

// compare tells what region-meta knows beyond etcd and beyond the stores that were given.
func (c *cleanPD) compare(all []cleaner) error {
	k := c.known
	if k.RegionMeta == nil {
		c.res.Notes = append(c.res.Notes, "what region-meta held is not known: "+k.RegionMetaError)
		return nil
	}
	m := &CleanRegionMeta{Stores: []uint64{}, Newer: []CleanRegion{}, Elsewhere: []CleanRegion{}, Damage: k.RegionMeta.Damage}
	for _, t := range k.Tilings {
		m.Superseded += len(t.Superseded)
		m.Holes += len(t.Holes)
	}
	inStores, err := c.storeEpochs(all, m)
	if err != nil {
		return err
	}
	inEtcd := map[uint64]raftstate.Epoch{}
	for _, r := range k.EtcdRegions {
		inEtcd[r.ID] = r.Epoch
	}
	for _, rec := range k.RegionMeta.Records {
		r := rec.Region
		m.Regions++
		m.MaxID = max(m.MaxID, r.ID)
		for _, p := range r.Peers {
			m.MaxID = max(m.MaxID, p.ID)
		}
		if e, ok := inEtcd[r.ID]; !ok || later(r.Epoch, e) {
			m.BeyondEtcd++
		}
		if len(m.Stores) == 0 {
			continue
		}
		e, ok := inStores[r.ID]
		switch {
		case !ok:
			m.Elsewhere = append(m.Elsewhere, CleanRegion{Region: r.ID, Epoch: r.Epoch})
		case later(r.Epoch, e):
			m.Newer = append(m.Newer, CleanRegion{Region: r.ID, Epoch: r.Epoch, Stores: &e})
		case later(e, r.Epoch):
			m.Older++
		}
	}
	c.res.RegionMeta = m
	return nil
}

// later tells whether PD would take a heartbeat with b for stale after it has seen a.
func later(a, b raftstate.Epoch) bool { return a.Version > b.Version || a.ConfVer > b.ConfVer }

// storeEpochs has the highest epoch of each region that lives on a store that was given.
func (c *cleanPD) storeEpochs(all []cleaner, m *CleanRegionMeta) (map[uint64]raftstate.Epoch, error) {
	out := map[uint64]raftstate.Epoch{}
	for _, x := range all {
		cs, ok := x.(*cleanStore)
		if !ok {
			continue
		}
		s, err := scan.OpenLocked(cs.FS, cs.l, scan.Options{Overrides: c.o.Overrides, NoRaft: true})
		if errors.Is(err, base.ErrCorrupt) || errors.Is(err, base.ErrUnsupported) {
			c.res.Notes = append(c.res.Notes, fmt.Sprintf("not compared with %s: %v", cs.l.Dir, err))
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.Ident.ClusterID != c.known.ClusterID.Value {
			c.res.Notes = append(c.res.Notes, fmt.Sprintf("not compared with %s: it belongs to cluster %d, this PD to %d", cs.l.Dir, s.Ident.ClusterID, c.known.ClusterID.Value))
		} else {
			m.Stores = append(m.Stores, s.Ident.StoreID)
			for _, r := range s.Regions {
				if !r.Live() {
					continue
				}
				e, was := r.State.Region.Epoch, out[r.ID]
				out[r.ID] = raftstate.Epoch{ConfVer: max(e.ConfVer, was.ConfVer), Version: max(e.Version, was.Version)}
			}
		}
		if err := s.Close(); err != nil {
			return nil, err
		}
	}
	slices.Sort(m.Stores)
	return out, nil
}

func (c *cleanPD) apply() error {
	if c.tx == nil {
		var err error
		if c.tx, err = edit.BeginMoves(c.fs, c.dir, c.plan.PlanID, cleanVerb, &c.plan, edit.Moves{Dirs: []string{c.meta()}}, c.o.Now); err != nil {
			return err
		}
	}
	if c.tx.J.State == edit.Staged {
		if err := c.tx.Publish(); err != nil {
			return err
		}
	}
	if err := c.tx.SetAgainAside(); err != nil {
		return err
	}
	var err error
	if c.res.WrittenAgain, err = c.tx.Again(); err != nil {
		return err
	}
	c.res.State, c.res.PlanID, c.res.Backup = StateDone, c.tx.J.PlanID, c.tx.Backup()
	return c.tx.FinishKeepingMark(c.res)
}
