package repair

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// drAutoSync is the replication mode in which PD counts sites.
const drAutoSync = "dr-auto-sync"

// PDReport is what a planner takes from a PD: the evidence of all directories of one cluster's members, joined. tool is the version of this
// tool.
func PDReport(e *scan.PDEvidence, tool string) *plan.PDReport {
	p := &plan.PDReport{
		Kind: plan.LinePD, Format: plan.ReportFormat, Tool: tool, ClusterID: e.ClusterID,
		SafePoint: e.SafePoint.TS, SafePointUnsure: !e.SafePointKnown, GCNeverRan: e.SafePointKnown && e.SafePoint.TS == 0, SafePointSource: pdSource(e),
		ConsistentWhy: e.ConsistentWhy, TSO: e.TSOFloor, AllocID: e.AllocID.Value, DataDir: strings.Join(e.Dirs, ","),
	}
	if e.TSOFloor != 0 {
		p.TSOSource = e.TSOFloorSource.String()
	}
	if t := e.MinResolvedTS; t != nil {
		p.MinResolvedTS = t.TS
	}
	if t := e.ConsistentTS; t != nil {
		p.ConsistentTS = t.TS
		p.ConsistentWhy += "; " + t.Source.String()
	}
	if e.DRMode == drAutoSync {
		p.DRState = "unknown"
		if e.DR != nil {
			p.DRState, p.DRStateID, p.DRReserve = e.DR.State, e.DR.StateID, e.Reserve
		}
	}
	for _, s := range e.ServiceSafePoints {
		p.ServiceSafePoints = append(p.ServiceSafePoints, plan.ServiceSafePoint{Service: s.ServiceID, SafePoint: s.TS, Expires: s.ExpiredAt})
	}
	for _, s := range e.Stores {
		p.Stores = append(p.Stores, pdStore(s))
	}
	for _, r := range e.Regions {
		// Of two members each may know a higher part of the epoch; a region must be above both.
		r.Epoch = e.HighestEpoch[r.ID]
		r.Peers = slices.Clone(r.Peers)
		p.Regions = append(p.Regions, r)
	}
	slices.SortFunc(p.Stores, func(a, b plan.PDStore) int { return cmp.Compare(a.ID, b.ID) })
	return p
}

// pdStore keeps what identifies a store, and whether it is TiFlash, which says so by its label engine (tikv/pd pkg/core/store.go,
// IsTiFlash).
func pdStore(s scan.PDStore) plan.PDStore {
	out := plan.PDStore{ID: s.ID, State: s.State, Address: s.Address}
	for _, l := range s.Labels {
		if out.Labels == nil {
			out.Labels = map[string]string{}
		}
		out.Labels[l.Key] = l.Value
		if l.Key == "engine" && (l.Value == "tiflash" || l.Value == "tiflash_compute") {
			out.TiFlash = true
		}
	}
	return out
}
