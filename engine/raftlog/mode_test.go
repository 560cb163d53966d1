package raftlog

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
)

func TestParseMode(t *testing.T) {
	for text, want := range map[string]Mode{
		"": TolerateTail, "tolerate-tail-corruption": TolerateTail, "tolerate-corrupted-tail-records": TolerateTail,
		"absolute-consistency": Absolute, "tolerate-any-corruption": TolerateAny,
		"TolerateAnyCorruption": "", "absolute-consistency ": "",
	} {
		if got, err := ParseMode(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

func (d testDir) openMode(m Mode) (*Engine, *Report, error) {
	return OpenEngineMode(base.NewMem(d.fs), "/re", "", m)
}

// The table of the three modes: each damage in the last append file, and in one that another follows.
func TestRecoveryModes(t *testing.T) {
	one, two := nb().log(2, 5, 6, 6), nb().log(2, 7, 8, 6)
	good := batches(2, 1, one, two)
	firstEnd := len(batches(2, 1, one))
	tornEntries := slices.Clone(good)
	tornEntries[firstEnd+16] ^= 1
	badItems := slices.Clone(good)
	badItems[firstEnd-1] ^= 1
	const refuses = "refuses"
	const both = "2: 5..8 term 6 from 5\n"
	const first = "2: 5..6 term 6 from 5\n"
	next := nb().log(4, 1, 2, 6)
	const other = "4: 1..2 term 6 from 1\n"
	for _, c := range []struct {
		name    string
		content []byte
		// what is held: absolute-consistency is the same in both places
		absolute, lastTail, otherAny string
		end                          int64 // where reading ends
	}{
		{"whole", good, both, both, both + other, int64(len(good))},
		{"a header alone", fileHeader(2), "", "", other, 69},
		{"an empty file", nil, refuses, "", other, 0},
		{"a header of zeros", make([]byte, 4096), refuses, "", other, 0},
		{"preallocated space", append(slices.Clone(good), make([]byte, 300)...), refuses, both, both + other, int64(len(good))},
		{"a batch that was not finished", good[:len(good)-3], refuses, first, first + other, int64(firstEnd)},
		{"a broken batch before good ones", badItems, refuses, "", other, 69},
		{"the entries of the final batch", tornEntries, refuses, first, first + other, int64(firstEnd)},
	} {
		t.Run(c.name, func(t *testing.T) {
			last := newDir().rewrite(1).write(FileName(Append, 1), c.content)
			inner := newDir().rewrite(1).write(FileName(Append, 1), c.content).log(2, next)
			whole := c.absolute != refuses
			for _, x := range []struct {
				what string
				d    testDir
				mode Mode
				want string
			}{
				{"last", last, Absolute, c.absolute},
				{"last", last, TolerateTail, c.lastTail},
				{"last", last, TolerateAny, c.lastTail},
				{"inner", inner, Absolute, map[bool]string{true: c.otherAny, false: refuses}[whole]},
				{"inner", inner, TolerateTail, map[bool]string{true: c.otherAny, false: refuses}[whole]},
				{"inner", inner, TolerateAny, c.otherAny},
			} {
				e, rep, err := x.d.openMode(x.mode)
				if x.want == refuses {
					if !errors.Is(err, base.ErrCorrupt) || base.Next(err) == "" {
						t.Errorf("%s, %s: %v", x.what, x.mode, err)
						continue
					}
					advice := strings.Contains(base.Next(err), ModeSetting)
					if strings.Contains(err.Error(), ModeSetting) != (x.mode == Absolute) || advice != (x.mode == Absolute && x.what == "last") {
						t.Errorf("%s, %s: %v; %s", x.what, x.mode, err, base.Next(err))
					}
					continue
				}
				if err != nil {
					t.Errorf("%s, %s: %v", x.what, x.mode, err)
					continue
				}
				f := rep.Files[1]
				if got := dump(t, e); got != x.want || rep.Mode != x.mode || f.Valid != c.end {
					t.Errorf("%s, %s: %q, read to %d, want %q, %d", x.what, x.mode, got, f.Valid, x.want, c.end)
				}
				if skipped := x.what == "inner" && !whole; f.Skipped != skipped || (f.Stop != "") != !whole {
					t.Errorf("%s, %s: %+v", x.what, x.mode, f)
				}
			}
		})
	}
}

// The rewrite queue has its own last file.
func TestRecoveryModesOfTheRewriteQueue(t *testing.T) {
	torn := batches(2, 1, nb().put(2, "R", "old"), nb().put(3, "R", "x"))
	torn = torn[:len(torn)-1]
	last := newDir().write(FileName(Rewrite, 1), torn).log(7, nb().put(4, "R", "y"))
	inner := newDir().write(FileName(Rewrite, 1), torn).rewrite(2, nb().put(5, "R", "z")).log(7, nb().put(4, "R", "y"))
	for _, x := range []struct {
		d    testDir
		mode Mode
		want string
	}{
		{last, Absolute, ""}, {last, TolerateTail, "2: R=old\n4: R=y\n"}, {last, TolerateAny, "2: R=old\n4: R=y\n"},
		{inner, Absolute, ""}, {inner, TolerateTail, ""}, {inner, TolerateAny, "2: R=old\n4: R=y\n5: R=z\n"},
	} {
		e, _, err := x.d.openMode(x.mode)
		if x.want == "" && !errors.Is(err, base.ErrCorrupt) || x.want != "" && (err != nil || dump(t, e) != x.want) {
			t.Errorf("%s: %v, want %q", x.mode, err, x.want)
		}
	}
}

// What was lost can be the middle of a log: the engine then panics in every mode.
func TestSkippedEntriesLeaveAHole(t *testing.T) {
	content := batches(2, 1, nb().log(2, 5, 6, 6), nb().log(2, 7, 8, 6))
	d := newDir().write(FileName(Append, 1), content[:len(content)-1]).log(2, nb().log(2, 9, 9, 6))
	if _, _, err := d.openMode(TolerateAny); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "memtable has a hole: entry 9 after 6") {
		t.Errorf("%v", err)
	}
	// Of an atomic group that lost its middle the rest counts; one that lost its end does not.
	mark := func(m byte, b *batchBuilder) *batchBuilder { return b.mark(0, m) }
	middle := batches(2, 1, mark(0, nb().put(2, "a", "1")), mark(1, nb().put(2, "b", "1")))
	d = newDir().write(FileName(Rewrite, 1), middle[:len(middle)-1]).rewrite(2, mark(2, nb().put(2, "c", "1"))).log(1)
	if e, rep, err := d.openMode(TolerateAny); err != nil || dump(t, e) != "2: a=1 c=1\n" || rep.DroppedAtomic != 0 {
		t.Errorf("without its middle: %v", err)
	}
	end := batches(2, 1, mark(0, nb().put(2, "a", "1")), mark(2, nb().put(2, "b", "1")))
	d = newDir().write(FileName(Rewrite, 1), end[:len(end)-1]).rewrite(2, nb().put(3, "R", "x")).log(1)
	if e, rep, err := d.openMode(TolerateAny); err != nil || dump(t, e) != "3: R=x\n" || rep.DroppedAtomic != 1 {
		t.Errorf("without its end: %v", err)
	}
}

// Edits under each mode: behind a tail that every mode drops, behind a corruption in the middle, and on files without any.
func TestEditsUnderEachMode(t *testing.T) {
	good := batches(2, 1, nb().log(2, 5, 6, 6).put(2, "R", "x"))
	dirty := append(slices.Clone(good), 0, 0, 0)
	var b Batch
	b.Clean(2)
	must(t, b.Put(2, []byte("R"), []byte("y")))
	for _, m := range []Mode{Absolute, TolerateTail, TolerateAny} {
		for _, c := range []struct {
			name  string
			d     testDir
			opens bool
			cut   bool
		}{
			{"clean", newDir().write(FileName(Append, 1), good), true, false},
			{"tail", newDir().write(FileName(Append, 1), dirty), m != Absolute, true},
			{"inner tail", newDir().write(FileName(Append, 1), dirty).log(2, nb().put(3, "R", "z")), m == TolerateAny, false},
			{"inner rewrite tail", newDir().write(FileName(Rewrite, 1), dirty).rewrite(2).log(1, nb().put(2, "R", "z")), m == TolerateAny, false},
		} {
			fs := base.NewMem(dataDir(c.d))
			e, rep, err := OpenEngineMode(fs, testData+"/raft-engine", "", m)
			if (err == nil) != c.opens {
				t.Fatalf("%s, %s: %v", c.name, m, err)
			}
			if err != nil {
				continue
			}
			p, err := PlanEdit(e, &b, testTime)
			if slices.ContainsFunc(rep.Files, func(f FileReport) bool { return f.Skipped }) {
				if !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "nothing is written to this raft store") || base.Next(err) == "" {
					t.Errorf("%s, %s: %v", c.name, m, err)
				}
				// What asks for nothing is still allowed: other parts of a store can be repaired.
				if p, err := PlanEdit(e, &Batch{}, testTime); err != nil || !p.Empty() {
					t.Errorf("%s, %s: an empty edit: %v", c.name, m, err)
				}
				continue
			}
			if err != nil || (p.Summary().Cut != "") != c.cut {
				t.Fatalf("%s, %s: %v %+v", c.name, m, err, p)
			}
			// The edited directory opens under every mode, with the same content.
			tx, err := edit.Begin(fs, testData, "p1", "test", "plan", p.Dirs(), testTime)
			must(t, err)
			must(t, stage(tx, p))
			must(t, tx.Publish())
			s, err := p.Published()
			must(t, err)
			want := dump(t, s.(*Engine))
			for _, again := range []Mode{Absolute, TolerateTail, TolerateAny} {
				if e, _, err := OpenEngineMode(fs, testData+"/raft-engine", "", again); err != nil || dump(t, e) != want {
					t.Errorf("%s, %s, then %s: %v", c.name, m, again, err)
				}
			}
		}
	}
}
