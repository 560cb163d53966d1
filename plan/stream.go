package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Input is what a plan is made from: the reports of all surviving stores, of PD directories, and the answers to an earlier plan. Fill it
// line by line with Add; the order of reports does not matter.
type Input struct {
	Stores  []*StoreReport
	Peers   []*PeerReport
	Locks   []*LockReport
	Answers []*Answer
	PD      []*PDReport

	open   *StoreReport // whose report is being read
	counts EndReport
	shared map[uint64]*PeerReport // by region id: the peer that equal ones share memory with
}

// MarshalLine encodes one of StoreReport, PeerReport, LockReport, Answer, PDReport, EndReport (or a pointer to it) as a line, the newline
// included. Kind and format are filled in.
func MarshalLine(v any) ([]byte, error) {
	switch x := v.(type) {
	case *StoreReport:
		x.Kind, x.Format = LineStore, ReportFormat
	case *PeerReport:
		b, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}
		return append(append([]byte(`{"kind":"`+LineRegion+`",`), b[1:]...), '\n'), nil
	case *LockReport:
		x.Kind = LineLock
	case *Answer:
		x.Kind = LineAnswer
	case *PDReport:
		x.Kind, x.Format = LinePD, ReportFormat
	case *EndReport:
		x.Kind = LineEnd
	default:
		return nil, fmt.Errorf("a report has no line for %T", v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// lineKind reads the kind of a line: MarshalLine puts it first.
func lineKind(b []byte) (string, error) {
	for _, k := range []string{LineRegion, LineLock, LineStore, LineAnswer, LinePD, LineEnd} {
		if bytes.HasPrefix(b, []byte(`{"kind":"`+k+`"`)) {
			return k, nil
		}
	}
	var l struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return "", err
	}
	return l.Kind, nil
}

// Add takes the next line of a report. Blank lines are passed over. An error says what is wrong with the line; the caller adds file and
// line number.
func (in *Input) Add(line []byte) error {
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return nil
	}
	kind, err := lineKind(line)
	if err != nil {
		return fmt.Errorf("not a line of a report: %w", err)
	}
	if kind != LineStore && kind != LinePD && in.open == nil {
		return fmt.Errorf("a %q line before the \"store\" line that it belongs to", kind)
	}
	switch kind {
	case LineStore:
		s := new(StoreReport)
		if err := json.Unmarshal(line, s); err != nil {
			return err
		}
		if s.Format != ReportFormat {
			return fmt.Errorf("the report of store %d has format %d, this version reads %d: collect again with this version", s.StoreID, s.Format, ReportFormat)
		}
		if in.open != nil {
			return fmt.Errorf("the report of store %d is not whole: the report of store %d begins before its end", in.open.StoreID, s.StoreID)
		}
		s.Kind = LineStore
		in.open, in.counts = s, EndReport{StoreID: s.StoreID}
		if s.Answers == "" {
			in.Stores = append(in.Stores, s)
		}
	case LineRegion:
		p := new(PeerReport)
		if err := json.Unmarshal(line, p); err != nil {
			return err
		}
		in.counts.Regions++
		in.share(p)
		in.Peers = append(in.Peers, p)
		return in.own("region", p.StoreID)
	case LineLock:
		l := new(LockReport)
		if err := json.Unmarshal(line, l); err != nil {
			return err
		}
		in.counts.Locks++
		in.Locks = append(in.Locks, l)
		return in.own("lock", l.StoreID)
	case LineAnswer:
		a := new(Answer)
		if err := json.Unmarshal(line, a); err != nil {
			return err
		}
		in.counts.Answers++
		in.Answers = append(in.Answers, a)
		return in.own("answer", a.StoreID)
	case LinePD:
		p := new(PDReport)
		if err := json.Unmarshal(line, p); err != nil {
			return err
		}
		if p.Format != ReportFormat {
			return fmt.Errorf("the report of PD has format %d, this version reads %d: collect again with this version", p.Format, ReportFormat)
		}
		in.PD = append(in.PD, p)
	case LineEnd:
		e := EndReport{}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		want := in.counts
		want.Kind = e.Kind
		if e != want {
			return fmt.Errorf("the report of store %d has %d regions, %d locks and %d answers, its end says %d, %d and %d: it is not whole, collect again",
				in.counts.StoreID, in.counts.Regions, in.counts.Locks, in.counts.Answers, e.Regions, e.Locks, e.Answers)
		}
		in.open = nil
	default:
		return fmt.Errorf("unknown kind of line %q: the report is of a newer version", kind)
	}
	return nil
}

// own demands that a line is about the store whose report is being read.
func (in *Input) own(what string, store uint64) error {
	if store != in.open.StoreID {
		return fmt.Errorf("a %s of store %d in the report of store %d", what, store, in.open.StoreID)
	}
	return nil
}

// Close tells whether the last report was whole.
func (in *Input) Close() error {
	if in.open != nil {
		return fmt.Errorf("the report of store %d has no end: it is not whole, collect again", in.open.StoreID)
	}
	in.shared = nil
	return nil
}

// share lets equal descriptors and logs of one region have one copy, and forgets what a plan without a rewind does not look at: three
// replicas of a million regions fit into memory.
func (in *Input) share(p *PeerReport) {
	if in.open != nil && in.open.ToTS == 0 {
		for i := range p.Log {
			if g := &p.Log[i]; g.Last <= p.Applied && g.Write != nil && g.Write.Ingests == 0 {
				g.Write = nil
			}
		}
	}
	if in.shared == nil {
		in.shared = make(map[uint64]*PeerReport)
	}
	old := in.shared[p.RegionID]
	if old == nil {
		in.shared[p.RegionID] = p
		return
	}
	r, o := &p.Region, &old.Region
	if bytes.Equal(o.StartKey, r.StartKey) {
		r.StartKey = o.StartKey
	}
	if bytes.Equal(o.EndKey, r.EndKey) {
		r.EndKey = o.EndKey
	}
	if samePeers(o.Peers, r.Peers) {
		r.Peers = o.Peers
	}
	if slices.Equal(p.Log, old.Log) { // groups with a pointer in them differ
		p.Log = old.Log
	}
}

func samePeers(a, b []raftstate.Peer) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
