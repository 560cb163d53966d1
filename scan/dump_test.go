package scan_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func open(t *testing.T, name, dir string) *scan.Store {
	t.Helper()
	s, err := scan.Open(base.NewMem(fixtures.Mem(t, name)), dir, scan.Options{})
	if err != nil {
		t.Fatalf("%s %s: %v\nnext: %s", name, dir, err, base.Next(err))
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dump(t *testing.T, s *scan.Store, o scan.DumpOptions) []byte {
	t.Helper()
	v, err := s.NewView(o.T)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) > 0 {
		t.Errorf("at %d: %v", o.T, v.Problems)
	}
	o.Bad = func(err error) { t.Error(err) }
	var b bytes.Buffer
	res, err := v.Dump(context.Background(), &b, o)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); int64(n) != res.Rows || o.Format == scan.TSV && res.Bytes*2+res.Rows*2 != int64(b.Len()) {
		t.Errorf("%+v for %d lines, %d bytes", res, n, b.Len())
	}
	return b.Bytes()
}

func lines(b []byte) []string { return strings.Split(string(b), "\n") }

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		d := cmp.Diff(lines(want), lines(got))
		t.Errorf("%s (-want +got):\n%.2000s", what, d)
	}
}

// singles are the stores of one directory with transactional data that this tool reads.
var singles = []string{"single-default", "single-levels", "single-lz4-ranges", "single-raftdb", "single-clean-stop", "single-titan"}

// What real clients read from the running cluster at named moments, byte for byte.
func TestDumpEqualsWhatClientsRead(t *testing.T) {
	for _, name := range singles {
		t.Run(name, func(t *testing.T) {
			s := open(t, name, "/data")
			for ts, want := range fixtures.Expect(t, name) {
				at, err := strconv.ParseUint(ts, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "at "+ts, dump(t, s, scan.DumpOptions{T: mvcc.TS(at), Format: scan.TSV}), want)
			}
		})
	}
}

// history is the acknowledged past of a fixture, with what its client does not know for sure.
type history struct {
	commits []fixtures.Commit
	facts   fixtures.FactSheet
	lo, hi  uint64
	// locked are the keys of transactions whose locks decide what is read: not in the history, or committed by their primary.
	locked map[string]uint64 // user key to the start_ts of its transaction
}

func loadHistory(t *testing.T, name string) history {
	h := history{commits: fixtures.History(t, name), facts: fixtures.Facts(t, name), locked: map[string]uint64{}}
	h.lo, h.hi = h.commits[0].CommitTS, h.facts.END
	for _, u := range h.facts.Undetermined {
		h.locked[string(u.Key)] = u.StartTS
	}
	return h
}

// rowsWithout are the lines of a dump without the keys that the history does not determine at ts.
func (h history) rowsWithout(rows []byte, ts uint64) []byte {
	var out bytes.Buffer
	for _, line := range bytes.SplitAfter(rows, []byte("\n")) {
		hexKey, _, ok := bytes.Cut(line, []byte("\t"))
		if !ok {
			continue
		}
		key, err := hex.DecodeString(string(hexKey))
		if start, unsure := h.locked[string(key)]; err == nil && unsure && start <= ts {
			continue
		}
		out.Write(line)
	}
	return out.Bytes()
}

// At any T, between the named moments too, the rows are those of the acknowledged history. The bounds of commits and the
// timestamps next to them are where an off-by-one would show.
func TestDumpAtRandomTimesEqualsHistory(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, name := range singles {
		t.Run(name, func(t *testing.T) {
			s, h := open(t, name, "/data"), loadHistory(t, name)
			for i := range 20 {
				at := h.lo + rng.Uint64N(h.hi-h.lo)
				if i%2 == 0 {
					at = h.commits[rng.IntN(len(h.commits))].CommitTS + rng.Uint64N(3) - 1
				}
				want := h.rowsWithout(fixtures.RowsAt(t, name, at), at)
				same(t, fmt.Sprint("at ", at), h.rowsWithout(dump(t, s, scan.DumpOptions{T: mvcc.TS(at), Format: scan.TSV}), at), want)
			}
		})
	}
}

// The client of a RawKV store sees keys without the API V2 prefix.
func TestDumpRawV2(t *testing.T) {
	s := open(t, "raw-v2", "/data")
	var keyspace uint32
	for ts, want := range fixtures.Expect(t, "raw-v2") {
		at, err := strconv.ParseUint(ts, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "at "+ts, dump(t, s, scan.DumpOptions{T: mvcc.TS(at), Format: scan.TSV, Keyspace: &keyspace}), want)
	}
}

// Without versions the dump is what was there last.
func TestDumpRawV1(t *testing.T) {
	for _, name := range []string{"raw-v1", "raw-v1ttl"} {
		s := open(t, name, "/data")
		last := fixtures.Facts(t, name).T3
		same(t, name, dump(t, s, scan.DumpOptions{T: mvcc.TS(last), Format: scan.TSV}), fixtures.ExpectAt(t, name, last))
		same(t, name, dump(t, s, scan.DumpOptions{T: mvcc.MaxTS, Format: scan.TSV}), fixtures.ExpectAt(t, name, last))
	}
}

// A range read in shards gives the same bytes as in one piece, wherever the borders are.
func TestShardsAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, name := range []string{"single-levels", "single-titan", "raw-v2", "raw-v1"} {
		s := open(t, name, "/data")
		v, err := s.NewView(mvcc.TS(fixtures.Facts(t, name).T3))
		if err != nil {
			t.Fatal(err)
		}
		dumpRange := func(lower, upper []byte) []byte {
			var b bytes.Buffer
			if _, err := v.Dump(context.Background(), &b, scan.DumpOptions{Format: scan.TSV, Lower: lower, Upper: upper}); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		whole := dumpRange(nil, nil)
		keys := lines(whole)
		for range 10 {
			cut := func() []byte {
				k, err := hex.DecodeString(strings.SplitN(keys[rng.IntN(len(keys)-1)], "\t", 2)[0])
				if err != nil {
					t.Fatal(err)
				}
				return k[:1+rng.IntN(len(k))]
			}
			a, b := cut(), cut()
			if bytes.Compare(a, b) > 0 {
				a, b = b, a
			}
			same(t, fmt.Sprintf("%s cut at %X and %X", name, a, b), slices.Concat(dumpRange(nil, a), dumpRange(a, b), dumpRange(b, nil)), whole)
		}
	}
}

// A lost blob file costs the rows whose values it held, each named with what to type next; all others are still printed.
func TestDumpGoesOnBehindMissingValues(t *testing.T) {
	fs := fixtures.Mem(t, "single-titan")
	const lost = "/data/db/titandb/000008.blob"
	if err := fs.Remove(lost); err != nil {
		t.Fatal(err)
	}
	s, err := scan.Open(base.NewMem(fs), "/data", scan.Options{NoRaft: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := mvcc.TS(fixtures.Facts(t, "single-titan").END)
	v, err := s.NewView(at)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	bad := 0
	res, err := v.Dump(context.Background(), &b, scan.DumpOptions{Format: scan.TSV, Bad: func(err error) {
		bad++
		if !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "key ") {
			t.Errorf("%v", err)
		}
	}})
	if !errors.Is(err, base.ErrCorrupt) || base.Next(err) == "" || bad == 0 || int64(bad) != res.Bad {
		t.Errorf("%v, %d bad, %+v", err, bad, res)
	}
	want := map[string]bool{}
	for _, l := range lines(fixtures.ExpectAt(t, "single-titan", uint64(at))) {
		want[l] = true
	}
	for _, l := range lines(b.Bytes()) {
		if !want[l] {
			t.Errorf("unexpected line %.80s", l)
		}
		delete(want, l)
	}
	if len(want) != bad {
		t.Errorf("%d rows missing, %d named", len(want), bad)
	}
}

// A cancelled dump ends early, with the class that gives exit status 130.
func TestDumpInterrupted(t *testing.T) {
	s := open(t, "single-levels", "/data")
	v, err := s.NewView(mvcc.MaxTS)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var b bytes.Buffer
	if res, err := v.Dump(ctx, &b, scan.DumpOptions{Format: scan.TSV}); !errors.Is(err, base.ErrInterrupted) {
		t.Errorf("%+v, %v", res, err)
	}
}

// JSONL has the same rows, each with its decoded key and where it comes from.
func TestDumpJSONL(t *testing.T) {
	s := open(t, "single-titan", "/data")
	at := fixtures.Facts(t, "single-titan").END
	commits := map[string]fixtures.Commit{}
	for _, c := range fixtures.History(t, "single-titan") {
		commits[fmt.Sprintf("%X", c.Key)] = c
	}
	var meter scan.Meter
	out := dump(t, s, scan.DumpOptions{T: mvcc.TS(at), Format: scan.JSONL, Meter: &meter})
	var tsv bytes.Buffer
	for _, line := range lines(bytes.TrimSpace(out)) {
		var row struct {
			Key, Value string
			Decoded    mvcc.KeyInfo `json:"key_decoded"`
			CommitTS   mvcc.TS      `json:"commit_ts"`
			CommitTime string       `json:"commit_time"`
			StartTS    mvcc.TS      `json:"start_ts"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if c := commits[row.Key]; row.CommitTS != mvcc.TS(c.CommitTS) || row.StartTS != mvcc.TS(c.StartTS) || row.CommitTime != scan.Time(row.CommitTS) || row.Decoded.Kind == "" {
			t.Errorf("%+v, history %d %d", row, c.CommitTS, c.StartTS)
		}
		fmt.Fprintf(&tsv, "%s\t%s\n", row.Key, row.Value)
	}
	same(t, "jsonl", tsv.Bytes(), fixtures.ExpectAt(t, "single-titan", at))
	if meter.Rows.Load() == 0 || meter.Done.Load() != meter.Total.Load() || meter.Total.Load() == 0 {
		t.Errorf("meter %d rows, %d of %d", meter.Rows.Load(), meter.Done.Load(), meter.Total.Load())
	}
}

// On every store that has a replica of all regions, at moments when all replicas had caught up, clients read the same.
func TestDumpOfReplicas(t *testing.T) {
	for name, stores := range map[string][]string{
		"multi3-lost2": {"/store0", "/store1", "/store2"}, "multi3-merging-late": {"/store0", "/store1", "/store2"},
		"multi4-dr-learner": {"/store0", "/store3"}, "multi5-lost3": {"/store1", "/store3", "/store4"},
	} {
		for _, dir := range stores {
			s, f := open(t, name, dir), fixtures.Facts(t, name)
			for _, at := range []uint64{f.T1, f.T2, f.T3, f.T4} {
				same(t, fmt.Sprint(name, dir, " at ", at), dump(t, s, scan.DumpOptions{T: mvcc.TS(at), Format: scan.TSV}), fixtures.ExpectAt(t, name, at))
			}
		}
	}
}

// A lock whose primary's region is not in this store cannot be decided here: the view says so, and the row reads as if the
// transaction had not committed.
func TestUndecidedLock(t *testing.T) {
	s := open(t, "single-default", "/data")
	facts := fixtures.Facts(t, "single-default")
	i := slices.IndexFunc(facts.Locks, func(l fixtures.Lock) bool {
		return !l.Async && !l.Pessimistic && !l.CommittedPrimary && len(l.Keys) == 3
	})
	if i < 0 {
		t.Fatal("the fixture has no such transaction")
	}
	primary := mvcc.LockKey(facts.Locks[i].Primary)
	s.Regions = slices.DeleteFunc(s.Regions, func(r scan.Region) bool {
		lower, upper := r.Bounds()
		return bytes.Compare(lower, primary) <= 0 && bytes.Compare(primary, upper) < 0
	})
	v, err := s.NewView(mvcc.TS(facts.END))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) != 1 {
		t.Fatalf("%v", plan.Describe(v.Problems))
	}
	u, ok := v.Problems[0].(*plan.UnresolvedLocks)
	if !ok || !slices.ContainsFunc(u.Txns, func(k plan.TxnKey) bool { return k.Primary == string(facts.Locks[i].Primary) }) {
		t.Errorf("%v", plan.Describe(v.Problems))
	}
}
