// Package quorum proves the repair of a cluster that lost its quorum, and of one restored from copies taken at different moments, on
// directories that real clusters left.
package quorum

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

var now = time.Unix(1_790_000_000, 0).UTC()

// multi are the archives of several stores.
var multi = []string{"multi3-dr-autosync", "multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3"}

// storeDirs lists the data directories of an archive.
func storeDirs(t testing.TB, mem *vfs.MemFS) []string {
	t.Helper()
	names, err := mem.List("/")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, n := range names {
		if n = strings.Trim(n, "/"); strings.HasPrefix(n, "store") && !strings.Contains(n, ".") {
			out = append(out, "/"+n)
		}
	}
	if len(out) < 3 {
		t.Fatalf("the archive has the stores %v", out)
	}
	return out
}

func open(t testing.TB, fs vfs.FS, dir string) *scan.Store {
	t.Helper()
	s, err := scan.Open(base.NewMem(fs), dir, scan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func report(t testing.TB, s *scan.Store, o repair.CollectOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	o.Now, o.Tool = now, "test"
	if err := repair.Collect(context.Background(), s, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, reports ...[]byte) *plan.Input {
	t.Helper()
	in := new(plan.Input)
	for _, r := range reports {
		for line := range bytes.Lines(r) {
			if err := in.Add(line); err != nil {
				t.Fatalf("%v\n%s", err, line)
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	return in
}

// count is what a log holds, entry by entry.
type count struct {
	Entries                                     map[plan.GroupKind]uint64
	Records, Versions, Ranges, Ingests, Blocked uint64
	MinCommit, MaxCommit                        mvcc.TS
}

func (c *count) String() string { return fmt.Sprintf("%+v", *c) }

// Every region of every store is in the report, with the numbers that the store itself gives, and its log is summed up without a gap.
func TestReportSaysWhatTheStoreHolds(t *testing.T) {
	for _, name := range multi {
		mem := fixtures.Mem(t, name)
		for _, dir := range storeDirs(t, mem) {
			t.Run(name+dir, func(t *testing.T) {
				s := open(t, mem, dir)
				in := read(t, report(t, s, repair.CollectOptions{ToTS: mvcc.MaxTS}))
				if len(in.Stores) != 1 || in.Stores[0].StoreID != s.Ident.StoreID || in.Stores[0].ClusterID != s.Ident.ClusterID || len(in.Peers) != len(s.Regions) {
					t.Fatalf("%d stores, %d peers; the store has %d regions", len(in.Stores), len(in.Peers), len(s.Regions))
				}
				for i, r := range s.Regions {
					checkPeer(t, s, r, in.Peers[i])
				}
				locks, err := s.Locks()
				if err != nil {
					t.Fatal(err)
				}
				want, got := 0, 0
				for _, l := range locks {
					for _, one := range l.Locks {
						if !l.Shared && !one.Pessimistic() {
							want++
						}
					}
				}
				for _, l := range in.Locks {
					if l.Index == 0 {
						got++
					}
				}
				if got != want {
					t.Errorf("%d locks, the store has %d", got, want)
				}
			})
		}
	}
}

func checkPeer(t *testing.T, s *scan.Store, r scan.Region, p *plan.PeerReport) {
	t.Helper()
	if p.RegionID != r.ID || p.State != r.State.State {
		t.Fatalf("region %d %s is reported as %d %s", r.ID, r.State.State, p.RegionID, p.State)
	}
	if p.Fingerprint == (plan.Fingerprint{}) {
		t.Errorf("region %d has no fingerprint", r.ID)
	}
	if !r.Live() {
		if p.Usable || p.Reason == "" || len(p.Log) > 0 {
			t.Errorf("region %d is not alive: %+v", r.ID, p)
		}
		return
	}
	infos, err := s.RegionInfos(scan.RegionQuery{IDs: []uint64{r.ID}})
	if err != nil {
		t.Fatal(err)
	}
	d := infos[0].Derived
	if p.Applied != d.Applied || p.Last != d.Last || p.Commit != d.Commit || p.Truncated != d.Truncated || p.AppliedTerm == 0 || p.LastTerm == 0 {
		t.Errorf("region %d: %+v, the store says %+v", r.ID, p.RaftNumbers, d)
	}
	if p.Usable != (infos[0].Verdict.Starts == scan.StartsYes && (r.State.State == raftstate.Normal || r.State.State == raftstate.Merging)) {
		t.Errorf("region %d: usable %v (%s), state %s, TiKV starts it: %s", r.ID, p.Usable, p.Reason, r.State.State, infos[0].Verdict.Starts)
	}
	next := p.Truncated.Index + 1
	got := count{Entries: map[plan.GroupKind]uint64{}}
	for _, g := range p.Log {
		if g.First != next || g.Last < g.First {
			t.Fatalf("region %d: group %d to %d where %d comes next", r.ID, g.First, g.Last, next)
		}
		for _, b := range []uint64{p.Applied, p.Commit} {
			if g.First <= b && g.Last > b {
				t.Errorf("region %d: group %d to %d goes across %d", r.ID, g.First, g.Last, b)
			}
		}
		next = g.Last + 1
		got.Entries[g.Kind] += g.Entries()
		if g.Blocked != "" {
			got.Blocked++
		}
		if w := g.Write; w != nil {
			got.Records, got.Versions, got.Ranges, got.Ingests = got.Records+w.Records, got.Versions+w.Versions, got.Ranges+w.DeleteRanges, got.Ingests+w.Ingests
			if w.MaxCommitTS != 0 && (got.MaxCommit == 0 || w.MinCommitTS < got.MinCommit) {
				got.MinCommit = w.MinCommitTS
			}
			got.MaxCommit = max(got.MaxCommit, w.MaxCommitTS)
		}
	}
	if next != max(p.Last, p.Truncated.Index)+1 {
		t.Errorf("region %d: the groups end before %d, last is %d", r.ID, next, p.Last)
	}
	if want := countLog(t, s, r.ID, p.Truncated.Index, p.Last); want.String() != got.String() {
		t.Errorf("region %d:\nreport %s\nlog    %s", r.ID, &got, &want)
	}
}

// countLog reads the log without the grouping.
func countLog(t *testing.T, s *scan.Store, region, truncated, last uint64) count {
	t.Helper()
	c := count{Entries: map[plan.GroupKind]uint64{}}
	err := s.Raft.Entries(region, truncated+1, last+1, func(e raftstate.Entry) error {
		cmd, err := raftstate.Decode(e)
		if err != nil {
			return err
		}
		switch {
		case len(e.Data) == 0 && e.Type == raftstate.EntryNormal:
			c.Entries[plan.GroupEmpty]++
		case e.Type != raftstate.EntryNormal:
			c.Entries[plan.GroupConfChange]++
		case cmd.Admin != nil:
			c.Entries[plan.GroupAdmin]++
		case len(cmd.Requests) == 0:
			c.Entries[plan.GroupEmpty]++
		default:
			c.Entries[plan.GroupWrite]++
		}
		for _, q := range cmd.Requests {
			switch q.Op {
			case raftstate.OpDeleteRange:
				c.Ranges++
			case raftstate.OpIngest:
				c.Ingests++
			default:
				c.Records++
			}
			if q.CF != scan.CFWrite || q.Op != raftstate.OpPut && q.Op != raftstate.OpDelete {
				continue
			}
			_, ts, _ := mvcc.SplitKey(append([]byte{'z'}, q.Key...))
			if c.MaxCommit == 0 || ts < c.MinCommit {
				c.MinCommit = ts
			}
			c.MaxCommit = max(c.MaxCommit, ts)
			if w, err := mvcc.ParseWrite(q.Value); q.Op == raftstate.OpPut && err == nil && (w.Type == 'P' || w.Type == 'D') {
				c.Versions++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A report file is compressed, whole or not there, and read back to the same lines; one that was cut off is refused.
func TestReportFile(t *testing.T) {
	mem := fixtures.Mem(t, "multi3-lost2")
	fs := base.NewMem(mem)
	s := open(t, mem, "/store0")
	lines := report(t, s, repair.CollectOptions{})
	write := func(w io.Writer) error { _, err := w.Write(lines); return err }
	if err := repair.WriteReport(fs, "/report", write); err != nil {
		t.Fatal(err)
	}
	st, err := mem.Stat("/report")
	if err != nil || st.Size() > int64(len(lines))/4 {
		t.Errorf("%v, %d bytes of lines in %v", err, len(lines), st)
	}
	want := read(t, lines)
	for _, path := range []string{"/report", "/plain"} {
		if path == "/plain" {
			if err := base.WriteFileSync(fs, path, lines, ""); err != nil {
				t.Fatal(err)
			}
		}
		got := new(plan.Input)
		if err := repair.ReadReport(fs, path, got); err != nil || len(got.Peers) != len(want.Peers) {
			t.Errorf("%s: %v, %d peers", path, err, len(got.Peers))
		}
	}
	cut := lines[:bytes.LastIndexByte(lines[:len(lines)-1], '\n')+1]
	if err := base.WriteFileSync(fs, "/cut", cut, ""); err != nil {
		t.Fatal(err)
	}
	if err := repair.ReadReport(fs, "/cut", new(plan.Input)); err == nil || !strings.Contains(err.Error(), "not whole") {
		t.Errorf("a report without its end: %v", err)
	}
	if err := repair.WriteReport(fs, "/report", func(io.Writer) error { return io.ErrClosedPipe }); err == nil {
		t.Error("a writer that fails gives a report")
	}
	if after, err := mem.Stat("/report"); err != nil || after.Size() != st.Size() {
		t.Errorf("a report that was not finished replaced the old one: %v", err)
	}
}
