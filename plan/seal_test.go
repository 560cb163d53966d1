package plan

import (
	"bytes"
	"encoding/json"
	"testing"
)

// A sealed plan is whole however it is indented, and no byte of it can change unnoticed.
func TestSeal(t *testing.T) {
	p := &Plan{Format: PlanFormat, PlanID: "drop-peers-1", ClusterID: 7, FailedStores: []uint64{4, 5}, Stores: []StorePlan{{StoreID: 1}},
		Problems: Describe([]Problem{&UnknownSafePoint{}}), NextSteps: []string{"a <b> & c"}}
	if err := p.Seal(); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{plain, append(indented, '\n')} {
		if err := CheckSeal(b); err != nil {
			t.Error(err)
		}
	}
	for i := range plain {
		bad := bytes.Clone(plain)
		bad[i] ^= 0x01
		if CheckSeal(bad) == nil {
			t.Errorf("byte %d (%q) changed unnoticed", i, plain[i])
		}
	}
	again := *p
	if err := again.Seal(); err != nil || again.Hash != p.Hash {
		t.Errorf("sealed again: %v, %s after %s", err, again.Hash, p.Hash)
	}
}
