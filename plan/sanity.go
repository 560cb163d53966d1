package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// identities tests whether the reports belong together (repair-semantics.md 9.2), and gathers what they say about the whole cluster.
func (pl *planner) identities() bool {
	ok := true
	fatal := func(p Problem) {
		pl.problem(p)
		ok = false
	}
	stores := slices.Clone(pl.in.Stores)
	slices.SortStableFunc(stores, func(a, b *StoreReport) int { return cmp.Compare(a.StoreID, b.StoreID) })
	if len(stores) == 0 {
		fatal(&ReportMismatch{Reason: "there is no report of any store"})
		return false
	}
	cluster := stores[0].ClusterID
	for i, s := range stores {
		switch {
		case s.ClusterID != cluster:
			fatal(&ReportMismatch{Store: s.StoreID, Reason: fmt.Sprintf("it belongs to cluster %d, store %d belongs to cluster %d", s.ClusterID, stores[0].StoreID, cluster)})
		case s.StoreID == 0:
			fatal(&ReportMismatch{Reason: "a report has no store id"})
		case i > 0 && stores[i-1].StoreID == s.StoreID:
			fatal(&ReportMismatch{Store: s.StoreID, Reason: "there are two reports of it"})
		case pl.failed[s.StoreID]:
			fatal(&ReportMismatch{Store: s.StoreID, Reason: "it is named as failed and there is a report of it: leave one of them out"})
		case pl.tiflash[s.StoreID]:
			fatal(&ReportMismatch{Store: s.StoreID, Reason: "it is named as TiFlash and there is a report of a TiKV store"})
		case s.Engine != EngineV1:
			fatal(&Unsupported{Store: s.StoreID, Feature: "engine " + s.Engine, Reason: "only stores of raftstore v1 are written"})
		case s.ToTS != pl.opt.ToTS:
			fatal(&ReportMismatch{Store: s.StoreID, Reason: fmt.Sprintf("its report was made for T %s, the plan is for %s: collect again with the same --to-ts", tsText(s.ToTS), tsText(pl.opt.ToTS))})
		}
		pl.stores[s.StoreID] = s
		pl.storeID = append(pl.storeID, s.StoreID)
		pl.maxID = max(pl.maxID, s.MaxID)
		pl.maxSeen = max(pl.maxSeen, s.NewestCommit, s.MaxTailTS)
		if s.Fenced != "" {
			pl.problem(&Fenced{Store: s.StoreID, PlanID: s.Fenced})
		}
		for _, f := range s.Problems {
			pl.problem(&reported{s.StoreID, f})
		}
	}
	for _, p := range pl.in.PD {
		if p.ClusterID != cluster {
			fatal(&ReportMismatch{Reason: fmt.Sprintf("the report of PD is of cluster %d, the stores belong to cluster %d", p.ClusterID, cluster)})
		}
		pl.maxSeen = max(pl.maxSeen, p.TSO)
		for _, st := range p.Stores {
			if st.TiFlash && pl.stores[st.ID] == nil {
				pl.tiflash[st.ID] = true
			}
		}
	}
	for _, p := range pl.in.Peers {
		if pl.stores[p.StoreID] == nil {
			fatal(&ReportMismatch{Store: p.StoreID, Reason: fmt.Sprintf("region %d is reported without the store's head", p.RegionID)})
			break
		}
		if p.RegionID != p.Region.ID {
			fatal(&ReportMismatch{Store: p.StoreID, Reason: fmt.Sprintf("the record of region %d holds the descriptor of region %d", p.RegionID, p.Region.ID)})
		}
		pl.maxID = max(pl.maxID, p.RegionID)
		for _, q := range p.Region.Peers {
			pl.maxID = max(pl.maxID, q.ID)
		}
		for _, g := range p.Log {
			if g.Admin == nil {
				continue
			}
			for _, s := range g.Admin.Splits {
				pl.maxID = max(pl.maxID, s.NewRegionID)
				for _, id := range s.NewPeerIDs {
					pl.maxID = max(pl.maxID, id)
				}
			}
			for _, c := range g.Admin.Changes {
				pl.maxID = max(pl.maxID, c.Peer.ID)
			}
		}
	}
	pl.safePoint()
	pl.againstPD(stores)
	pl.rawData(stores)
	pl.knownToPD()
	for _, a := range pl.in.Answers {
		// An answer of a store that has changed since is about another state.
		if s := pl.stores[a.StoreID]; s == nil || s.Fingerprint != a.Fingerprint {
			fatal(&ReportMismatch{Store: a.StoreID, Reason: "an answer was given by another state of the store than the one reported: collect again, then answer again"})
			continue
		}
		pl.answers[a.Question] = append(pl.answers[a.Question], a)
	}
	for id := range pl.answers {
		slices.SortStableFunc(pl.answers[id], func(a, b *Answer) int { return cmp.Compare(a.StoreID, b.StoreID) })
	}
	return ok
}

// safePoint demands a GC safe point at or below T: above it, what was visible at T may have been collected.
func (pl *planner) safePoint() {
	if !pl.rewind() {
		return
	}
	sp, sure := pl.highestSafePoint()
	switch {
	case sp > pl.opt.ToTS:
		pl.problem(&SafePointAboveT{T: pl.opt.ToTS, SafePoint: sp})
	case !sure:
		pl.problem(&UnknownSafePoint{})
	}
}

// highestSafePoint is over everything that knows one. It is sure when somebody vouches for it: the operator, a store's report, or a PD that
// has lost nothing. A PD that vouches for none (GC never ran) gives 0, true.
func (pl *planner) highestSafePoint() (sp mvcc.TS, sure bool) {
	note := func(ts mvcc.TS, known bool) { sp, sure = max(sp, ts), sure || known }
	note(pl.opt.SafePoint, pl.opt.SafePoint != 0)
	for _, s := range pl.in.Stores {
		note(s.SafePoint, s.SafePoint != 0)
	}
	for _, p := range pl.in.PD {
		note(p.SafePoint, p.GCNeverRan || p.SafePoint != 0 && !p.SafePointUnsure)
	}
	return sp, sure
}

// againstPD compares T and the stores with what PD directories knew.
func (pl *planner) againstPD(stores []*StoreReport) {
	for _, p := range pl.in.PD {
		if p.TSO == 0 {
			continue // what it gave out is not known
		}
		for _, s := range stores {
			if s.NewestCommit >= p.TSO && s.NewestCommit != mvcc.MaxTS {
				pl.problem(&PDBehindStore{Store: s.StoreID, Newest: s.NewestCommit, TSOFloor: p.TSO, Source: p.TSOSource})
			}
		}
	}
	if !pl.rewind() {
		return
	}
	for _, p := range pl.in.PD {
		if above := p.aboveMinResolved(pl.opt.ToTS); above != nil {
			pl.problem(above)
		}
	}
}

func (pl *planner) rawData(stores []*StoreReport) {
	for _, s := range stores {
		if pl.rewind() && (s.RawData || s.APIVersion == "V1TTL") {
			pl.problem(&RawData{Store: s.StoreID, APIVersion: s.APIVersion})
		}
	}
}

// knownToPD keeps the newest of what PD directories say about regions.
func (pl *planner) knownToPD() {
	var all []raftstate.Region
	for _, p := range pl.in.PD {
		pl.nextID = max(pl.nextID, p.AllocID)
		all = append(all, p.Regions...)
	}
	pl.nextID = max(pl.nextID, pl.opt.AllocID)
	for _, r := range all {
		e := pl.pdByID[r.ID]
		pl.pdByID[r.ID] = raftstate.Epoch{ConfVer: max(e.ConfVer, r.Epoch.ConfVer), Version: max(e.Version, r.Epoch.Version)}
		pl.maxID = max(pl.maxID, r.ID)
		for _, q := range r.Peers {
			pl.maxID = max(pl.maxID, q.ID)
		}
	}
	slices.SortStableFunc(all, func(a, b raftstate.Region) int {
		return cmp.Or(slices.Compare(a.StartKey, b.StartKey), compareEnds(a.EndKey, b.EndKey), compareEpoch(b.Epoch, a.Epoch), cmp.Compare(a.ID, b.ID))
	})
	pl.pd = all
}

// pdVersion is the highest version that PD knows of anything in a range: it refuses a region with a lower one there.
func (pl *planner) pdVersion(id uint64, start, end raftstate.Key) uint64 {
	v := pl.pdByID[id].Version
	// PD's own list has no overlaps, up to what it has not cleaned up yet; a few regions before the first hit cover those.
	i, _ := slices.BinarySearchFunc(pl.pd, start, func(r raftstate.Region, k raftstate.Key) int { return slices.Compare(r.StartKey, k) })
	for i = max(0, i-pdLookBack); i < len(pl.pd) && startBeforeEnd(pl.pd[i].StartKey, end); i++ {
		if r := pl.pd[i]; overlaps(r.StartKey, r.EndKey, start, end) {
			v = max(v, r.Epoch.Version)
		}
	}
	return v
}

const pdLookBack = 16

// missingStores demands a report of every store that a region needs: one that is not failed and did not report may hold what decides.
func (pl *planner) missingStores() {
	missing := map[uint64]int{}
	for i := range pl.groups {
		g := &pl.groups[i]
		if g.newest == nil {
			continue
		}
		for _, p := range g.newest.Region.Peers {
			if pl.stores[p.StoreID] == nil && !pl.failed[p.StoreID] && !pl.tiflash[p.StoreID] {
				missing[p.StoreID]++
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(missing)) {
		pl.problem(&MissingReport{Store: id, Regions: missing[id]})
	}
}
