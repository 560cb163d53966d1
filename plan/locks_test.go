package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

type record struct {
	commit mvcc.TS
	write  mvcc.Write
}

// world is the state of a few keys, and the Evidence over it.
type world struct {
	records   map[string][]record
	locks     []LockAt // in the order written
	elsewhere map[string]bool
	lookups   int
	err       error
}

func (w *world) WriteByStart(user []byte, start mvcc.TS) (mvcc.TS, mvcc.Write, bool, error) {
	w.lookups++
	for _, r := range w.records[string(user)] {
		if r.write.StartTS == start && r.write.Type != mvcc.WriteRollback {
			return r.commit, r.write, true, w.err
		}
	}
	return 0, mvcc.Write{}, false, w.err
}

func (w *world) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	for _, r := range w.records[string(user)] {
		if r.commit == start && (r.write.Type == mvcc.WriteRollback || r.write.OverlappedRollback) {
			return true, nil
		}
	}
	return false, nil
}

func (w *world) LockOf(user []byte) ([]mvcc.Lock, error) {
	var out []mvcc.Lock
	for _, l := range w.locks {
		if bytes.Equal(l.UserKey, user) {
			out = append(out, l.Lock)
		}
	}
	return out, nil
}

func (w *world) Here(user []byte) bool { return !w.elsewhere[string(user)] }

// here are the locks on the stores that were given.
func (w *world) here() []LockAt {
	var out []LockAt
	for _, l := range w.locks {
		if w.Here(l.UserKey) {
			out = append(out, l)
		}
	}
	return out
}

// parseWorld reads lines of three forms:
//
//	record KEY COMMIT_TS TYPE start=S [overlapped]
//	lock KEY TYPE primary=P start=S [u=for_update_ts] [m=min_commit_ts] [long] [async[=K,K]] [shared] [collided=TS] [last=TS]
//	elsewhere KEY...
func parseWorld(text string) (*world, error) {
	w := &world{records: make(map[string][]record), elsewhere: make(map[string]bool)}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var err error
		switch {
		case f[0] == "elsewhere":
			for _, k := range f[1:] {
				w.elsewhere[k] = true
			}
		case f[0] == "record" && len(f) >= 5:
			err = w.addRecord(f[1], f[2], f[3], f[4:])
		case f[0] == "lock" && len(f) >= 5:
			err = w.addLock(f[1], f[2], f[3:])
		default:
			err = errors.New("unknown form")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return w, nil
}

func (w *world) addRecord(key, commit, typ string, words []string) error {
	ts, err := strconv.ParseUint(commit, 10, 64)
	if err != nil {
		return err
	}
	r := record{commit: mvcc.TS(ts), write: mvcc.Write{Type: typ[0]}}
	for _, word := range words {
		name, val, _ := strings.Cut(word, "=")
		switch name {
		case "start":
			err = r.write.StartTS.UnmarshalText([]byte(val))
		case "overlapped":
			r.write.OverlappedRollback = true
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return err
		}
	}
	w.records[key] = append(w.records[key], r)
	return nil
}

func (w *world) addLock(key, typ string, words []string) error {
	l := LockAt{UserKey: []byte(key), Lock: mvcc.Lock{Type: typ[0], TTL: 3000}}
	if l.Lock.Type == mvcc.LockPut {
		l.Lock.ShortValue, l.Lock.HasShortValue = []byte("v"), true
	}
	for _, word := range words {
		name, val, has := strings.Cut(word, "=")
		var err error
		switch name {
		case "primary":
			l.Lock.Primary = []byte(val)
		case "start":
			err = l.Lock.StartTS.UnmarshalText([]byte(val))
		case "u":
			err = l.Lock.ForUpdateTS.UnmarshalText([]byte(val))
		case "m":
			err = l.Lock.MinCommitTS.UnmarshalText([]byte(val))
		case "long":
			l.Lock.ShortValue, l.Lock.HasShortValue = nil, false
		case "async":
			l.Lock.AsyncCommit = true
			if has {
				for _, k := range strings.Split(val, ",") {
					l.Lock.Secondaries = append(l.Lock.Secondaries, []byte(k))
				}
			}
		case "shared":
			l.Shared = true
		case "collided":
			var ts mvcc.TS
			err = ts.UnmarshalText([]byte(val))
			l.Lock.RollbackTS = append(l.Lock.RollbackTS, ts)
		case "last":
			err = l.Lock.LastChange.TS.UnmarshalText([]byte(val))
			l.Lock.LastChange.Versions = 1
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return err
		}
	}
	w.locks = append(w.locks, l)
	return nil
}

func decisionText(d LockDecision) string {
	s := fmt.Sprintf("%s %c of %s: %s", d.UserKey, d.Lock.Type, d.Lock.StartTS, d.Act)
	if d.Act == Commit {
		r := d.Record()
		s += fmt.Sprintf(" at %s as %c", d.CommitTS, r.Type)
		if r.OverlappedRollback {
			s += " with overlapped rollback"
		}
		if r.LastChange.Known() {
			s += fmt.Sprintf(" with last change %s", r.LastChange.TS)
		}
		if r.NeedsDefault() {
			s += fmt.Sprintf(", its value stays at %s", r.StartTS)
		}
	}
	if d.DefaultRow {
		s += fmt.Sprintf(", and the default row at %s", d.Lock.StartTS)
	}
	return s + "\n    " + d.Reason + "\n"
}

// The stories: every row of the table of what may become of a lock.
func TestLockStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/locks", func(t *testing.T, d *datadriven.TestData) string {
		var to uint64
		d.ScanArgs(t, "to", &to)
		w, err := parseWorld(d.Input)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		ds, ps, err := DecideLocks(mvcc.TS(to), w.here(), w)
		if err != nil {
			return "error: " + err.Error()
		}
		checkDecisions(t, mvcc.TS(to), w.here(), ds, ps)
		var out strings.Builder
		for _, dec := range ds {
			out.WriteString(decisionText(dec))
		}
		for _, p := range ps {
			fmt.Fprintf(&out, "problem %s: %s\n", p.Name(), p.What())
			for _, k := range p.(*UnresolvedLocks).Txns {
				fmt.Fprintf(&out, "    %s\n", k)
			}
		}
		return out.String()
	})
}

// checkDecisions tests the invariants of LockDecision.
func checkDecisions(t *testing.T, to mvcc.TS, locks []LockAt, ds []LockDecision, ps []Problem) {
	t.Helper()
	if len(ds) != len(locks) {
		t.Fatalf("%d decisions for %d locks", len(ds), len(locks))
	}
	undecided := 0
	for i, d := range ds {
		if !bytes.Equal(d.UserKey, locks[i].UserKey) || d.Lock.StartTS != locks[i].Lock.StartTS || d.Reason == "" {
			t.Errorf("decision %d is not about lock %d, or without a reason", i, i)
		}
		if d.Act == Commit && (d.CommitTS > to || d.CommitTS <= d.Lock.StartTS || d.Lock.Pessimistic() || d.Shared) {
			t.Errorf("%s is committed at %s", d.UserKey, d.CommitTS)
		}
		if d.DefaultRow && (d.Act != Remove || !d.Lock.NeedsDefault()) {
			t.Errorf("%s: %s with default row", d.UserKey, d.Act)
		}
		if w, commit, ok := d.Visible(); ok != (d.Act == Commit) || ok && (commit > to || w.Type != d.Lock.Type) {
			t.Errorf("%s: %s, visible %v at %s", d.UserKey, d.Act, ok, commit)
		}
		if d.Act == Undecided {
			undecided++
		}
	}
	if undecided == 0 && len(ps) != 0 || undecided != 0 && (len(ps) != 1 || ps[0].(*UnresolvedLocks).Keys != undecided) {
		t.Errorf("%d undecided, problems %v", undecided, ps)
	}
}

// Two locks of one transaction ask for the evidence once.
func TestVerdictIsCached(t *testing.T) {
	w, err := parseWorld("record p 20 P start=10\nlock a P primary=p start=10\nlock b P primary=p start=10\nlock c L primary=p start=10")
	if err != nil {
		t.Fatal(err)
	}
	ds, _, err := DecideLocks(30, w.here(), w)
	if err != nil || w.lookups != 1 {
		t.Errorf("%d lookups, %v", w.lookups, err)
	}
	for _, d := range ds {
		if d.Act != Commit || d.CommitTS != 20 {
			t.Errorf("%s: %s", d.UserKey, d.Act)
		}
	}
}

func TestEvidenceErrorsStop(t *testing.T) {
	w, err := parseWorld("lock a P primary=p start=10")
	if err != nil {
		t.Fatal(err)
	}
	w.err = errors.New("disk gone")
	if _, _, err := DecideLocks(30, w.here(), w); !errors.Is(err, w.err) || !strings.Contains(err.Error(), "primary 70") {
		t.Errorf("got %v", err)
	}
}

// A model of one transaction over three keys (p, a, b), every state each key can be in, every T, and every set of keys that
// can be seen. All visible locks of the transaction get one outcome; it is the true one whenever there is a true one ≤ T;
// and seeing fewer keys may only turn an outcome into "undecided", never into another one.
func TestLockModel(t *testing.T) {
	n := 0
	for _, txn := range transactions() {
		for _, to := range []mvcc.TS{5, 10, 19, 20, 25, 29, 30, 35} {
			for hidden := range 8 {
				w := txn.world()
				for i, k := range []string{"p", "a", "b"} {
					if hidden>>i&1 == 1 {
						w.elsewhere[k] = true
					}
				}
				ds, ps, err := DecideLocks(to, w.here(), w)
				if err != nil {
					t.Fatal(err)
				}
				checkDecisions(t, to, w.here(), ds, ps)
				for _, d := range ds {
					n++
					committed := txn.commit != 0 && txn.commit <= to
					if d.Act == Undecided && hidden == 0 {
						t.Fatalf("%s to %s: %s is undecided though all is visible", txn.name, to, d.UserKey)
					}
					if d.Act == Commit && !(committed && d.CommitTS == txn.commit) {
						t.Fatalf("%s to %s, hidden %03b: %s", txn.name, to, hidden, decisionText(d))
					}
					if d.Act == Remove && committed {
						t.Fatalf("%s to %s, hidden %03b: %s", txn.name, to, hidden, decisionText(d))
					}
				}
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d decisions", n)
	}
}

type transaction struct {
	name   string
	commit mvcc.TS // 0: it never commits at a timestamp that is already fixed
	text   string
}

func (x transaction) world() *world {
	w, err := parseWorld(x.text)
	if err != nil {
		panic(err)
	}
	return w
}

// transactions are the states in which a crash can leave a transaction with start_ts 10 and the keys p (primary), a and b.
func transactions() []transaction {
	var out []transaction
	keys := []string{"p", "a", "b"}
	for mask := range 8 { // two-phase commit, some keys prewritten, p first
		if mask&1 == 0 && mask != 0 {
			continue
		}
		text := ""
		for i, k := range keys {
			if mask>>i&1 == 1 {
				text += fmt.Sprintf("lock %s P primary=p start=10 m=11\n", k)
			}
		}
		out = append(out, transaction{fmt.Sprintf("prewriting %03b", mask), 0, text})
	}
	for mask := range 4 { // committed at 20, some secondaries still locked
		text := "record p 20 P start=10\n"
		for i, k := range keys[1:] {
			if mask>>i&1 == 1 {
				text += fmt.Sprintf("record %s 20 P start=10\n", k)
			} else {
				text += fmt.Sprintf("lock %s P primary=p start=10 m=11\n", k)
			}
		}
		out = append(out, transaction{fmt.Sprintf("committed, secondaries %02b", mask), 20, text})
	}
	for mask := range 8 { // async commit at 20, prewritten in any order, then records in any order
		missing := ""
		committed := ""
		for i, k := range keys {
			m := 11 + mvcc.TS(9*(i%2)) // a carries the largest min_commit_ts, 20
			lock := fmt.Sprintf("lock %s P primary=p start=10 m=%s async", k, m)
			if k == "p" {
				lock += "=a,b"
			}
			if mask>>i&1 == 1 {
				missing += lock + "\n"
				committed += fmt.Sprintf("record %s 20 P start=10\n", k)
			} else {
				committed += lock + "\n"
			}
		}
		out = append(out, transaction{fmt.Sprintf("async, records %03b", mask), 20, committed})
		if mask != 7 {
			out = append(out, transaction{fmt.Sprintf("async, prewritten %03b", mask), 0, missing})
		}
	}
	return append(out,
		transaction{"rolled back", 0, "record p 10 R start=10\nlock a P primary=p start=10 m=11\nlock b P primary=p start=10 m=11"},
		transaction{"async fell back", 0, "lock p P primary=p start=10 m=11 async=a,b\nlock a P primary=p start=10\nlock b P primary=p start=10 m=12 async"},
		transaction{"pessimistic", 0, "lock p S primary=p start=10 u=12 m=13\nlock a S primary=p start=10 u=12 m=13\nlock b P primary=p start=10 u=12 m=13"},
	)
}

func TestProblemsSortAndRoundTrip(t *testing.T) {
	ps := []Problem{
		&RaftTail{Store: 1, Region: 10, Applied: 5, Commit: 6, Last: 7, MinCommitTS: 9, MaxCommitTS: 10, Versions: 3, Opaque: 1},
		&UnknownSafePoint{},
		&MissingValue{Store: 1, Key: "AB", CommitTS: 7, StartTS: 6},
		&RaftTail{Store: 1, Region: 9, Applied: 5, Commit: 5, Last: 6},
		&SafePointAboveT{T: 5, SafePoint: 6},
		&UnresolvedLocks{Keys: 3, Txns: []TxnKey{{"p\x00", 470610466230763527}}},
		&RegionState{Store: 2, Region: 4, State: "Applying"},
		&RegionState{Store: 2, Region: 4, State: "Merging"},
		&RawData{Store: 1, APIVersion: "V1"}, &RawData{Store: 1, APIVersion: "V2"},
		&MultiStore{Given: []uint64{1}, Missing: []uint64{2, 3}, Regions: 1}, &Flashback{Store: 1, Region: 2}, &PanicMark{Path: "x"},
		&WALDamage{Path: "000012.log", Offset: 4, Reason: "checksum"}, &RegionStart{Store: 1, Region: 3, Reason: "r"},
		&MultiStore{Missing: []uint64{2}, Regions: 1, Verb: "cut-tail"}, &MultiStore{Missing: []uint64{2}, Regions: 2, Verb: "set-peers"},
		&NeedsSnapshot{Store: 1, Region: 3, Source: "/store2", First: 9, Applied: 5, Last: 6, Committed: 12}, &LogConflict{Store: 1, Region: 3, Source: "/store2", Index: 7},
		&NotCommitted{Store: 1, Region: 3, Committed: 6, To: 8}, &TailStrategyUnsafe{Store: 1, Region: 3, Strategy: "keep", Reason: "r"},
		&RaftTail{Store: 2, Region: 9, Applied: 5, Commit: 5, Last: 6, Versions: 1, MinCommitTS: 9, MaxCommitTS: 9, Strategy: "left"},
		&BadRecord{CF: "write", Key: "7A", Reason: "r"}, &PendingFile{Path: "snap/x"}, &Unsupported{Feature: "f", Reason: "r"},
	}
	ps = append(ps, findings()...)
	Sort(ps)
	for i, p := range ps[1:] {
		if ps[i].Severity() < p.Severity() {
			t.Errorf("%s comes before %s", ps[i].Name(), p.Name())
		}
	}
	var tails []string
	used := make(map[string]bool)
	for _, d := range Describe(ps) {
		used[d.Name] = true
		if d.Name == "raft-tail" {
			tails = append(tails, d.Where+": "+d.What)
		}
		if d.What == "" || d.Next == "" {
			t.Errorf("%s says %q, next %q", d.Name, d.What, d.Next)
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := UnmarshalProblem(b)
		if err != nil || cmp.Diff(d.Details, back) != "" {
			t.Errorf("%s: %v %s", b, err, cmp.Diff(d.Details, back))
		}
	}
	want := []string{"store 1, region 9: 1 log entry after applied index 5, of which 0 are committed",
		"store 1, region 10: 2 log entries after applied index 5, of which 1 are committed; 3 versions of data would be lost with them, commit_ts 9 to 10 (1970-01-01T00:00:00.000Z); 1 cannot be looked into",
		"store 2, region 9: 1 log entry after applied index 5, of which 0 are committed; 1 version of data at or below T is among them, commit_ts 9 to 9 (1970-01-01T00:00:00.000Z); " +
			"they stay, because other stores hold replicas, and TiKV may apply them after the rewind"}
	if d := cmp.Diff(want, tails); d != "" {
		t.Error(d)
	}
	for _, n := range Names() {
		if !used[n] {
			t.Errorf("no example of %s", n)
		}
	}
	reversed := slices.Clone(ps)
	slices.Reverse(reversed)
	Sort(reversed)
	if d := cmp.Diff(ps, reversed); d != "" {
		t.Errorf("the order depends on the input: %s", d)
	}
	if _, err := UnmarshalProblem([]byte(`{"name":"from-the-future","details":{}}`)); err == nil {
		t.Error("an unknown problem is accepted")
	}
}

func TestBlocks(t *testing.T) {
	forced := map[string]bool{"raft-tail": true, "safe-point-above-t": true, "not-there": true}
	for _, c := range []struct {
		p    Problem
		want bool
	}{
		{&RaftTail{}, false},
		{&SafePointAboveT{}, true}, // nobody can accept that
		{&UnresolvedLocks{}, true},
		{&MissingValue{}, false},
	} {
		if got := Blocks(c.p, forced); got != c.want {
			t.Errorf("%s blocks: %v", c.p.Name(), got)
		}
		if Forceable(c.p) != (c.p.Severity() != Fatal) {
			t.Errorf("%s: forceable %v", c.p.Name(), Forceable(c.p))
		}
	}
}
