package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// The stories of testdata/stories. Each case is a cluster after an accident, and the plan for it.
//
//	plan [failed=(2,3)] [tiflash=4] [keep=winner] [hole-fill=stale] [to-ts=50] [safe-point=40] [winner=REGION@STORE] [tombstone=REGION@STORE]
//	     [recreate=REGION] [alloc=1000] [verbose]
//	pd [alloc=1000] [tso=99]                               what a PD directory knew; regions of it follow
//	  region 4 [a,m) CONF:VERSION PEERS
//	store 1 [max-id=9]                                     a report; its peers follow
//	  region 4 [a,m) CONF:VERSION PEERS | STATE | NUMBERS | LOG
//	  lock KEY start=10 primary=KEY [min=12] [async] [second=KEY,KEY] [at=INDEX]
//	  answer KEY start=10 commit=20 | rollback | nothing | away
//
// PEERS are id@store, with /L, /I, /D for learners, incoming and demoting voters, /W for witnesses. STATE is normal, merging(TARGET), applying,
// broken-snapshot, unavailable, tombstone, merged(TARGET), broken(WHY) or stops(RULE). NUMBERS are a= applied, l= last, c= commit, t= truncated,
// term= of the hard state, bytes=. LOG is a list of INDEX or FIRST-LAST, an optional :TERM, what it is, an optional ^CONF:VERSION:
// w, w@COMMIT, w@MIN..MAX writes; p@START a prewrite; e empty; split(KEY:REGION:PEER/PEER), cc(+ID@STORE or -ID@STORE,...), pm(REGION),
// cm(REGION:[a,m):CONF:VERSION:COMMIT), rm, compact, verify(INDEX), in an ingest, lost one whose file is missing, bad, gone.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			in, opt, err := parseStory(d)
			if err != nil {
				d.Fatalf(t, "%v", err)
			}
			p, problems := Make(in, opt)
			if p == nil {
				return tell(nil, problems, false)
			}
			for _, v := range Check(in, p) {
				t.Errorf("%s: %s", d.Pos, v)
			}
			again := in
			again.Peers = slices.Clone(in.Peers)
			slices.Reverse(again.Peers)
			again.Stores = slices.Clone(in.Stores)
			slices.Reverse(again.Stores)
			if q, _ := Make(again, opt); q.Hash != p.Hash {
				t.Errorf("%s: the plan depends on the order of the reports", d.Pos)
			}
			b, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if q, err := DecodePlan(b); err != nil || q.Hash != p.Hash {
				t.Errorf("%s: %v", d.Pos, err)
			} else if c, _ := q.Encode(); string(c) != string(b) {
				t.Errorf("%s: a plan changes when it is read and written", d.Pos)
			}
			return tell(p, problems, d.HasArg("verbose"))
		})
	})
}

// tell gives a plan in the words of a story.
func tell(p *Plan, problems []Problem, verbose bool) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if p != nil {
		for _, r := range p.Regions {
			loss := string(r.Loss.Certainty)
			say("region %d %s: %s", r.ID, r.Decision, r.Reason)
			if len(r.New.Peers) > 0 && len(r.KeptStores) > 0 {
				say("  -> %s; winner store %d; loss %s", regionText(r.New), r.WinnerStore, loss)
			} else {
				say("  -> gone; loss %s", loss)
			}
			for _, e := range r.Loss.Entries {
				say("  lost %d-%d of store %d: %s", e.First, e.Last, e.StoreID, e.Why)
			}
			for _, n := range r.Loss.Notes {
				say("  note: %s", n)
			}
			for _, s := range r.Survivors {
				if !s.Kept && s.Why != "" {
					say("  store %d: %s", s.StoreID, s.Why)
				}
			}
		}
		for _, s := range p.Stores {
			for _, a := range s.Actions {
				text := fmt.Sprintf("store %d: %s %d", s.StoreID, a.Kind, a.RegionID)
				if a.Apply != nil {
					text += fmt.Sprintf(", apply %d..%d", a.Apply.From, a.Apply.To)
					for _, x := range a.Apply.Admin {
						text += fmt.Sprintf(" (%s at %d gives version %d)", x.Type, x.Index, x.Version)
					}
					if a.Apply.CarriedFrom != 0 {
						text += fmt.Sprintf(", entries above %d carried here", a.Apply.CarriedFrom)
					}
				}
				if a.Kind == ActionRewrite {
					text += fmt.Sprintf(", %s: applied %d, last %d, commit %d, term %d", a.Tail, a.New.Applied, a.New.Last, a.New.Commit, a.New.Term)
				}
				if a.DeleteData {
					text += ", empty"
				}
				if a.KeepMergeState {
					text += ", merged"
				}
				say("%s", text)
			}
		}
		for _, v := range p.Txns {
			say("transaction %s primary %s: %s%s: %s", v.Txn.StartTS, v.Txn.Primary, v.Outcome, at(v.CommitTS), v.Reason)
		}
		for _, q := range p.Questions {
			say("question %s to stores %v", q.ID, q.Stores)
		}
		s := p.Summary
		say("healthy %d, tombstones %d, floors: id %d, tso %s", s.Healthy, s.Tombstoned, p.Floors.AllocID, p.Floors.TSO)
	}
	for _, x := range problems {
		say("%s %s [%s]: %s", x.Severity(), x.Name(), x.Where(), x.What())
	}
	if verbose && p != nil {
		for _, st := range p.Stages {
			say("stage %s: %s", st.Name, st.Info)
			for _, id := range p.Stores {
				name := fmt.Sprintf("store %d", id.StoreID)
				for _, l := range st.Actions[name] {
					say("  %s: %s", name, l)
				}
			}
			for _, l := range st.Details {
				say("  %s", l)
			}
		}
		for i, n := range p.NextSteps {
			say("next %d: %s", i+1, n)
		}
	}
	return b.String()
}

func at(ts mvcc.TS) string {
	if ts == 0 {
		return ""
	}
	return " at " + ts.String()
}

func regionText(r raftstate.Region) string {
	var ps []string
	for _, p := range r.Peers {
		s := fmt.Sprintf("%d@%d", p.ID, p.StoreID)
		if p.Role != raftstate.Voter {
			s += "/" + p.Role.String()[:1]
		}
		ps = append(ps, s)
	}
	return fmt.Sprintf("[%s,%s) %d:%d %s", string(r.StartKey), string(r.EndKey), r.Epoch.ConfVer, r.Epoch.Version, strings.Join(ps, ","))
}

type storyParser struct {
	in    Input
	opt   Options
	store *StoreReport
	pd    *PDReport
}

func parseStory(d *datadriven.TestData) (Input, Options, error) {
	s := &storyParser{opt: Options{PlanID: "p1", Tool: "test", Made: "2026-01-02T03:04:05Z", Winners: map[uint64]uint64{}}}
	for _, a := range d.CmdArgs {
		for _, v := range append([]string{""}, a.Vals...) {
			if v == "" && len(a.Vals) > 0 {
				continue
			}
			n, _ := strconv.ParseUint(v, 10, 64)
			var rs RegionStore
			if strings.Contains(v, "@") {
				if _, err := fmt.Sscanf(v, "%d@%d", &rs.Region, &rs.Store); err != nil {
					return s.in, s.opt, err
				}
			}
			switch a.Key {
			case "failed":
				s.opt.FailedStores = append(s.opt.FailedStores, n)
			case "tiflash":
				s.opt.TiFlashStores = append(s.opt.TiFlashStores, n)
			case "keep":
				s.opt.Keep = v
			case "hole-fill":
				s.opt.HoleFill = v
			case "to-ts":
				s.opt.ToTS = mvcc.TS(n)
			case "safe-point":
				s.opt.SafePoint = mvcc.TS(n)
			case "alloc":
				s.opt.AllocID = n
			case "winner":
				s.opt.Winners[rs.Region] = rs.Store
			case "tombstone":
				s.opt.Tombstones = append(s.opt.Tombstones, rs)
			case "recreate":
				s.opt.Recreate = append(s.opt.Recreate, n)
			case "force":
				s.opt.Forced = append(s.opt.Forced, v)
			case "verbose":
			default:
				return s.in, s.opt, fmt.Errorf("unknown option %q", a.Key)
			}
		}
	}
	for _, line := range strings.Split(d.Input, "\n") {
		if i := strings.Index(line, "#"); i >= 0 {
			line = line[:i]
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := s.line(line); err != nil {
			return s.in, s.opt, fmt.Errorf("%s: %w", line, err)
		}
	}
	return s.in, s.opt, nil
}

func pairs(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

func num(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%q is no number", s))
	}
	return n
}

func (s *storyParser) line(line string) error {
	w := strings.Fields(line)
	switch w[0] {
	case "pd":
		s.store, s.pd = nil, &PDReport{ClusterID: 1}
		for k, v := range pairs(w[1:]) {
			switch k {
			case "alloc":
				s.pd.AllocID = num(v)
			case "tso":
				s.pd.TSO = mvcc.TS(num(v))
			case "safe-point":
				s.pd.SafePoint = mvcc.TS(num(v))
			}
		}
		s.in.PD = append(s.in.PD, s.pd)
	case "store":
		id := num(w[1])
		s.store = &StoreReport{ClusterID: 1, StoreID: id, Engine: EngineV1, APIVersion: "V1", ToTS: s.opt.ToTS, Fingerprint: FingerprintOf([]byte(w[1]))}
		for k, v := range pairs(w[2:]) {
			switch k {
			case "max-id":
				s.store.MaxID = num(v)
			case "cluster":
				s.store.ClusterID = num(v)
			case "newest":
				s.store.NewestCommit = mvcc.TS(num(v))
			}
		}
		s.in.Stores = append(s.in.Stores, s.store)
	case "region":
		if s.store == nil {
			r, _, err := parseRegion(w[1:])
			s.pd.Regions = append(s.pd.Regions, r)
			return err
		}
		return s.peer(line)
	case "lock":
		l := &LockReport{StoreID: s.store.StoreID, Key: raftstate.Key(w[1]), Type: "P"}
		for k, v := range pairs(w[2:]) {
			switch k {
			case "start":
				l.StartTS = mvcc.TS(num(v))
			case "min":
				l.MinCommitTS = mvcc.TS(num(v))
			case "primary":
				l.Primary = raftstate.Key(v)
			case "async":
				l.AsyncCommit = true
			case "at":
				l.Index = num(v)
			case "region":
				l.RegionID = num(v)
			case "second":
				for _, x := range strings.Split(v, ",") {
					l.Secondaries = append(l.Secondaries, raftstate.Key(x))
				}
			}
		}
		s.in.Locks = append(s.in.Locks, l)
	case "answer":
		m := pairs(w[2:])
		start := mvcc.TS(num(m["start"]))
		a := &Answer{StoreID: s.store.StoreID, Fingerprint: s.store.Fingerprint, Question: fmt.Sprintf("key-%s-%s", raftstate.Key(w[1]), start), Here: true}
		switch {
		case m["commit"] != "":
			a.Facts = []KeyFact{{Commit: &CommitFact{CommitTS: mvcc.TS(num(m["commit"])), Type: "P"}}}
		case slices.Contains(w, "rollback"):
			a.Facts = []KeyFact{{Rollback: true}}
		case slices.Contains(w, "away"):
			a.Here = false
		}
		s.in.Answers = append(s.in.Answers, a)
	case "entries": // entries REGION FROM TO term: the answer to a question about entries
		a := &Answer{StoreID: s.store.StoreID, Fingerprint: s.store.Fingerprint, Question: fmt.Sprintf("entries-%s-%s-%s", w[1], w[2], w[3]), Here: true}
		for i := num(w[2]) + 1; i <= num(w[3]); i++ {
			a.Entries = append(a.Entries, CarriedEntry{Index: i, Term: num(w[4]), Raw: []byte{1}})
		}
		s.in.Answers = append(s.in.Answers, a)
	default:
		return fmt.Errorf("unknown line")
	}
	return nil
}

func parseRegion(w []string) (raftstate.Region, []string, error) {
	r := raftstate.Region{ID: num(w[0])}
	var start, end string
	start, end, _ = strings.Cut(strings.Trim(w[1], "[)"), ",")
	r.StartKey, r.EndKey = raftstate.Key(start), raftstate.Key(end)
	if start == "" {
		r.StartKey = nil
	}
	if end == "" {
		r.EndKey = nil
	}
	r.Epoch = parseEpoch(w[2])
	for _, p := range strings.Split(w[3], ",") {
		id, role, _ := strings.Cut(p, "/")
		var q raftstate.Peer
		if _, err := fmt.Sscanf(id, "%d@%d", &q.ID, &q.StoreID); err != nil {
			return r, nil, err
		}
		switch role {
		case "L":
			q.Role = raftstate.Learner
		case "I":
			q.Role = raftstate.IncomingVoter
		case "D":
			q.Role = raftstate.DemotingVoter
		case "W":
			q.IsWitness = true
		}
		r.Peers = append(r.Peers, q)
	}
	return r, w[4:], nil
}

func parseEpoch(s string) (e raftstate.Epoch) {
	c, v, _ := strings.Cut(s, ":")
	e.ConfVer, e.Version = num(c), num(v)
	return e
}

// peer reads a line about a peer of a store.
func (s *storyParser) peer(line string) error {
	parts := strings.Split(line, "|")
	for len(parts) < 4 {
		parts = append(parts, "")
	}
	r, _, err := parseRegion(strings.Fields(parts[0])[1:])
	if err != nil {
		return err
	}
	p := &PeerReport{StoreID: s.store.StoreID, RegionID: r.ID, Region: r, Usable: true, Bytes: 1000, Fingerprint: FingerprintOf([]byte(fmt.Sprint(s.store.StoreID, r.ID)))}
	state, arg, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(parts[1]), ")"), "(")
	switch state {
	case "", "normal":
	case "merging":
		p.State, p.MergeState = raftstate.Merging, &raftstate.MergeState{Target: &raftstate.Region{ID: num(arg)}}
	case "merged":
		p.State, p.MergeState, p.Usable = raftstate.Tombstone, &raftstate.MergeState{Target: &raftstate.Region{ID: num(arg)}}, false
	case "tombstone":
		p.State, p.Usable = raftstate.Tombstone, false
	case "applying":
		p.State, p.Usable, p.Reason, p.Snapshot = raftstate.Applying, false, "a snapshot is half applied", &SnapshotReport{Complete: true}
	case "broken-snapshot":
		p.State, p.Usable, p.Reason, p.Snapshot = raftstate.Applying, false, "a snapshot is half applied and its files are gone", &SnapshotReport{}
	case "unavailable":
		p.State, p.Usable, p.Reason = raftstate.Unavailable, false, "a former witness without data"
	case "broken":
		p.Usable, p.Reason = false, arg
	case "stops":
		p.StartRules = []StartRule{{Rule: 3, Consequence: "stops-start", Message: arg}}
	default:
		return fmt.Errorf("unknown state %q", state)
	}
	if own, ok := r.PeerOn(p.StoreID); ok && own.IsWitness {
		p.Usable, p.Reason = false, "a witness has no data"
	}
	p.Truncated = raftstate.TruncatedState{Index: 5, Term: 5}
	p.Applied, p.HardTerm, p.AppliedTerm = 5, 6, 0
	n := pairs(strings.Fields(parts[2]))
	for k, v := range n {
		switch k {
		case "a":
			p.Applied = num(v)
		case "t":
			p.Truncated.Index = num(v)
			if p.Truncated.Index > 5 {
				p.Truncated.Term = 6
			}
		case "term":
			p.HardTerm = num(v)
		case "aterm":
			p.AppliedTerm = num(v)
		case "bytes":
			p.Bytes = num(v)
		}
	}
	if err := p.storyLog(parts[3]); err != nil {
		return err
	}
	p.Last = max(p.Truncated.Index, p.Last)
	if n["l"] != "" {
		p.Last = num(n["l"])
	}
	p.Commit = min(p.Applied, max(p.Last, p.Applied))
	if n["c"] != "" {
		p.Commit = num(n["c"])
	}
	p.HardCommit = min(p.Commit, p.Last)
	if t, ok := p.termAt(p.Last); ok {
		p.LastTerm = t
	}
	if t, ok := p.termAt(p.Applied); ok {
		p.AppliedTerm = t
	}
	p.CommitTerm = p.AppliedTerm
	p.HardTerm = max(p.HardTerm, p.LastTerm)
	s.in.Peers = append(s.in.Peers, p)
	return nil
}

// storyLog reads the log. Numbers that are not given are filled up: everything from truncated to the first entry is writes of no account.
func (p *PeerReport) storyLog(text string) error {
	for _, w := range strings.Fields(text) {
		g := LogGroup{Term: 6, Epoch: p.Region.Epoch}
		w, epoch, ok := strings.Cut(w, "^")
		if ok {
			g.Epoch = parseEpoch(epoch)
		}
		i := strings.IndexFunc(w, func(r rune) bool { return !strings.ContainsRune("0123456789-:", r) })
		index, what := w[:i], w[i:]
		index, term, ok := strings.Cut(index, ":")
		if ok {
			g.Term = num(term)
		}
		first, last, ok := strings.Cut(index, "-")
		g.First = num(first)
		if g.Last = g.First; ok {
			g.Last = num(last)
		}
		what, arg, _ := strings.Cut(strings.TrimSuffix(what, ")"), "(")
		if err := storyEntry(&g, what, arg); err != nil {
			return err
		}
		p.Log = append(p.Log, g)
		p.Last = max(p.Last, g.Last)
	}
	return nil
}

func storyEntry(g *LogGroup, what, arg string) error {
	what, ts, _ := strings.Cut(what, "@")
	g.Kind = GroupAdmin
	switch what {
	case "w":
		g.Kind, g.Write = GroupWrite, &WriteSum{Records: g.Entries(), Versions: g.Entries(), MinCommitTS: 1000, MaxCommitTS: 1000}
		if ts != "" {
			lo, hi, ok := strings.Cut(ts, "..")
			if !ok {
				hi = lo
			}
			g.Write.MinCommitTS, g.Write.MaxCommitTS = mvcc.TS(num(lo)), mvcc.TS(num(hi))
		}
	case "p":
		g.Kind, g.Write = GroupWrite, &WriteSum{Records: g.Entries(), MinStartTS: mvcc.TS(num(ts)), MaxStartTS: mvcc.TS(num(ts))}
	case "e":
		g.Kind, g.Epoch = GroupEmpty, raftstate.Epoch{}
	case "in":
		g.Kind, g.Write = GroupWrite, &WriteSum{Ingests: 1}
	case "lost":
		g.Kind, g.Blocked, g.StopsTiKV = GroupWrite, "it ingests a file that is not in import/", true
	case "bad":
		g.Kind, g.Blocked, g.StopsTiKV = GroupOpaque, "it does not decode", true
	case "gone":
		g.Kind, g.Term = GroupMissing, 0
	case "split":
		f := strings.Split(arg, ":")
		s := raftstate.Split{Key: raftstate.Key(f[0]), NewRegionID: num(f[1])}
		for _, id := range strings.Split(f[2], "/") {
			s.NewPeerIDs = append(s.NewPeerIDs, num(id))
		}
		g.Admin = &raftstate.Admin{Type: raftstate.AdminBatchSplit, Splits: []raftstate.Split{s}}
	case "cc":
		g.Kind, g.Admin = GroupConfChange, &raftstate.Admin{Type: raftstate.AdminChangePeerV2}
		for _, c := range strings.Split(arg, ",") {
			var q raftstate.Peer
			if _, err := fmt.Sscanf(c[1:], "%d@%d", &q.ID, &q.StoreID); err != nil {
				return err
			}
			g.Admin.Changes = append(g.Admin.Changes, raftstate.PeerChange{Type: map[byte]string{'+': "AddNode", '-': "RemoveNode", '~': "AddLearnerNode"}[c[0]], Peer: q})
		}
	case "pm":
		g.Admin = &raftstate.Admin{Type: raftstate.AdminPrepareMerge, Target: &raftstate.Region{ID: num(arg)}}
	case "cm":
		f := strings.SplitN(arg, ":", 5)
		start, end, _ := strings.Cut(strings.Trim(f[1], "[)"), ",")
		src := raftstate.Region{ID: num(f[0]), StartKey: raftstate.Key(start), EndKey: raftstate.Key(end), Epoch: raftstate.Epoch{ConfVer: num(f[2]), Version: num(f[3])}}
		g.Admin = &raftstate.Admin{Type: raftstate.AdminCommitMerge, Source: &src, Commit: num(f[4])}
	case "rm":
		g.Admin = &raftstate.Admin{Type: raftstate.AdminRollbackMerge}
	case "compact":
		g.Admin = &raftstate.Admin{Type: raftstate.AdminCompactLog}
	case "verify":
		g.Admin = &raftstate.Admin{Type: raftstate.AdminVerifyHash, HashIndex: num(arg)}
	default:
		return fmt.Errorf("unknown entry %q", what)
	}
	return nil
}
