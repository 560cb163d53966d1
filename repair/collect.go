package repair

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// CollectOptions of Collect.
type CollectOptions struct {
	// ToTS: the locks with start_ts ≤ T go into the report. 0: none do.
	ToTS mvcc.TS
	// SafePoint as the operator stated it; 0: not stated.
	SafePoint mvcc.TS
	// Questions of a plan that is not final, and that plan's id; a report with answers holds nothing else.
	Questions []plan.Question
	PlanID    string
	Now       time.Time
	Tool      string // version
	Host      string
	// Regions is set to the number of regions in the report; nil is fine.
	Regions *uint64
}

// Collect writes the report of one opened store to out, as lines of package plan: the head, a line a region, locks, the end. Regions are
// streamed: of each only its range and id is held, when the store was opened with NoRegions (which answers to questions do not allow). Nothing
// is written to the store.
func Collect(ctx context.Context, s *scan.Store, out io.Writer, o CollectOptions) error {
	c := &collector{s: s, out: out, o: o, end: plan.EndReport{StoreID: s.Ident.StoreID}}
	return c.run(ctx)
}

// WritePDReport writes what PD knew to out, as a line of package plan.
func WritePDReport(out io.Writer, p *plan.PDReport) error {
	b, err := plan.MarshalLine(p)
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return base.IO("write", "the report", err)
}

type collector struct {
	s    *scan.Store
	out  io.Writer
	o    CollectOptions
	head plan.StoreReport
	end  plan.EndReport

	finder    scan.RegionFinder
	bytes     map[uint64]uint64 // by region
	regions   int               // how many there are
	maxID     uint64
	maxTailTS mvcc.TS
	tailLocks []plan.LockReport
}

func (c *collector) line(v any) error {
	b, err := plan.MarshalLine(v)
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return base.IO("write", "the report", err)
}

func (c *collector) run(ctx context.Context) error {
	if err := c.store(); err != nil {
		return err
	}
	if c.head.Answers = c.o.PlanID; c.o.PlanID != "" {
		if err := c.line(&c.head); err != nil {
			return err
		}
		if err := c.answers(ctx); err != nil {
			return err
		}
		return c.line(&c.end)
	}
	// The head tells what only a pass over all logs knows, and comes first: the passes are two, so that no region is held in memory.
	if err := c.extremes(ctx); err != nil {
		return err
	}
	if err := c.line(&c.head); err != nil {
		return err
	}
	ph := base.Begin(c.s.FS, "collecting the regions").Items(c.regions, "regions")
	defer ph.End()
	err := c.s.EachRegion(func(r scan.Region) error {
		if err := step(ctx, ph); err != nil {
			return err
		}
		p, err := c.peer(ctx, r)
		if err != nil {
			return err
		}
		c.end.Regions++
		return c.line(p)
	})
	if err != nil {
		return err
	}
	if c.o.Regions != nil {
		*c.o.Regions = c.end.Regions
	}
	if c.o.ToTS != 0 {
		if err := c.locks(); err != nil {
			return err
		}
	}
	return c.line(&c.end)
}

// store fills the head.
func (c *collector) store() error {
	s := c.s
	print, err := storeFingerprint(s)
	if err != nil {
		return err
	}
	newest, err := s.NewestCommit()
	if err != nil {
		return err
	}
	mode, err := s.RawMode()
	if err != nil {
		return err
	}
	c.head = plan.StoreReport{
		Tool: c.o.Tool, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID, APIVersion: s.Ident.APIVersion.String(), Engine: plan.EngineV1,
		RaftStore: raftStoreName(s.Layout), TiKV: s.Line().TiKV, RawData: mode == scan.RawV1 || mode == scan.RawV1TTL,
		Fingerprint: print, NewestCommit: newest, NewestTime: scan.Time(newest), SafePoint: c.o.SafePoint, ToTS: c.o.ToTS,
		Collected: c.o.Now.Format(time.RFC3339), DataDir: s.Layout.Dir, Host: c.o.Host,
	}
	if f, err := engine.ReadFence(s.FS, s.Layout.Dir); err != nil {
		return err
	} else if f != nil && f.Ours {
		c.head.Fenced = f.PlanID
	}
	// What depends on T is the planner's to say; it has the safe point of every store.
	ps, err := storeProblems(s, RewindOptions{T: mvcc.MaxTS, SafePoint: new(mvcc.TS)})
	if err != nil {
		return err
	}
	for _, d := range plan.Describe(ps) {
		details, err := json.Marshal(d.Details)
		if err != nil {
			return err
		}
		c.head.Problems = append(c.head.Problems, plan.Finding{Name: d.Name, Severity: d.Severity, Where: d.Where, What: d.What, Next: d.Next, Forceable: d.Forceable, Details: details})
	}
	if c.finder, err = s.LeanFinder(); err != nil {
		return err
	}
	c.bytes = dataBytes(s, c.finder)
	return nil
}

func raftStoreName(l *engine.Layout) string {
	if l.Raft == engine.RaftEngine {
		return "raft-engine"
	}
	return "raftdb"
}

// storeFingerprint is fingerprint in the form of a report.
func storeFingerprint(s *scan.Store) (plan.Fingerprint, error) {
	var f plan.Fingerprint
	text, err := fingerprint(s)
	if err != nil {
		return f, err
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return f, fmt.Errorf("fingerprint %q: %w", text, err)
	}
	copy(f[:], b)
	return f, nil
}

// extremes finds the largest id and timestamp in all records and logs.
func (c *collector) extremes(ctx context.Context) error {
	s := c.s
	region := func(r raftstate.Region) {
		c.maxID = max(c.maxID, r.ID)
		for _, p := range r.Peers {
			c.maxID = max(c.maxID, p.ID, p.StoreID)
		}
	}
	ph := base.Begin(s.FS, "reading the raft logs").Items(c.regions, "regions")
	defer ph.End()
	err := s.EachRegion(func(r scan.Region) error {
		if err := step(ctx, ph); err != nil {
			return err
		}
		c.regions++
		c.maxID = max(c.maxID, r.ID)
		region(r.State.Region)
		if m := r.State.MergeState; m != nil && m.Target != nil {
			region(*m.Target)
		}
		first, last, ok, err := s.Raft.Bounds(r.ID)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		err = s.Raft.Entries(r.ID, first, last+1, func(e raftstate.Entry) error {
			cmd, err := raftstate.Decode(e)
			if err != nil {
				return nil // told with the region
			}
			if a := cmd.Admin; a != nil {
				for _, ch := range a.Changes {
					c.maxID = max(c.maxID, ch.Peer.ID, ch.Peer.StoreID)
				}
				for _, sp := range a.Splits {
					c.maxID = max(c.maxID, sp.NewRegionID)
					for _, id := range sp.NewPeerIDs {
						c.maxID = max(c.maxID, id)
					}
				}
			}
			var sum plan.WriteSum
			for _, q := range cmd.Requests {
				addRequest(&sum, q)
			}
			c.maxTailTS = max(c.maxTailTS, sum.MaxCommitTS, sum.MaxStartTS)
			return nil
		})
		if errors.Is(err, base.ErrCorrupt) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	c.head.MaxID, c.head.MaxTailTS = c.maxID, c.maxTailTS
	return nil
}

// peer is the line of one region.
func (c *collector) peer(ctx context.Context, r scan.Region) (*plan.PeerReport, error) {
	s := c.s
	p := &plan.PeerReport{StoreID: s.Ident.StoreID, RegionID: r.ID, State: r.State.State, Region: r.State.Region, MergeState: r.State.MergeState, Bytes: c.bytes[r.ID]}
	raw, ok, err := s.Raft.RaftState(r.ID)
	if err != nil {
		return nil, err
	}
	var raft *raftstate.RaftLocalState
	if ok {
		st, err := raftstate.ParseRaftLocalState(raw)
		if err != nil {
			return nil, &base.Error{Class: base.ErrCorrupt, Op: "read raft state", Path: s.Layout.RaftDir, Offset: -1, Region: r.ID, Err: err, Next: "tikv-repair check " + s.Layout.Dir}
		}
		raft = &st
	} else {
		raw = nil
	}
	if p.FirstStored, p.LastStored, _, err = s.Raft.Bounds(r.ID); err != nil {
		return nil, err
	}
	p.Fingerprint = peerFingerprint(r, raw, p.FirstStored, p.LastStored)
	p.NoRaft, p.NoApply = raft == nil, r.Apply == nil
	if r.State.State == raftstate.Tombstone {
		p.Reason = "it is a tombstone"
		return p, nil
	}
	if !r.State.Region.Initialized() {
		p.Reason = "it was created by a message and has no range yet"
		return p, nil
	}
	if err := c.numbers(p, r, raft); err != nil {
		return nil, err
	}
	if err := c.rules(ctx, p, r, raft); err != nil {
		return nil, err
	}
	return p, c.log(p, r)
}

// peerFingerprint is the fingerprint of one region on this store.
func peerFingerprint(r scan.Region, raft []byte, first, last uint64) plan.Fingerprint {
	var apply []byte
	if r.Apply != nil {
		apply = r.Apply.Raw
	}
	return plan.RegionFingerprint(r.Raw, raft, apply, first, last)
}

func (c *collector) numbers(p *plan.PeerReport, r scan.Region, raft *raftstate.RaftLocalState) error {
	d := raftstate.Derive(raft, r.Apply)
	terms := &raftlog.Terms{Store: c.s.Raft, Region: r.ID}
	p.Truncated, p.Applied, p.Last, p.Commit, p.CommitTerm, p.HardTerm = d.Truncated, d.Applied, d.Last, d.Commit, d.CommitTerm, d.Term
	p.AppliedTerm, _ = d.TermOf(d.Applied, terms.Term)
	p.LastTerm, _ = d.TermOf(d.Last, terms.Term)
	if raft != nil {
		p.Vote, p.HardCommit = raft.HardState.Vote, raft.HardState.Commit
	}
	if terms.Err != nil && !errors.Is(terms.Err, base.ErrCorrupt) {
		return terms.Err
	}
	return nil
}

// rules says whether the peer may serve as the source of the region (repair-semantics.md 9.1).
func (c *collector) rules(ctx context.Context, p *plan.PeerReport, r scan.Region, raft *raftstate.RaftLocalState) error {
	vs, err := c.s.StartCheck(r, raft)
	if err != nil && !errors.Is(err, base.ErrCorrupt) {
		return err
	}
	for _, v := range vs {
		p.StartRules = append(p.StartRules, plan.StartRule{Rule: int(v.Rule), Consequence: v.Consequence.String(), Message: v.Message})
	}
	own, here := r.State.Region.PeerOn(c.s.Ident.StoreID)
	switch {
	case err != nil:
		p.Reason = "its raft log cannot be read: " + err.Error()
	case !here:
		p.Reason = "its own store is not among its peers"
	case own.IsWitness:
		p.Reason = "it is a witness and holds no data"
	case r.State.State == raftstate.Applying:
		p.Reason = "it waits for a snapshot to be applied"
		return c.snapshot(ctx, p, r)
	case r.State.State != raftstate.Normal && r.State.State != raftstate.Merging:
		p.Reason = "its state is " + r.State.State.String()
	case r.Apply == nil && raft != nil && raft.LastIndex > raftstate.InitLogIndex:
		p.Reason = "it has no apply state"
	default:
		p.Usable = true
	}
	return nil
}

// dataBytes spreads the sizes of the tables over the regions whose ranges they touch.
func dataBytes(s *scan.Store, at scan.RegionFinder) map[uint64]uint64 {
	out := map[uint64]uint64{}
	for _, name := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
		for _, f := range s.DB.CF(name).Files() {
			ids := at.Touching(f.Smallest.User, f.Largest.User)
			for _, id := range ids {
				out[id] += uint64(f.Size) / uint64(len(ids))
			}
		}
	}
	return out
}

// snapshot says whether what an Applying peer waits for is there.
func (c *collector) snapshot(ctx context.Context, p *plan.PeerReport, r scan.Region) error {
	key := raftstate.AppliedSnapshot(r.ID, r.Apply)
	p.Snapshot = &plan.SnapshotReport{Index: key.Index, Term: key.Term, Reason: "nothing of it is there"}
	all, err := c.s.Snapshots()
	if err != nil {
		return err
	}
	for _, sn := range all {
		if !sn.Received || sn.Key != key {
			continue
		}
		if p.Snapshot.Reason, err = sn.Incomplete(ctx, true, func(int64) {}); err != nil {
			return err
		}
		p.Snapshot.Complete = p.Snapshot.Reason == ""
	}
	return nil
}
