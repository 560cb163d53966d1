package repair

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// confVerMargin lifts conf_ver above what a majority that is gone may have reached unseen; epochs are only compared.
const confVerMargin = 100

// region decides for one region; nil means that there is nothing to do.
func (h *hand) region(rp *regionPlan) (*HandLine, error) {
	switch h.o.Verb {
	case ApplyTail:
		return h.applyTail(rp)
	case CutTail:
		return h.cutTail(rp)
	case Tombstone:
		return h.tombstone(rp)
	case SetPeers:
		return h.setPeers(rp)
	}
	return nil, &base.Error{Class: base.ErrUsage, Op: string(h.o.Verb), Offset: -1, Reason: "there is no such edit"}
}

func (h *hand) put(key, value []byte) {
	h.raftRun.Add(ikey.Key{User: key, Kind: ikey.KindPut}, value)
}

// applyTail applies what is committed: of a region whose only peer is here all that its log holds, else what the records of this replica
// and of the sources say.
func (h *hand) applyTail(rp *regionPlan) (*HandLine, error) {
	before := rp.derived
	t, found, err := bringTo(h.s, &h.batch, rp, Reach{Region: rp.region.ID, To: h.o.Args.To, Sources: h.sources})
	h.problems = append(h.problems, found...)
	if err != nil || t.To == t.From {
		return nil, err
	}
	action := fmt.Sprintf("apply %d log entries: %d records, %d range deletes, %d without effect", t.To-t.From, t.Records, t.Ranges, t.NoOps)
	if t.Appended > 0 {
		action += fmt.Sprintf("; %d of them come from %s", min(t.Appended, t.To-t.From), t.Source)
	}
	if t.Replaced > 0 {
		action += fmt.Sprintf(", in place of %d own ones that were never committed", t.Replaced)
	}
	return &HandLine{Region: rp.region.ID, Action: action, Before: fmt.Sprintf("applied %d, last %d", before.Applied, before.Last),
		After: fmt.Sprintf("applied %d, last %d", t.To, rp.derived.Last), Tail: &t}, nil
}

// cutTail makes the log end at the applied index (repair-semantics.md 7.3).
func (h *hand) cutTail(rp *regionPlan) (*HandLine, error) {
	if rp.derived.Last == rp.derived.Applied {
		return nil, nil
	}
	d, err := raftlog.DropTail(&h.batch, h.s.Raft, raftlog.Drop{Region: rp.region.ID, Raft: rp.raft, Apply: rp.region.Apply, KeepHistory: h.o.Args.KeepHistory})
	if err != nil {
		return nil, err
	}
	h.put(raftstate.ApplyStateKey(rp.region.ID), d.Apply.Raw)
	terms := &raftlog.Terms{Store: h.s.Raft, Region: rp.region.ID}
	h.starts(raftstate.StartInput{Region: rp.region.State, Raft: &d.Raft, Apply: &d.Apply, EntryTerm: func(index uint64) (uint64, bool) {
		if !d.History || index > d.Index {
			return 0, false
		}
		return terms.Term(index)
	}})
	if terms.Err != nil {
		return nil, terms.Err
	}
	// A prewrite that is lost can belong to a transaction whose primary is committed in another region, and raw data has no write records.
	changes, err := tailChanges(h.s.Raft, rp)
	if err != nil {
		return nil, err
	}
	if rp.tail.Lost > 0 || rp.tail.Opaque > 0 || changes > 0 {
		h.problems = append(h.problems, &plan.RaftTail{Store: h.s.Ident.StoreID, Region: rp.region.ID, Applied: rp.derived.Applied,
			Commit: rp.derived.Committed, Last: rp.derived.Last, MinCommitTS: rp.tail.MinCommitTS, MaxCommitTS: rp.tail.MaxCommitTS,
			Versions: rp.tail.Lost, Opaque: rp.tail.Opaque, Keys: rp.tail.Keys})
	}
	// Even an entry that is not known to be committed here may be: its leader counted this replica. And one that is applied but not in
	// the log may be uncommitted elsewhere.
	if !onlyPeerHere(h.s, rp.region) {
		h.multiStore(rp.region.State.Region.Peers)
	}
	action := fmt.Sprintf("drop %d log entries", d.Last+1-d.First)
	if d.Last < d.First {
		action = "entries were applied before they were persisted: the log gets its end at the applied index"
	}
	return &HandLine{Region: rp.region.ID, Action: action, Lost: rp.tail.Lost,
		Before: fmt.Sprintf("applied %d, last %d", rp.derived.Applied, rp.derived.Last), After: fmt.Sprintf("applied %d, last %d", d.Index, d.Index)}, nil
}

// tailChanges counts all that the tail would write or delete, in any column family and at any timestamp.
func tailChanges(s raftlog.Store, rp *regionPlan) (int, error) {
	t, err := raftlog.SummarizeTail(s, rp.region.ID, rp.derived.Applied, rp.derived.Committed, rp.derived.Last)
	n := 0
	for _, p := range []raftlog.PartSummary{t.CommittedPart, t.UncommittedPart} {
		n += p.RangeDels + p.Ingests
		for _, m := range []map[string]int{p.Puts, p.Deletes} {
			for _, k := range m {
				n += k
			}
		}
	}
	return n, err
}

// starts asks whether TiKV would start the region with its new records.
func (h *hand) starts(in raftstate.StartInput) {
	in.StoreID = h.s.Ident.StoreID
	h.problems = append(h.problems, startProblems(in)...)
}

// multiStore is the problem that other replicas would differ; once is enough.
func (h *hand) multiStore(peers []raftstate.Peer) {
	others := map[uint64]bool{}
	for _, p := range peers {
		if p.StoreID != h.s.Ident.StoreID {
			others[p.StoreID] = true
		}
	}
	for _, p := range h.problems {
		if m, ok := p.(*plan.MultiStore); ok {
			for _, id := range m.Missing {
				others[id] = true
			}
			m.Missing, m.Regions = sortedKeys(others), m.Regions+1
			return
		}
	}
	if len(others) > 0 {
		h.problems = append(h.problems, &plan.MultiStore{Given: []uint64{h.s.Ident.StoreID}, Missing: sortedKeys(others), Regions: 1, Verb: string(h.o.Verb)})
	}
}

// tombstone marks the peer as destroyed. TiKV then deletes its log and, as a gap between regions, its data at the next start: the tables
// that hold it are saved, too.
func (h *hand) tombstone(rp *regionPlan) (*HandLine, error) {
	r := rp.region
	next, err := r.State.WithState(raftstate.Tombstone)
	if err != nil {
		return nil, err
	}
	h.put(raftstate.RegionStateKey(r.ID), next.Raw)
	if onlyPeerHere(h.s, r) {
		h.problems = append(h.problems, &plan.LastReplica{Store: h.s.Ident.StoreID, Region: r.ID})
	}
	tables := saveTables(h.s, r, &h.save)
	return &HandLine{Region: r.ID, Action: fmt.Sprintf("tombstone; TiKV deletes its data at the next start (it lies in %d tables, saved)", tables),
		Before: r.State.State.String(), After: raftstate.Tombstone.String()}, nil
}

// setPeers replaces the peer list and lifts conf_ver: conf changes that wait in the log become no-ops, writes still apply (strategy K of
// repair-semantics.md 7.2), and a peer that returns with the old list is recognised as stale.
func (h *hand) setPeers(rp *regionPlan) (*HandLine, error) {
	r := rp.region
	if err := checkPeers(h.o.Args.Peers, h.s.Ident.StoreID); err != nil {
		return nil, &base.Error{Class: base.ErrUsage, Op: string(SetPeers), Path: h.s.Layout.Dir, Offset: -1, Region: r.ID, Err: err,
			Next: "tikv-repair region --region " + fmt.Sprint(r.ID) + " " + h.s.Layout.Dir}
	}
	e := r.State.Region.Epoch
	if slices.Equal(h.o.Args.Peers, r.State.Region.Peers) && (rp.tail.Entries == 0 || rp.tail.MaxEpoch.ConfVer < e.ConfVer) {
		return nil, nil // done before
	}
	epoch := raftstate.Epoch{ConfVer: max(e.ConfVer, rp.tail.MaxEpoch.ConfVer) + confVerMargin, Version: e.Version}
	next, err := r.State.WithPeers(h.o.Args.Peers, epoch)
	if err != nil {
		return nil, err
	}
	terms := &raftlog.Terms{Store: h.s.Raft, Region: r.ID}
	h.starts(raftstate.StartInput{Region: next, Raft: rp.raft, Apply: r.Apply, EntryTerm: terms.Term})
	if terms.Err != nil {
		return nil, terms.Err
	}
	h.put(raftstate.RegionStateKey(r.ID), next.Raw)
	// Those that go hold the old list, and with it perhaps a majority.
	h.multiStore(append(slices.Clone(h.o.Args.Peers), r.State.Region.Peers...))
	return &HandLine{Region: r.ID, Action: "replace the peer list",
		Before: peersText(r.State.Region), After: peersText(next.Region)}, nil
}

// checkPeers demands what TiKV and raft need of a list.
func checkPeers(peers []raftstate.Peer, store uint64) error {
	ids, stores := map[uint64]bool{}, map[uint64]bool{}
	voter := false
	for _, p := range peers {
		switch {
		case p.ID == 0 || p.StoreID == 0:
			return fmt.Errorf("peer %d on store %d: ids are not 0", p.ID, p.StoreID)
		case ids[p.ID]:
			return fmt.Errorf("peer %d is listed twice", p.ID)
		case stores[p.StoreID]:
			return fmt.Errorf("store %d is listed twice", p.StoreID)
		case p.Role != raftstate.Voter && p.Role != raftstate.Learner:
			return fmt.Errorf("peer %d: a role is voter or learner", p.ID)
		}
		ids[p.ID], stores[p.StoreID] = true, true
		voter = voter || p.Role == raftstate.Voter && !p.IsWitness
	}
	switch {
	case !stores[store]:
		return fmt.Errorf("this store, %d, is not in the list", store)
	case !voter:
		return fmt.Errorf("no voter with data is in the list")
	}
	return nil
}

func peersText(r raftstate.Region) string {
	var s []string
	for _, p := range r.Peers {
		t := fmt.Sprintf("%d@%d:%s", p.ID, p.StoreID, p.Role)
		if p.IsWitness {
			t += ":witness"
		}
		s = append(s, t)
	}
	return strings.Join(s, " ") + "; " + epochText(r.Epoch.ConfVer, r.Epoch.Version)
}
