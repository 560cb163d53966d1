package raftlog

import "testing"

// Whatever an edit can do to a region gives another digest; where the bytes lie does not matter.
func TestDigest(t *testing.T) {
	digest := func(d testDir) string {
		t.Helper()
		e, _, err := d.open()
		must(t, err)
		sum, err := Digest(e)
		must(t, err)
		return sum
	}
	base := func() *batchBuilder { return nb().log(2, 5, 9, 6).put(2, "R", "x").put(3, "R", "y") }
	want := digest(newDir().log(1, base()))
	for name, d := range map[string]testDir{
		"other files":   newDir().rewrite(3, nb().put(3, "R", "y").log(2, 5, 7, 6)).log(7, nb().log(2, 8, 8, 6), nb().log(2, 9, 9, 6).put(2, "R", "x")),
		"other numbers": newDir().log(9, base()),
		"LZ4":           newDir().log(1, (&batchBuilder{lz4: true}).log(2, 5, 9, 6), nb().put(2, "R", "x").put(3, "R", "y")),
		"an empty one":  newDir().log(1, base(), nb().compact(4, 9)),
	} {
		if got := digest(d); got != want {
			t.Errorf("%s: another digest", name)
		}
	}
	seen := map[string]string{want: "before"}
	for name, more := range map[string]*batchBuilder{
		"a state": nb().put(2, "R", "z"), "a region": nb().put(4, "R", "x"), "a region less": nb().clean(3), "an entry more": nb().log(2, 10, 10, 6),
		"an entry less": nb().log(2, 8, 8, 6), "another term": nb().log(2, 9, 9, 7), "entries without a state": nb().log(5, 1, 1, 6),
		"no entries": nb().compact(2, 10), "a later first": nb().compact(2, 6), "no state": nb().del(3, "R"),
	} {
		got := digest(newDir().log(1, base(), more))
		if other, there := seen[got]; there && !(name == "no state" && other == "a region less" || name == "a region less" && other == "no state") {
			t.Errorf("%s: the digest of %q", name, other)
		}
		seen[got] = name
	}
}
