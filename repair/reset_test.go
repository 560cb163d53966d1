package repair_test

import (
	"context"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func TestTry(t *testing.T) {
	for _, name := range []string{"single-default", "single-levels", "single-lz4-ranges", "single-titan", "single-raftdb", "single-clean-stop", "raw-v2"} {
		for tss := range fixtures.Expect(t, name) {
			ts, err := mvcc.ParseTS(tss)
			if err != nil {
				continue
			}
			fs := base.NewMem(fixtures.Mem(t, name))
			sp := mvcc.TS(1)
			res, err := repair.Reset(context.Background(), fs, "/data", scan.Options{}, repair.ResetOptions{
				RewindOptions: repair.RewindOptions{T: mvcc.TS(ts), SafePoint: &sp, Now: time.Unix(1700000000, 0)}, Say: t.Logf})
			t.Logf("%s %d: %+v %v", name, ts, res, err)
		}
	}
}
