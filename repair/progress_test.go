package repair

import (
	"context"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// What a pass is said to need is what it has done in the end, and the tables to be written anew are announced once, before the first one.
func TestProgressEndsAtWhatIsNeeded(t *testing.T) {
	const second = mvcc.TS(1000) << 18
	rewritten, dropped := 0, 0
	for _, c := range []struct {
		name string
		back mvcc.TS
	}{{"single-levels", 1 * second}, {"single-levels", 5 * second}, {"single-levels", 30 * second}, {"single-default", 5 * second}} {
		for _, known := range []bool{true, false} {
			name := c.name
			s := openStore(t, base.NewMem(fixtures.Mem(t, name)), "/data")
			newest, err := s.NewestCommit()
			if err != nil {
				t.Fatal(err)
			}
			o := RewindOptions{T: newest - c.back, Now: time.Unix(1700000000, 0), Meter: new(scan.Meter)}
			if known {
				o.SafePoint = new(mvcc.TS)
			}
			ctx := context.Background()
			w, err := NewRewinder(ctx, s, o)
			if err != nil {
				t.Fatal(err)
			}
			e, err := w.logicalPass(ctx)
			if err != nil {
				t.Fatal(err)
			}
			w.o.Meter = new(scan.Meter)
			tables := w.setBytes()
			w.expect(tables)
			d, err := w.physicalPass(ctx, countingSink{}, e, nil)
			if err != nil {
				t.Fatal(err)
			}
			logs := int64(0)
			for _, cf := range s.DB.Names() {
				logs += s.DB.CF(cf).Log().Bytes()
			}
			need, done := w.o.Meter.Total.Load(), w.o.Meter.Done.Load()
			if need != done || need < tables || need > tables+logs+e.write.Used()+e.deflt.Used() {
				t.Errorf("%s, safe point known %v: %d of %d bytes; %d of tables, %d of logs", name, known, done, need, tables, logs)
			}
			if d.Rewritten+d.Dropped == 0 && tables > 0 {
				t.Errorf("%s: %d bytes of tables announced, none is written anew", name, tables)
			}
			rewritten, dropped = rewritten+d.Rewritten, dropped+d.Dropped
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if rewritten == 0 || dropped == 0 {
		t.Errorf("%d tables rewritten, %d dropped: the case is not there", rewritten, dropped)
	}
}
