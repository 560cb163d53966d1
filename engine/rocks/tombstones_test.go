package rocks

import (
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

func del(start, end string, seq uint64) ikey.RangeDel {
	return ikey.RangeDel{Start: []byte(start), End: []byte(end), Seq: seq}
}

// Overlapping tombstones: at each key the highest sequence counts, ends are exclusive.
func TestTombstonesCover(t *testing.T) {
	ts := newTombstones([]ikey.RangeDel{del("b", "f", 5), del("d", "h", 9), del("d", "e", 3)})
	for _, c := range []struct {
		key  string
		seq  uint64 // highest sequence that is hidden
		none bool
	}{
		{key: "a", none: true}, {key: "b", seq: 4}, {key: "c", seq: 4}, {key: "d", seq: 8}, {key: "dz", seq: 8}, {key: "f", seq: 8}, {key: "gz", seq: 8}, {key: "h", none: true},
	} {
		if c.none {
			if ts.covers([]byte(c.key), 0) {
				t.Errorf("%s: covered", c.key)
			}
			continue
		}
		if !ts.covers([]byte(c.key), c.seq) || ts.covers([]byte(c.key), c.seq+1) {
			t.Errorf("%s: not covered up to sequence %d exactly", c.key, c.seq)
		}
	}
	if (*tombstones)(nil).covers([]byte("a"), 0) {
		t.Error("no tombstones cover something")
	}
}
