package edit

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// The last repair is the last one, whatever the plans are called and however fast they follow each other.
func TestListIsInTheOrderOfTime(t *testing.T) {
	fs := base.NewMem(vfs.NewMem())
	if err := fs.MkdirAll("/data", 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	want := []string{"tombstone-1", "cut-tail-2", "drop-peers-3", "apply-tail-4"}
	for i, id := range want {
		if _, err := Begin(fs, "/data", id, "test", nil, nil, began.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	txs, err := List(fs, "/data")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, tx := range txs {
		got = append(got, tx.J.PlanID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, begun as %v", got, want)
	}
}
