package plan

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// rangeOf describes a region's range.
func rangeOf(r raftstate.Region) Range {
	return Range{Start: r.StartKey, End: r.EndKey, StartText: keyText(r.StartKey), EndText: keyText(r.EndKey)}
}

// keyText decodes a region boundary; "" for the ends of the key space.
func keyText(k raftstate.Key) string {
	if len(k) == 0 {
		return ""
	}
	return userInfo(k).String()
}

func userInfo(k raftstate.Key) mvcc.KeyInfo {
	user, _, err := mvcc.DecodeBytes(k)
	if err != nil {
		user = k // raw data of API V1 is not encoded
	}
	return mvcc.DescribeUserKey(user)
}

func (pl *planner) finish() *Plan {
	slices.SortStableFunc(pl.regions, func(a, b RegionPlan) int {
		return cmp.Or(bytes.Compare(a.Range.Start, b.Range.Start), cmp.Compare(a.ID, b.ID))
	})
	p := &Plan{Format: PlanFormat, PlanID: pl.opt.PlanID, Tool: pl.opt.Tool, Made: pl.opt.Made, ClusterID: pl.stores[pl.storeID[0]].ClusterID,
		ToTS: pl.opt.ToTS, FailedStores: slices.Sorted(maps.Keys(pl.failed)), Keep: pl.opt.Keep, HoleFill: pl.opt.HoleFill,
		ByHand: pl.opt.ByHand(), Stores: pl.storePlans(), Regions: pl.regions, Txns: pl.txns, Carried: pl.carried}
	if p.FailedStores == nil {
		p.FailedStores = []uint64{}
	}
	for _, id := range slices.Sorted(maps.Keys(pl.ask)) {
		p.Questions = append(p.Questions, *pl.ask[id])
	}
	p.Final = len(p.Questions) == 0
	if pl.rewind() {
		p.ToTime = rfc3339(pl.opt.ToTS)
		sp, sure := pl.highestSafePoint()
		if sure {
			p.SafePoint, p.GCNeverRan = sp, sp == 0
		}
	}
	p.Floors = Floors{AllocID: max(pl.nextID, pl.maxID), TSO: pl.maxSeen, TSOTime: rfc3339(pl.maxSeen)}
	Sort(pl.problems)
	p.Problems = findingsOf(pl.problems)
	p.Forced = slices.Sorted(maps.Keys(pl.forced))
	pl.summarise(p)
	pl.stages(p)
	pl.nextSteps(p)
	p.Seal()
	return p
}

func findingsOf(ps []Problem) []Finding {
	out := make([]Finding, 0, len(ps))
	for _, d := range Describe(ps) {
		f := Finding{Name: d.Name, Severity: d.Severity, Where: d.Where, What: d.What, Next: d.Next, Forceable: d.Forceable}
		if b, err := json.Marshal(d.Details); err == nil {
			f.Details = b
		}
		out = append(out, f)
	}
	return out
}

// Seal fills in Hash.
func (p *Plan) Seal() {
	p.Hash = ""
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // every field is plain data
	}
	p.Hash = hashOf(b)
}

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Encode gives the plan file: one line of JSON.
func (p *Plan) Encode() ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// DecodePlan reads a plan file and proves that it is as it was made.
func DecodePlan(b []byte) (*Plan, error) {
	var head struct {
		Format int    `json:"format"`
		PlanID string `json:"plan_id"`
		Hash   string `json:"hash"`
	}
	b = bytes.TrimSpace(b)
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("not a plan: %w", err)
	}
	if head.Format != PlanFormat || head.PlanID == "" {
		return nil, fmt.Errorf("plan %q has format %d, this version reads %d: plan again with this version", head.PlanID, head.Format, PlanFormat)
	}
	body, ok := bytes.CutSuffix(b, []byte(`"hash":"`+head.Hash+`"}`))
	if !ok || hashOf(append(slices.Clone(body), `"hash":""}`...)) != head.Hash {
		return nil, fmt.Errorf("plan %s was changed after it was made (its hash does not match): plan again instead of editing it", head.PlanID)
	}
	p := new(Plan)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("plan %s: %w", head.PlanID, err)
	}
	return p, nil
}

// Store finds the part of one store; nil when the plan has none for it.
func (p *Plan) Store(id uint64) *StorePlan {
	for i := range p.Stores {
		if p.Stores[i].StoreID == id {
			return &p.Stores[i]
		}
	}
	return nil
}

// Idle tells that a store has nothing to do: all its regions stay as they are.
func (s StorePlan) Idle() bool { return len(s.Actions) == 0 && !s.Rewind }

// Busy counts the stores that have something to do.
func (p *Plan) Busy() int {
	n := 0
	for _, s := range p.Stores {
		if !s.Idle() {
			n++
		}
	}
	return n
}

// Blocking lists the problems that forbid to apply the plan.
func (p *Plan) Blocking() (out []Finding) {
	for _, f := range p.Problems {
		if f.Severity == Fatal || f.Severity == Error && !slices.Contains(p.Forced, f.Name) {
			out = append(out, f)
		}
	}
	return out
}

func (pl *planner) summarise(p *Plan) {
	s := &p.Summary
	s.AffectedTables, s.MetaRegions, s.EmptyRegions = []int64{}, []uint64{}, []uint64{}
	s.Healthy = pl.healthy
	tables := map[int64]bool{}
	for i := range p.Regions {
		r := &p.Regions[i]
		switch r.Decision {
		case DecisionRewind:
			s.Rewound++
		case DecisionRewrite, DecisionStale, DecisionWait:
			s.Rewritten++
		case DecisionCreate:
			s.Created++
			s.EmptyRegions = append(s.EmptyRegions, r.ID)
		case DecisionSplitOff:
			s.Created++
		}
		switch r.Loss.Certainty {
		case LossCertain:
			s.LossCertain++
		case LossPossible:
			s.LossMaybe++
		}
		s.CopyBytes += r.CopyBytes
		if r.Loss.Certainty == LossNone {
			continue
		}
		for _, k := range []raftstate.Key{r.Range.Start, r.Range.End} {
			if len(k) == 0 {
				continue
			}
			switch info := userInfo(k); info.Kind {
			case mvcc.KeyRow, mvcc.KeyIndex, mvcc.KeyTable:
				tables[info.TableID] = true
			}
		}
		if meta := raftstate.Key("m"); bytes.Compare(r.Range.Start, raftstate.Key("n")) < 0 && startBeforeEnd(meta, r.Range.End) {
			s.MetaRegions = append(s.MetaRegions, r.ID)
		}
	}
	s.AffectedTables = append(s.AffectedTables, slices.Sorted(maps.Keys(tables))...)
	for _, st := range p.Stores {
		for _, a := range st.Actions {
			if a.Kind == ActionTombstone {
				s.Tombstoned++
			}
		}
	}
}

// stages tells the plan in the order of PD's online recovery.
func (pl *planner) stages(p *Plan) {
	collect := Stage{Name: "collect", Info: fmt.Sprintf("%s reported %s", plural(len(p.Stores), "store"), plural(len(pl.groups), "region"))}
	if len(p.FailedStores) > 0 {
		collect.Details = append(collect.Details, "failed stores "+joinIDs(p.FailedStores))
	}
	collect.Details = append(collect.Details, fmt.Sprintf("left alone, with their quorum: %s", plural(p.Summary.Healthy, "region")))
	p.Stages = append(p.Stages, collect)
	if len(p.Questions) > 0 {
		ask := Stage{Name: "ask", Info: fmt.Sprintf("%s open: run collect --answer with this plan on each store, then plan again with the answers", plural(len(p.Questions), "question"))}
		for _, q := range p.Questions {
			ask.Details = append(ask.Details, q.ID+": "+q.Reason)
		}
		p.Stages = append(p.Stages, ask)
	}
	tomb := Stage{Name: "tombstone", Info: "peers that do not stay are destroyed", Actions: map[string][]string{}}
	lead := Stage{Name: "force leader", Info: "of each region that lost its quorum, what is kept leads", Actions: map[string][]string{}}
	demote := Stage{Name: "demote", Info: "peers that are gone leave the regions", Actions: map[string][]string{}}
	empty := Stage{Name: "create region", Info: "what nobody holds gets a new region", Actions: map[string][]string{}}
	lost := map[uint64]bool{}
	for _, r := range p.Regions {
		lost[r.ID] = r.LostQuorum || r.Decision != DecisionRewind
	}
	rewind := Stage{Name: "rewind", Actions: map[string][]string{}}
	for _, s := range p.Stores {
		name := fmt.Sprintf("store %d", s.StoreID)
		var forced, equal []uint64
		for _, a := range s.Actions {
			switch a.Kind {
			case ActionTombstone:
				tomb.Actions[name] = append(tomb.Actions[name], fmt.Sprintf("tombstone the peer of region %d: %s", a.RegionID, a.Reason))
			case ActionRewrite:
				if lost[a.RegionID] {
					forced = append(forced, a.RegionID)
				} else {
					equal = append(equal, a.RegionID)
				}
			case ActionCreate:
				empty.Actions[name] = append(empty.Actions[name], fmt.Sprintf("create region %d: %s", a.RegionID, a.Reason))
			}
		}
		if len(forced) > 0 {
			lead.Actions[name] = []string{"regions " + joinIDs(forced)}
		}
		if len(equal) > 0 {
			rewind.Actions[name] = []string{"replicas made equal, logs made harmless: regions " + joinIDs(equal)}
		}
	}
	for _, r := range p.Regions {
		if r.WinnerStore == 0 || len(r.Old.Peers) == 0 {
			continue
		}
		var gone []string
		for _, q := range r.Old.Peers {
			if _, ok := r.New.PeerOn(q.StoreID); !ok {
				gone = append(gone, fmt.Sprintf("%d on store %d", q.ID, q.StoreID))
			}
		}
		if len(gone) > 0 {
			name := fmt.Sprintf("store %d", r.WinnerStore)
			demote.Actions[name] = append(demote.Actions[name], fmt.Sprintf("region %d goes on without peers %s", r.ID, strings.Join(gone, ", ")))
		}
	}
	for _, s := range []Stage{tomb, lead, demote, empty} {
		if len(s.Actions) > 0 {
			p.Stages = append(p.Stages, s)
		}
	}
	if pl.rewind() {
		rewind.Info = fmt.Sprintf("every store goes back to %s (%s)", p.ToTS, p.ToTime)
		rewind.Details = []string{fmt.Sprintf("%s with locks at or before T are decided", plural(len(p.Txns), "transaction"))}
		p.Stages = append(p.Stages, rewind)
	}
	s := p.Summary
	end := Stage{Name: "finished", Info: fmt.Sprintf("%s left alone, %d rewritten, %d rewound, %d created; %s destroyed", plural(s.Healthy, "region"), s.Rewritten, s.Rewound, s.Created, plural(s.Tombstoned, "peer"))}
	end.Details = append(end.Details, "affected table ids: "+orNone(joinIDs(s.AffectedTables)), "affected meta regions: "+orNone(joinIDs(s.MetaRegions)),
		"newly created empty regions: "+orNone(joinIDs(s.EmptyRegions)),
		fmt.Sprintf("lost for certain in %s, possibly in %d more, nothing in the others", plural(s.LossCertain, "region"), s.LossMaybe))
	p.Stages = append(p.Stages, end)
}

func orNone(s string) string { return cmp.Or(s, "none") }

func joinIDs[T uint64 | int64](ids []T) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", ", ")
}

func (pl *planner) nextSteps(p *Plan) {
	add := func(format string, args ...any) { p.NextSteps = append(p.NextSteps, fmt.Sprintf(format, args...)) }
	if !p.Final {
		add("collect --answer with this plan on each of stores %s, then plan again with the answers", joinIDs(pl.storeID))
		return
	}
	add("apply this plan on each of stores %s; they stay fenced until release has seen the results of all", joinIDs(pl.storeID))
	if len(p.FailedStores) > 0 {
		add("never start stores %s again: wipe them, and set them to Tombstone in PD before the others serve", joinIDs(p.FailedStores))
	}
	add("start PD with its schedulers stopped; base-alloc-id must be above %d and its TSO above %s (%s)", p.Floors.AllocID, p.Floors.TSO, p.Floors.TSOTime)
	if slices.ContainsFunc(p.Problems, func(f Finding) bool { return f.Name == "pd-newer" }) {
		add("set PD's region-meta aside before it starts: it knows descriptors that are newer than what is left")
	}
	if len(pl.tiflash) > 0 {
		add("remove all TiFlash replicas and add them again: stores %s were not repaired", joinIDs(slices.Sorted(maps.Keys(pl.tiflash))))
	}
	if pl.rewind() {
		add("changefeeds, log backup and everything else with a checkpoint after %s must begin anew from a full copy", p.ToTime)
	}
	add("start all stores, wait until every region has a leader, then start the schedulers")
	if len(p.Summary.AffectedTables) > 0 {
		add("run ADMIN CHECK TABLE on the tables with the ids %s", joinIDs(p.Summary.AffectedTables))
	}
}
