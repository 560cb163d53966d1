package plan

import (
	"bytes"
	"reflect"
	"testing"
)

// No byte of a sealed plan can change unnoticed.
func TestSeal(t *testing.T) {
	p := &Plan{Format: PlanFormat, PlanID: "drop-peers-1", ClusterID: 7, FailedStores: []uint64{4, 5}, Stores: []StorePlan{{StoreID: 1}},
		NextSteps: []string{"a <b> & c"}}
	p.Seal()
	plain, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodePlan(plain); err != nil || !reflect.DeepEqual(got.Stores, p.Stores) {
		t.Error(err, got)
	}
	plain = bytes.TrimSpace(plain)
	for i := range plain {
		bad := bytes.Clone(plain)
		bad[i] ^= 0x01
		if _, err := DecodePlan(bad); err == nil {
			t.Errorf("byte %d (%q) changed unnoticed", i, plain[i])
		}
	}
	again := *p
	if again.Seal(); again.Hash != p.Hash {
		t.Errorf("sealed again: %s after %s", again.Hash, p.Hash)
	}
}
