package etcdjudge

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// pdFixtures are the archives that have pd/.
var pdFixtures = []string{"multi3-dr-autosync", "multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3"}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func open(t *testing.T, dir string) *etcd.State {
	t.Helper()
	s, err := etcd.Open(base.NewOS(), filepath.Join(dir, "member"), etcd.Options{})
	must(t, err)
	if len(s.Damage) != 0 {
		t.Errorf("%s: damage %v", dir, s.Damage)
	}
	return s
}

// diffKeys returns the first difference, "" when there is none.
func diffKeys(ours []etcd.KV, judge []KV) string {
	for i := range max(len(ours), len(judge)) {
		switch {
		case i >= len(ours):
			return fmt.Sprintf("only etcd has %q", judge[i].Key)
		case i >= len(judge):
			return fmt.Sprintf("only we have %q", ours[i].Key)
		}
		a, b := ours[i], judge[i]
		if !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) || a.Create != b.Create || a.Mod != b.Mod || a.Version != b.Version || a.Lease != b.Lease {
			return fmt.Sprintf("ours %+v, etcd's %+v", a, b)
		}
	}
	return ""
}

// diffView compares a view with what etcd serves.
func diffView(v *etcd.View, s *Served) string {
	if d := diffKeys(v.Keys, s.Keys); d != "" {
		return d
	}
	if v.Revision != s.Revision {
		return fmt.Sprintf("revision %d, etcd's %d", v.Revision, s.Revision)
	}
	if ids := slices.Sorted(maps.Keys(v.Leases)); !slices.Equal(ids, s.Leases) {
		return fmt.Sprintf("leases %x, etcd's %x", ids, s.Leases)
	}
	return ""
}

// memberLines is a member list without what a restart publishes anew.
func memberLines[M any](list []M, line func(M) string) string {
	lines := make([]string, len(list))
	for i, m := range list {
		lines[i] = line(m)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func diffMembers(ours []etcd.Member, judge []Member) string {
	a := memberLines(ours, func(m etcd.Member) string {
		return fmt.Sprintf("%x %q %v learner %v", m.ID, m.Name, m.PeerURLs, m.Learner)
	})
	b := memberLines(judge, func(m Member) string {
		return fmt.Sprintf("%x %q %v learner %v", m.ID, m.Name, m.PeerURLs, m.Learner)
	})
	if a != b {
		return fmt.Sprintf("members\n%s\netcd's\n%s", a, b)
	}
	return ""
}

// compareDump holds our reading of the files against that of etcd's libraries: the start of the log, every entry, the hard state, the
// database.
func compareDump(t *testing.T, s *etcd.State, dir string) {
	t.Helper()
	d, err := Dump(t, dir)
	must(t, err)
	if d.Error != "" {
		t.Errorf("etcd does not read the WAL: %s", d.Error)
	}
	if want := fmt.Sprintf("%016x-%016x.snap", d.StartTerm, d.StartIndex); d.StartIndex == 0 && s.Snapshot != "" || d.StartIndex != 0 && filepath.Base(s.Snapshot) != want {
		t.Errorf("start snapshot %q, etcd's %s", s.Snapshot, want)
	}
	fs := base.NewOS()
	log, err := wal.Read(fs, filepath.Join(dir, "member", "wal"), d.StartIndex)
	must(t, err)
	if want := (wal.HardState{Term: d.Term, Vote: d.Vote, Commit: d.Commit}); log.HardState != want || s.HardState != want {
		t.Errorf("hard state %+v, etcd's %+v", log.HardState, want)
	}
	if len(log.Entries) != len(d.Entries) {
		t.Fatalf("%d entries, etcd's %d", len(log.Entries), len(d.Entries))
	}
	for i, e := range log.Entries {
		if w := d.Entries[i]; e.Type != w.Type || e.Term != w.Term || e.Index != w.Index || !bytes.Equal(e.Data, w.Data) {
			t.Fatalf("entry %+v, etcd's %+v", e, w)
		}
	}
	b, notes, err := etcd.ReadBackend(fs, filepath.Join(dir, "member", "snap", "db"))
	must(t, err)
	slices.Sort(d.Leases)
	diff := diffView(b, &Served{Revision: d.Revision, Keys: d.Keys, Leases: d.Leases})
	if diff != "" || len(notes) != 0 || b.Index != d.ConsistentIndex {
		t.Errorf("database: %s, notes %v, index %d, etcd's %d", diff, notes, b.Index, d.ConsistentIndex)
	}
}

// Every key of the fixtures' PD directories is what etcd reads from the files, and what it serves once started on a copy.
func TestFixtures(t *testing.T) {
	Available(t)
	for _, name := range pdFixtures {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixtures.Dir(t, name, fixtures.WithPD()), "pd")
			s := open(t, dir)
			compareDump(t, s, dir)
			// PD's leases live for seconds: on a slow machine they may have run out before the server was asked.
			for attempt := 1; ; attempt++ {
				served, err := Serve(t, Made{Name: "pd", Dir: dir})
				must(t, err)
				if served.Revision > s.Possible.Revision && attempt < 5 {
					continue
				}
				if d := diffView(s.Possible, served) + diffMembers(s.Possible.Members, served.Members); d != "" {
					t.Error(d)
				}
				t.Logf("%d keys, revision %d: equal", len(served.Keys), served.Revision)
				return
			}
		})
	}
}

// Directories that a killed etcd left: what we read is what it serves when it is started again.
func TestKilledMembers(t *testing.T) {
	Available(t)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	for _, scenario := range []string{"tail", "segments", "snapshots", "compaction", "nospace"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			m := Make(t, scenario, seed, t.TempDir())[0]
			s := open(t, m.Dir)
			compareDump(t, s, m.Dir)
			served, err := Serve(t, m)
			must(t, err)
			if d := diffView(s.Possible, served) + diffMembers(s.Possible.Members, served.Members); d != "" {
				t.Errorf("seed %d: %s", seed, d)
			}
			if s.Possible.Revision < m.Acked {
				t.Errorf("seed %d: revision %d was acknowledged, ours is %d", seed, m.Acked, s.Possible.Revision)
			}
			compareReplay(t, s)
			if cut := slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "compaction") }); scenario == "compaction" && !cut {
				t.Errorf("seed %d: the compaction was not cut short", seed)
			}
			if scenario == "tail" && s.Commit-s.ConsistentIndex < 100 {
				t.Errorf("seed %d: a tail of only %d entries", seed, s.Commit-s.ConsistentIndex)
			}
			t.Logf("%d keys, revision %d; database at %d, commit %d, last %d, %s", len(s.Possible.Keys), s.Possible.Revision, s.ConsistentIndex, s.Commit, s.LastIndex, filepath.Base(s.Snapshot))
		})
	}
}

// compareReplay: the log replayed from its start is the database, where the start is still there.
func compareReplay(t *testing.T, s *etcd.State) {
	t.Helper()
	r, err := s.CheckReplay(base.NewOS())
	must(t, err)
	if r.Index == 0 {
		t.Logf("no replay: %s", r.Why)
		return
	}
	if len(r.Differences) != 0 || r.Index != s.ConsistentIndex {
		t.Errorf("replay to %d: %+v", r.Index, r.Differences)
	}
}

// Three members killed under load. Together they serve what one of them has as possible, and the one that we call the newest has
// every acknowledged write; alone, with --force-new-cluster, each serves what we call certain.
func TestKilledCluster(t *testing.T) {
	Available(t)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	for _, scenario := range []string{"three", "sent", "members"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			made := Make(t, scenario, seed, t.TempDir())
			var states []*etcd.State
			for _, m := range made {
				s := open(t, m.Dir)
				compareDump(t, s, m.Dir)
				compareReplay(t, s)
				states = append(states, s)
				t.Logf("%s: database %s at %d, committed %d, commit %d, last %d.%d, certain revision %d, possible %d, %v", m.Name, filepath.Base(s.Backend),
					s.ConsistentIndex, s.HardState.Commit, s.Commit, s.LastTerm, s.LastIndex, s.Certain.Revision, s.Possible.Revision, s.Notes)
			}
			c, err := etcd.Compare(states)
			must(t, err)
			if newest := states[c.Newest]; !c.Majority || newest.Possible.Revision < made[0].Acked {
				t.Errorf("newest %+v has revision %d, acknowledged %d", c, newest.Possible.Revision, made[0].Acked)
			}
			served, err := Serve(t, made...)
			must(t, err)
			var diffs []string
			for _, s := range states {
				diffs = append(diffs, diffView(s.Possible, served)+diffMembers(s.Possible.Members, served.Members))
			}
			if !slices.Contains(diffs, "") {
				t.Errorf("seed %d: the cluster serves what no member has: %q", seed, diffs)
			}
			for i, s := range states {
				served, err := ServeAlone(t, made[i])
				must(t, err)
				if d := diffView(s.Certain, served); d != "" {
					t.Errorf("seed %d: %s alone: %s", seed, made[i].Name, d)
				}
			}
		})
	}
}

// A running server is seen by each of its locks, with its pid, and not any more once it has stopped.
func TestLiveServer(t *testing.T) {
	Available(t)
	m := Make(t, "tail", 1, t.TempDir())[0]
	fs := base.NewOS()
	stop := Hold(t, m)
	_, err := etcd.Open(fs, filepath.Join(m.Dir, "member"), etcd.Options{})
	if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), "etcd-judge") || !strings.Contains(base.Next(err), "pd-server") {
		t.Errorf("%v; next: %s", err, base.Next(err))
	}
	for _, name := range []string{"0000000000000000-0000000000000000.wal", "0.tmp"} {
		c, err := fs.LockFile(filepath.Join(m.Dir, "member", "wal", name), base.Fcntl, base.LockShared)
		if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), "etcd-judge") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			must(t, c.Close())
		}
	}
	stop()
	open(t, m.Dir)
	if _, err := os.Stat(filepath.Join(m.Dir, "member", "snap", "db")); err != nil {
		t.Error(err)
	}
}
