package scan_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
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
