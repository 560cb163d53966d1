package main

import (
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/plan"
)

// That there is no lock is said only when all of them were looked at: one transaction can have more than fit into --memory.
func TestOldestLockOfTooMany(t *testing.T) {
	for _, c := range []struct {
		limits plan.Limits
		says   bool
	}{
		{plan.Limits{}, true},
		{plan.Limits{LocksBelow: 463875000000000000}, false},
	} {
		text := locksLimit(&c.limits, 15, "oldest lock", "transactions", "so")
		if got := strings.Contains(text, "oldest lock    none\n"); got != c.says {
			t.Errorf("locks below %s: %s", c.limits.LocksBelow, text)
		}
		t.Log(text)
	}
}
