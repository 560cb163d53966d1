package plan

import (
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// What a PD says of its safe point, of min-resolved-ts and of the last timestamp that it gave out decides which problems a rewind to T = 50 has.
func TestPlanAgainstPD(t *testing.T) {
	about := []string{"unknown-safe-point", "safe-point-above-t", "above-min-resolved", "pd-behind-store"}
	for _, c := range []struct {
		what      string
		pd        PDReport
		stated    mvcc.TS
		want      []string
		safePoint mvcc.TS
		never     bool
	}{
		{"PD knows none of it", PDReport{SafePointUnsure: true}, 0, about[:1], 0, false},
		{"the safe point is known", PDReport{SafePoint: 40}, 0, nil, 40, false},
		{"GC never ran", PDReport{GCNeverRan: true}, 0, nil, 0, true},
		{"a later safe point may be lost", PDReport{SafePoint: 40, SafePointUnsure: true}, 0, about[:1], 0, false},
		{"a later one may be lost, but the operator states one", PDReport{SafePoint: 40, SafePointUnsure: true}, 45, nil, 45, false},
		{"the operator states less than PD cannot vouch for", PDReport{SafePoint: 40, SafePointUnsure: true}, 30, nil, 40, false},
		{"a later one may be lost, and this one is above T already", PDReport{SafePoint: 51, SafePointUnsure: true}, 0, about[1:2], 0, false},
		{"the stated one is above T", PDReport{GCNeverRan: true}, 51, about[1:2], 51, false},
		{"T is what PD knew to be whole", PDReport{GCNeverRan: true, ConsistentTS: 50, DRState: "async"}, 0, nil, 0, true},
		{"T is later", PDReport{GCNeverRan: true, ConsistentTS: 49}, 0, about[2:3], 0, true},
		{"commits were asynchronous and nothing is known to be whole", PDReport{GCNeverRan: true, DRState: "async"}, 0, about[2:3], 0, true},
		{"the store has a commit that this PD cannot have stamped", PDReport{GCNeverRan: true, TSO: 60}, 0, about[3:4], 0, true},
		{"the store's newest commit is below the end of PD's window", PDReport{GCNeverRan: true, TSO: 61}, 0, nil, 0, true},
	} {
		c.pd.ClusterID = 1
		s := &StoreReport{ClusterID: 1, StoreID: 1, Engine: EngineV1, APIVersion: "V1", ToTS: 50, NewestCommit: 60}
		p, problems := Make(Input{Stores: []*StoreReport{s}, PD: []*PDReport{&c.pd}}, Options{ToTS: 50, SafePoint: c.stated})
		if p == nil {
			t.Fatalf("%s: no plan: %v", c.what, problems)
		}
		var got []string
		for _, pr := range problems {
			if slices.Contains(about, pr.Name()) {
				got = append(got, pr.Name())
			}
		}
		if !slices.Equal(got, c.want) || p.GCNeverRan != c.never {
			t.Errorf("%s: %v, want %v; GC never ran: %v", c.what, got, c.want, p.GCNeverRan)
		}
		if len(c.want) == 0 && p.SafePoint != c.safePoint {
			t.Errorf("%s: safe point %s, want %s", c.what, p.SafePoint, c.safePoint)
		}
	}
	// Without a rewind only the age of PD's directory matters.
	s := &StoreReport{ClusterID: 1, StoreID: 1, Engine: EngineV1, APIVersion: "V1", NewestCommit: 60}
	_, problems := Make(Input{Stores: []*StoreReport{s}, PD: []*PDReport{{ClusterID: 1, TSO: 60, SafePoint: 70, DRState: "async"}}}, Options{})
	if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Name() == "pd-behind-store" }) || slices.ContainsFunc(problems, func(p Problem) bool { return p.Name() == "above-min-resolved" || p.Name() == "safe-point-above-t" }) {
		t.Errorf("%v", problems)
	}
}
