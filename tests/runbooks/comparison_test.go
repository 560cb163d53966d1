package runbooks

import (
	"slices"
	"strings"
	"testing"
)

// A page that leaves something out still says what the command printed, and a renewed one leaves out the same.
func TestComparison(t *testing.T) {
	out := strings.Split("plan drop-peers-20261121T100000Z\nregion 1 a\nregion 2 b\nregion 3 c\ndone in 0.31 s", "\n")
	for _, c := range []struct {
		page    string
		matches bool
		renewed string
	}{
		{"plan drop-peers-20200101T000000Z\nregion 1 a\nregion 2 b\nregion 3 c\ndone in 12.00 s", true, ""},
		{"plan drop-peers-20200101T000000Z\n…\ndone in 1.00 s", true, ""},
		{"…\nregion 2 b\n…", true, ""},
		{"plan drop-peers-20200101T000000Z\nregion…\nregion…\nregion…\ndone…", true, ""},
		{"plan drop-peers-20200101T000000Z\nregion 1 a", false, strings.Join(out, "\n")},
		{"plan plan-20200101T000000Z\n…\nfinished in 1.00 s", false, out[0] + "\n…\n" + out[4]},
		{"plan drop-peers-20200101T000000Z\n…\nregion 2 x\n…\ndone in 0.20 s", false, out[0] + "\n…\n" + out[2] + "\n…\n" + out[4]},
		{"", false, strings.Join(out, "\n")},
	} {
		want := []string{}
		if c.page != "" {
			want = strings.Split(c.page, "\n")
		}
		if got := matches(want, out); got != c.matches {
			t.Errorf("%q matches: %v", c.page, got)
		}
		if got := renewed(want, out); !c.matches && !slices.Equal(got, strings.Split(c.renewed, "\n")) {
			t.Errorf("%q becomes\n%s\nwant\n%s", c.page, strings.Join(got, "\n"), c.renewed)
		}
	}
	if !matches(nil, nil) || matches([]string{"a"}, nil) || matches([]string{"…"}, nil) {
		t.Error("an empty output is not what it is")
	}
}
