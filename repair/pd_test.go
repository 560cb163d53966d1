package repair

import (
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Which safe point counts, and what is said about it.
func TestUsePD(t *testing.T) {
	const none = mvcc.TS(1 << 60) // not stated, or not taken
	for _, c := range []struct {
		what       string
		stated, pd mvcc.TS
		known      bool
		want       mvcc.TS
		says       string
	}{
		{"PD's alone", none, 70, true, 70, "from PD: why; "},
		{"PD never had one", none, 0, true, 0, "from PD: why; "},
		{"PD cannot vouch for it", none, 70, false, none, ""},
		{"PD cannot vouch for it, but it is above T", none, 170, false, 170, "from PD"},
		{"both are the same", 70, 70, true, 70, StatedSafePoint + ", and from PD"},
		{"the stated one is larger", 80, 70, true, 80, StatedSafePoint + "; PD knows only 70"},
		{"the stated one is lower", 60, 70, true, 70, "the stated 60 is lower and does not count"},
		{"the stated one is lower than what PD cannot vouch for", 60, 70, false, 70, "the stated 60 is lower"},
	} {
		o := ResetOptions{}
		o.T = 100
		if c.stated != none {
			o.SafePoint, o.SafePointSource = &c.stated, StatedSafePoint
		}
		o.UsePD(&scan.PDEvidence{SafePoint: pd.Timestamp{TS: c.pd}, SafePointKnown: c.known, SafePointWhy: "why"})
		got := none
		if o.SafePoint != nil {
			got = *o.SafePoint
		}
		if got != c.want || !strings.Contains(o.SafePointSource, c.says) {
			t.Errorf("%s: %d, %q", c.what, got, o.SafePointSource)
		}
	}
}
