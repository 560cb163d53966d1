package plan

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// exampleLines is a report with each kind of line.
func exampleLines() []any {
	region := raftstate.Region{ID: 4, StartKey: raftstate.Key("a"), EndKey: raftstate.Key("m"), Epoch: raftstate.Epoch{ConfVer: 5, Version: 2},
		Peers: []raftstate.Peer{{ID: 5, StoreID: 1}, {ID: 6, StoreID: 2, Role: raftstate.Learner}}}
	return []any{
		&PDReport{Tool: "t", ClusterID: 7, SafePoint: 3, TSO: 1 << 60, AllocID: 1000, Regions: []raftstate.Region{region},
			Stores: []PDStore{{ID: 1, State: "Up", Labels: map[string]string{"zone": "east"}}}, DRState: "async"},
		&StoreReport{Tool: "t", ClusterID: 7, StoreID: 1, APIVersion: "V1", Engine: EngineV1, RaftStore: "raftdb", Fingerprint: FingerprintOf([]byte("x")),
			NewestCommit: 1<<63 + 1, MaxID: 6, ToTS: 9, Problems: []Finding{{Name: "panic-mark", Severity: Error, What: "w", Details: []byte(`{"store_id":9007199254740993}`)}}},
		&PeerReport{StoreID: 1, RegionID: 4, Fingerprint: RegionFingerprint([]byte("r"), nil, []byte("a"), 6, 9), State: raftstate.Merging, Region: region,
			MergeState: &raftstate.MergeState{MinIndex: 6, Commit: 8, Target: &region}, Usable: true,
			RaftNumbers: RaftNumbers{Truncated: raftstate.TruncatedState{Index: 5, Term: 5}, Applied: 8, AppliedTerm: 6, Last: 9, LastTerm: 6, Commit: 9, HardTerm: 7},
			Log: []LogGroup{
				{First: 6, Last: 7, Term: 6, Kind: GroupWrite, Epoch: region.Epoch, Write: &WriteSum{Records: 4, Versions: 2, MinCommitTS: 5, MaxCommitTS: 1<<60 + 1}},
				{First: 8, Last: 8, Term: 6, Kind: GroupAdmin, Epoch: region.Epoch, Admin: &raftstate.Admin{Type: raftstate.AdminPrepareMerge, MinIndex: 6, Target: &region}},
				{First: 9, Last: 9, Term: 6, Kind: GroupEmpty},
			}},
		&LockReport{StoreID: 1, RegionID: 4, Key: raftstate.Key("k"), Type: "P", Primary: raftstate.Key("p"), StartTS: mvcc.TS(8), AsyncCommit: true,
			Secondaries: []raftstate.Key{raftstate.Key("k")}},
		&Answer{StoreID: 1, Question: "q1", PlanID: "p", RegionID: 4, Here: true, Facts: []KeyFact{{Commit: &CommitFact{CommitTS: 9, Type: "P"}}},
			Entries: []CarriedEntry{{Index: 9, Term: 6, Raw: []byte{1, 2}}}},
		&EndReport{StoreID: 1, Regions: 1, Locks: 1, Answers: 1},
	}
}

func TestReportLinesRoundTrip(t *testing.T) {
	var in Input
	var text strings.Builder
	for _, v := range exampleLines() {
		b, err := MarshalLine(v)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
		if err := in.Add(b); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	want := exampleLines()
	for _, v := range want {
		if _, err := MarshalLine(v); err != nil { // fills kind and format in
			t.Fatal(err)
		}
	}
	got := []any{in.PD[0], in.Stores[0], in.Peers[0], in.Locks[0], in.Answers[0], want[5]}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if strings.Contains(text.String(), "11529215046068469") && !strings.Contains(text.String(), `"1152921504606846977"`) {
		t.Error("a timestamp is a JSON number")
	}
}

func TestReportThatIsNotWhole(t *testing.T) {
	var lines []string
	for _, v := range exampleLines()[1:] {
		b, err := MarshalLine(v)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(b))
	}
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"no end", lines[:4], "has no end"},
		{"one region lost", append([]string{lines[0]}, lines[2:]...), "it is not whole"},
		{"no head", lines[1:], `before the "store" line`},
		{"two heads", []string{lines[0], lines[0]}, "begins before its end"},
		{"another store's region", []string{lines[0], strings.Replace(lines[1], `"store_id":1`, `"store_id":2`, 1)}, "a region of store 2"},
		{"another format", []string{strings.Replace(lines[0], `"format":1`, `"format":2`, 1)}, "format 2"},
		{"unknown kind", []string{lines[0], `{"kind":"weather"}`}, `unknown kind of line "weather"`},
		{"no JSON", []string{"hello"}, "not a line of a report"},
	} {
		var in Input
		var err error
		for _, l := range c.lines {
			if err = in.Add([]byte(l)); err != nil {
				break
			}
		}
		if err == nil {
			err = in.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
