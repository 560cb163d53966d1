package mvcc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// gcEntries reads lines like "a 20 P start=18 v=0A", "a 20 tombstone" or "a 20 blob".
func gcEntries(t *testing.T, text string) []GCEntry {
	t.Helper()
	var out []GCEntry
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, rest, _ := strings.Cut(line, " ")
		e := GCEntry{Key: LockKey([]byte(key)), Kind: KindPut}
		commit, what, _ := strings.Cut(rest, " ")
		switch what {
		case "tombstone":
			e.Kind = KindDelete
			rest = commit + " D"
		case "blob":
			e.Kind = KindBlobIndex
			rest = commit + " P"
		}
		v, err := parseVersion(rest)
		if err != nil {
			t.Fatal(err)
		}
		e.CommitTS = v.commit
		if e.Kind == KindPut {
			e.Value = v.value
		}
		out = append(out, e)
	}
	return out
}

func gcText(t *testing.T, r GCResult) string {
	t.Helper()
	user := func(key []byte) string {
		u, err := UserKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(u)
	}
	var s strings.Builder
	for _, e := range r.Kept {
		fmt.Fprintf(&s, "%s %s ", user(e.Key), e.CommitTS)
		switch e.Kind {
		case KindDelete:
			s.WriteString("tombstone\n")
		case KindBlobIndex:
			s.WriteString("blob\n")
		default:
			w, err := ParseWrite(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			s.WriteString(wordsOfWrite(w) + "\n")
		}
	}
	for _, d := range r.DefaultRows {
		fmt.Fprintf(&s, "default row %s %s goes\n", user(d.Key), d.StartTS)
	}
	for _, k := range r.WorkerKeys {
		fmt.Fprintf(&s, "worker: %s\n", user(k))
	}
	return s.String()
}

func TestGCFilter(t *testing.T) {
	for _, c := range []struct {
		name       string
		safePoint  TS
		bottommost bool
		in, want   string
	}{
		{"above the safe point nothing changes", 5, true,
			"a 30 R start=30\na 20 P start=18\na 10 P start=8",
			"a 30 R start=30\na 20 P start=18\na 10 P start=8\n"},
		{"down to the first Put; older ones go without a tombstone, long values with their rows", 25, false,
			"a 30 P start=28\na 20 P start=18 v=0A\na 10 P start=8\na 5 P start=4 v=0B\nb 3 P start=2",
			"a 30 P start=28\na 20 P start=18 v=0A\nb 3 P start=2\ndefault row a 8 goes\n"},
		{"Rollback and Lock above the first Put leave tombstones", 50, false,
			"a 40 R start=40\na 30 L start=28\na 20 P start=18 v=0A\na 10 L start=9",
			"a 40 tombstone\na 30 tombstone\na 20 P start=18 v=0A\n"},
		{"... but not at the bottom", 50, true,
			"a 40 R start=40\na 30 L start=28\na 20 P start=18 v=0A",
			"a 20 P start=18 v=0A\n"},
		{"a Delete at the bottom, alone: the worker takes the key", 50, true,
			"a 40 D start=38\nb 40 D start=38\nb 30 P start=28 v=0A\nc 40 D start=38",
			"a 40 D start=38\nb 40 D start=38\nc 40 D start=38\nworker: a\nworker: c\n"},
		{"a Delete above the bottom is kept", 50, false,
			"a 40 D start=38\na 30 P start=28",
			"a 40 D start=38\ndefault row a 28 goes\n"},
		{"a tombstone hides the version that it deletes", 50, false,
			"a 40 tombstone\na 40 P start=38 v=0A\na 30 P start=28 v=0B",
			"a 40 tombstone\na 30 P start=28 v=0B\n"},
		{"at the bottom the tombstone itself goes", 50, true,
			"a 40 tombstone\na 40 P start=38 v=0A\na 30 P start=28 v=0B",
			"a 30 P start=28 v=0B\n"},
		{"of two entries with the same key and timestamp the newer counts", 50, true,
			"a 40 P start=38 v=0A\na 40 P start=38 v=0B",
			"a 40 P start=38 v=0A\n"},
		{"a blob index is kept without looking at it", 50, true,
			"a 40 blob\na 30 P start=28 v=0A\na 20 blob\na 10 P start=8 v=0B",
			"a 40 blob\na 30 P start=28 v=0A\na 20 blob\n"},
	} {
		r, err := GCFilter(gcEntries(t, c.in), c.safePoint, c.bottommost)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.want, gcText(t, r)); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
	if _, err := GCFilter([]GCEntry{{Key: LockKey([]byte("a")), CommitTS: 1, Kind: KindPut}}, 5, true); err == nil {
		t.Error("an empty write record is accepted")
	}
}

// Why a rewind must remove versions above T physically. The row 10 was visible at T = 15; the version at 20 was "removed" by
// a tombstone in a newer file. Later the safe point passes 20, and TiKV compacts the older file without the newer one: the
// filter takes the hidden Put for the newest version and drops the one that everybody reads.
func TestGCFilterAndHiddenVersions(t *testing.T) {
	older := gcEntries(t, "a 20 P start=18 v=0B\na 10 P start=8 v=0A")
	newer := gcEntries(t, "a 20 tombstone")
	after, err := GCFilter(older, 100, false)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := GCFilter(append(newer, after.Kept...), 100, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := gcText(t, rest); got != "" {
		t.Errorf("the row survived: %s", got)
	}
	physically := gcEntries(t, "a 10 P start=8 v=0A")
	kept, err := GCFilter(physically, 100, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := gcText(t, kept); got != "a 10 P start=8 v=0A\n" {
		t.Errorf("after a physical removal: %s", got)
	}
}

// Every compaction of a whole history keeps what a read at or above the safe point sees.
func TestGCFilterKeepsReads(t *testing.T) {
	var build func(commit TS, newestFirst []version)
	n := 0
	build = func(commit TS, vs []version) {
		if commit > 4 {
			for sp := TS(0); sp <= 5; sp++ {
				n++
				checkGC(t, vs, sp)
			}
			return
		}
		build(commit+1, vs)
		for _, typ := range []byte("PDLR") {
			v := version{commit, Write{Type: typ, StartTS: commit - 1}.Append(nil)}
			build(commit+1, append([]version{v}, vs...))
		}
	}
	build(1, nil)
	if n < 3000 {
		t.Errorf("only %d compactions", n)
	}
}

func checkGC(t *testing.T, vs []version, safePoint TS) {
	t.Helper()
	key := LockKey([]byte("k"))
	var in []GCEntry
	for _, v := range vs {
		in = append(in, GCEntry{Key: key, CommitTS: v.commit, Kind: KindPut, Value: v.value})
	}
	for _, bottommost := range []bool{false, true} {
		r, err := GCFilter(in, safePoint, bottommost)
		if err != nil {
			t.Fatal(err)
		}
		var out []version
		for _, e := range r.Kept {
			if e.Kind == KindPut {
				out = append(out, version{e.CommitTS, e.Value})
			}
		}
		for ts := safePoint; ts <= 5; ts++ {
			if got, want := read(ts, out), read(ts, vs); sameRow(got) != sameRow(want) {
				t.Fatalf("%s\nsafe point %s, read at %s: after %q, before %q", story(vs), safePoint, ts, got, want)
			}
		}
	}
}
