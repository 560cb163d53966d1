// Package rewind_test holds the rewind of whole stores to what real clients read, to the rules of TiKV's garbage collection and
// to real RocksDB.
package rewind_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// singles are the stores of one directory with transactional data that this tool rewinds.
var singles = []string{"single-default", "single-levels", "single-lz4-ranges", "single-raftdb", "single-clean-stop", "single-titan"}

// now is the wall clock of every repair here, so that a run can be repeated byte for byte.
var now = time.Unix(1_800_000_000, 0)

const dataDir = "/data"

// safe is a GC safe point below everything.
func safe() *mvcc.TS { sp := mvcc.TS(1); return &sp }

func open(t testing.TB, fs base.FS, dir string) *scan.Store {
	t.Helper()
	s, err := scan.Open(fs, dir, scan.Options{})
	if err != nil {
		t.Fatalf("open %s: %v\nnext: %s", dir, err, base.Next(err))
	}
	return s
}

func closing(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// reset rewinds and wants no error.
func reset(t testing.TB, fs base.FS, dir string, o repair.ResetOptions) *repair.Result {
	t.Helper()
	res, err := tryReset(fs, dir, o)
	if err != nil {
		t.Fatalf("reset to %s: %v\nnext: %s", o.T, err, base.Next(err))
	}
	return res
}

func tryReset(fs base.FS, dir string, o repair.ResetOptions) (*repair.Result, error) {
	o.Now = now
	return repair.Reset(context.Background(), fs, dir, scan.Options{}, o)
}

func to(ts mvcc.TS) repair.ResetOptions {
	return repair.ResetOptions{RewindOptions: repair.RewindOptions{T: ts, SafePoint: safe()}}
}

func forced(o repair.ResetOptions, names ...string) repair.ResetOptions {
	o.Force = map[string]bool{}
	for _, n := range names {
		o.Force[n] = true
	}
	return o
}

// dump gives the rows of a read at ts in the form of the fixtures' expected rows.
func dump(t testing.TB, s *scan.Store, ts mvcc.TS) []byte {
	t.Helper()
	v, err := s.NewView(ts)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, err = v.Dump(context.Background(), &b, scan.DumpOptions{T: ts, Format: scan.TSV, Bad: func(err error) { t.Error(err) }})
	if err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		d := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n"))
		t.Errorf("%s (-want +got):\n%.1500s", what, d)
	}
}

// rec is what a reader of RocksDB finds under one key.
type rec struct {
	kind  ikey.Kind
	seq   uint64
	value string
}

// content is the logical content of a store: column family, key, record.
type content map[string]map[string]rec

func contentOf(t testing.TB, s *scan.Store) content {
	t.Helper()
	c := content{}
	for _, name := range s.DB.Names() {
		c[name] = map[string]rec{}
		v, err := s.DB.CF(name).NewVisible(nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for ok := v.First(); ok; ok = v.Next() {
			c[name][string(v.User())] = rec{v.Kind(), v.Seq(), string(v.Value())}
		}
		if err := v.Err(); err != nil {
			t.Fatal(err)
		}
		closing(t, v)
	}
	return c
}

// withoutSeqs forgets where the records stand in time.
func (c content) withoutSeqs() content {
	out := content{}
	for cf, m := range c {
		out[cf] = map[string]rec{}
		for k, r := range m {
			r.seq = 0
			out[cf][k] = r
		}
	}
	return out
}

func (c content) clone() content {
	out := content{}
	for cf, m := range c {
		out[cf] = maps.Clone(m)
	}
	return out
}

// differ says in which keys two contents differ, at most five of them.
func differ(got, want content) string {
	var out []string
	for _, cf := range slices.Sorted(maps.Keys(want)) {
		keys := maps.Clone(want[cf])
		maps.Copy(keys, got[cf])
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			g, inGot := got[cf][k]
			w, inWant := want[cf][k]
			if g != w || inGot != inWant {
				out = append(out, fmt.Sprintf("%s %X: got %v %d %X, want %v %d %X", cf, k, inGot, g.seq, g.value, inWant, w.seq, w.value))
			}
		}
	}
	if len(got) != len(want) {
		out = append(out, fmt.Sprintf("%d column families, want %d", len(got), len(want)))
	}
	if n := len(out); n > 5 {
		out = append(out[:5], fmt.Sprintf("and %d more", n-5))
	}
	return strings.Join(out, "\n")
}

// tree is every path below a directory with a digest of its content, but our backups.
func tree(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	return fixtures.Tree(t, fs, dir, edit.BackupRoot)
}

// readOnly lets nothing be written, and tells what tried to.
func readOnly(fs vfs.FS, tried *[]string) base.FS {
	return base.NewMem(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		*tried = append(*tried, fmt.Sprint(op.Kind, " ", op.Path))
		return errors.New("nothing may be written")
	})))
}

// named are the timestamps of a fixture's expected rows, ascending.
func named(t testing.TB, name string) []mvcc.TS {
	var out []mvcc.TS
	for s := range fixtures.Expect(t, name) {
		if ts, err := strconv.ParseUint(s, 10, 64); err == nil {
			out = append(out, mvcc.TS(ts))
		}
	}
	slices.Sort(out)
	return out
}

// history computes expected rows at any time; parsing it for each is slow.
type history struct {
	commits []fixtures.Commit
	facts   fixtures.FactSheet
}

func historyOf(t testing.TB, name string) history {
	return history{commits: fixtures.History(t, name), facts: fixtures.Facts(t, name)}
}

// rowsAt is what a client reads at ts.
func (h history) rowsAt(ts mvcc.TS) []byte { return fixtures.RowsOf(h.commits, uint64(ts)) }

// around picks n moments at the commits of the history and one tick before and after them.
func (h history) around(rng *rand.Rand, n int) []mvcc.TS {
	var out []mvcc.TS
	for i := range n {
		out = append(out, mvcc.TS(h.commits[rng.IntN(len(h.commits))].CommitTS+uint64(i%3)-1))
	}
	return out
}

// seeded prints its seed; TIKV_REPAIR_SEED repeats a run.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s, ok := os.LookupEnv("TIKV_REPAIR_SEED"); ok {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// lockFate is what facts.json says about a transaction that left locks: when it committed; 0: it did not.
func lockFate(l fixtures.Lock) mvcc.TS {
	switch {
	case l.CommittedPrimary:
		return mvcc.TS(l.CommitTS)
	case l.Async:
		return mvcc.TS(l.MinCommitTS)
	}
	return 0
}

// split takes a key of the write or default column family apart; ok is false for store-local keys.
func split(key string) (prefix string, ts mvcc.TS, ok bool) {
	if len(key) == 0 || key[0] != mvcc.DataPrefix {
		return "", 0, false
	}
	p, ts, ok := mvcc.SplitKey([]byte(key))
	return string(p), ts, ok
}

func problemNames(ps []plan.Described) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Name)
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
