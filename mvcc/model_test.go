package mvcc

import "testing"

// Every history of at most four records at commit_ts 1..4, every type, every fence that TiKV could have written, every set
// of collected deletes, and every T: rewinding to T and then reading at the end of time gives what a read at T gave before.
// The rewind is also done a second time and must change nothing.
func TestRewindModel(t *testing.T) {
	const newest = 4
	histories, cases := 0, 0
	var build func(commit TS, vs []version)
	build = func(commit TS, vs []version) { // vs is oldest first
		if commit > newest {
			for _, fenced := range fences(vs) {
				histories++
				cases += checkHistory(t, fenced)
			}
			return
		}
		build(commit+1, vs)
		for _, typ := range []byte("PDLR") {
			w := Write{Type: typ, StartTS: commit - 1}
			if typ == WriteRollback {
				w.StartTS = commit
			}
			build(commit+1, append(vs[:len(vs):len(vs)], version{commit, w.Append(nil)}))
		}
	}
	build(1, nil)
	t.Logf("%d histories, %d rewinds", histories, cases)
	if histories < 1000 || cases < 5000 {
		t.Errorf("only %d histories and %d rewinds", histories, cases)
	}
}

// fences gives a history, oldest first, with every choice of gc_fence: none, 0, or the next newer Put or Delete, on each
// record that is not a Rollback; and for each also without a fenced-off Delete that GC may have collected.
func fences(vs []version) [][]version {
	out := [][]version{vs}
	for i := range vs {
		w, _ := ParseWrite(vs[i].value)
		if w.Type == WriteRollback {
			continue
		}
		next := TS(0)
		for _, v := range vs[i+1:] {
			if v.value[0] == WritePut || v.value[0] == WriteDelete {
				next = v.commit
				break
			}
		}
		for _, h := range out[:len(out):len(out)] {
			for _, fence := range []TS{0, next} {
				w.OverlappedRollback, w.HasGCFence, w.GCFence = true, true, fence
				f, ok := replaceValue(h, vs[i].commit, w.Append(nil))
				if !ok {
					continue // collected by an earlier choice
				}
				out = append(out, f)
				if fence == 0 {
					continue
				}
				if without := dropDelete(f, fence); without != nil {
					out = append(out, without)
				}
			}
		}
	}
	return out
}

func replaceValue(vs []version, ts TS, value []byte) ([]version, bool) {
	out := append([]version(nil), vs...)
	for i := range out {
		if out[i].commit == ts {
			out[i].value = value
			return out, true
		}
	}
	return nil, false
}

// dropDelete removes the Delete at ts, as GC does once the safe point has reached it.
func dropDelete(vs []version, ts TS) []version {
	for i, v := range vs {
		if v.commit == ts && v.value[0] == WriteDelete {
			return append(append([]version(nil), vs[:i]...), vs[i+1:]...)
		}
	}
	return nil
}

// checkHistory rewinds to every T that is not below the safe point: a fence whose Delete is gone says that the safe point
// has reached it.
func checkHistory(t *testing.T, oldestFirst []version) int {
	t.Helper()
	vs := make([]version, 0, len(oldestFirst))
	for i := len(oldestFirst) - 1; i >= 0; i-- {
		vs = append(vs, oldestFirst[i])
	}
	safePoint := TS(0)
	for _, v := range vs {
		p, _ := PeekWrite(v.value)
		if p.Fence != 0 && !hasCommit(vs, p.Fence) {
			safePoint = max(safePoint, p.Fence)
		}
	}
	n := 0
	for to := safePoint; to <= 5; to++ {
		n++
		after := rewindAll(t, to, vs)
		if got, want := read(MaxTS, after), read(to, vs); sameRow(got) != sameRow(want) {
			t.Fatalf("%s\nto %s: after %q, before %q", story(vs), to, got, want)
		}
		for _, v := range after {
			p, _ := PeekWrite(v.value)
			if v.commit > to || p.Fence > to {
				t.Fatalf("%s\nto %s: %s is still there with fence %s", story(vs), to, v.commit, p.Fence)
			}
		}
		if again := rewindAll(t, to, after); story(again) != story(after) {
			t.Fatalf("%s\nto %s: a second rewind changes %s to %s", story(vs), to, story(after), story(again))
		}
		for ts := TS(0); ts <= to; ts++ {
			if got, want := read(ts, after), read(ts, vs); sameRow(got) != sameRow(want) {
				t.Fatalf("%s\nto %s, read at %s: after %q, before %q", story(vs), to, ts, got, want)
			}
		}
	}
	return n
}

// sameRow takes every way of seeing no row for the same.
func sameRow(s string) string {
	if len(s) >= 7 && s[:7] == "nothing" {
		return "nothing"
	}
	return s
}

func hasCommit(vs []version, ts TS) bool {
	for _, v := range vs {
		if v.commit == ts {
			return true
		}
	}
	return false
}

func rewindAll(t *testing.T, to TS, vs []version) []version {
	t.Helper()
	var out []version
	for _, v := range vs {
		d, err := Rewind(to, v.commit, v.value)
		if err != nil {
			t.Fatal(err)
		}
		switch d.Action {
		case Keep:
			out = append(out, v)
		case ClearFence:
			out = append(out, version{v.commit, d.Value})
		}
	}
	return out
}

func story(vs []version) string {
	s := ""
	for _, v := range vs {
		w, _ := ParseWrite(v.value)
		s += v.commit.String() + " " + wordsOfWrite(w) + "\n"
	}
	return s
}
