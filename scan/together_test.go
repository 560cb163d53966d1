package scan_test

import (
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/raft_serverpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func together(r ...*scan.CheckResult) *scan.Together { return scan.CheckTogether(r, 0) }

func togetherText(t *scan.Together) string {
	return names(&scan.CheckResult{Findings: t.Findings}) + strings.Join(t.NotChecked, "\n")
}

// All stores of a cluster that were killed at one moment: lagging, merging, with lost peers. Their regions cover everything exactly once, and
// nothing contradicts.
func TestTogetherFixtures(t *testing.T) {
	for _, name := range fixtures.Names() {
		if unreadable[name] {
			continue
		}
		var all []*scan.CheckResult
		for _, dir := range fixtures.Stores(t, name) {
			all = append(all, check(t, base.NewMem(fixtures.Mem(t, name)), dir, true))
		}
		j := together(all...)
		if j.Worst() > plan.Info || len(j.NotChecked) > 0 {
			t.Errorf("%s:\n%s", name, togetherText(j))
		}
		t.Logf("%s: %s", name, togetherText(j))
	}
}

var _ = raft_serverpb.PeerState_Normal
