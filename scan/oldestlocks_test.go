package scan

import (
	"fmt"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// What does not fit goes by whole transactions, the youngest first; where one transaction is too large, only what is older is left.
func TestOldestLocks(t *testing.T) {
	for _, c := range []struct {
		starts []mvcc.TS // of one lock each
		most   int
		kept   int
		cut    mvcc.TS
	}{
		{[]mvcc.TS{5, 6, 7}, 3, 3, 0},
		{[]mvcc.TS{5, 6, 7, 8}, 0, 4, 0},
		{[]mvcc.TS{8, 5, 7, 6, 9}, 4, 2, 7},
		{[]mvcc.TS{8, 5, 7, 6, 9, 4, 3, 10}, 4, 4, 7},
		{[]mvcc.TS{5, 6, 6, 6, 6, 6, 5}, 4, 2, 6},
		{[]mvcc.TS{5, 5, 5, 5, 5, 5}, 4, 0, 5},
	} {
		o := oldestLocks{most: c.most}
		for i, start := range c.starts {
			l := mvcc.Lock{Type: mvcc.LockPut, Primary: []byte("p"), StartTS: start}
			if err := o.add(LockAt{User: fmt.Appendf(nil, "k%d", i), Raw: l.Append(nil)}); err != nil {
				t.Fatal(err)
			}
		}
		if len(o.locks) != c.kept || o.cut != c.cut {
			t.Errorf("%v, at most %d: %d kept, cut %d; want %d, %d", c.starts, c.most, len(o.locks), o.cut, c.kept, c.cut)
		}
	}
}
