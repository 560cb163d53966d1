package crash

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// machine has the surviving stores of a cluster, and the command that repairs them all.
type machine struct {
	dirs   []string
	failed []uint64
	ts     mvcc.TS
	before *vfs.MemFS
	// sums are the digests of each store before and after, trees what is there after, without backups.
	old, repaired map[string]string
	trees         map[string]map[string]string
}

func newMachine(t *testing.T, name string, dirs []string, failed []uint64, ts mvcc.TS) *machine {
	t.Helper()
	m := &machine{dirs: dirs, failed: failed, ts: ts, before: vfs.NewCrashableMem(), old: map[string]string{}, repaired: map[string]string{}, trees: map[string]map[string]string{}}
	from := fixtures.Mem(t, name)
	fs := base.NewMem(m.before)
	sync := []string{"/"}
	for _, d := range dirs {
		files, err := tree(from, d)
		must(t, err)
		must(t, m.before.MkdirAll(d, 0o755))
		sync = append(sync, d)
		for _, p := range sorted(files) {
			if strings.HasSuffix(p, "/") {
				must(t, m.before.MkdirAll(path.Join(d, p), 0o755))
				sync = append(sync, path.Join(d, p))
			}
		}
		for _, p := range sorted(files) {
			if !strings.HasSuffix(p, "/") {
				must(t, base.WriteFileSync(fs, path.Join(d, p), []byte(files[p]), ""))
			}
		}
		sum, err := digestAt(fs, d)
		must(t, err)
		m.old[d] = sum
	}
	syncDirs(t, m.before, sync)
	after := m.before.CrashClone(vfs.CrashCloneCfg{})
	res, err := m.run(base.NewMem(after), now, m.dirs)
	must(t, err)
	if res.State != repair.StateDone || len(res.Stores) != len(dirs) {
		t.Fatalf("%+v", res)
	}
	for _, d := range dirs {
		sum, err := digestAt(base.NewMem(after), d)
		must(t, err)
		files, err := tree(after, d)
		must(t, err)
		m.repaired[d], m.trees[d] = sum, withoutBackups(files)
		if sum == m.old[d] {
			t.Fatalf("%s is not changed", d)
		}
	}
	return m
}

func (m *machine) run(fs base.FS, at time.Time, dirs []string) (*repair.TogetherResult, error) {
	return repair.Together(context.Background(), fs, dirs, scan.Options{}, repair.TogetherOptions{Verb: "drop-peers", Threads: 1, Now: at,
		Plan: plan.Options{PlanID: fmt.Sprintf("drop-peers-%d", at.Unix()), FailedStores: m.failed, ToTS: m.ts, SafePoint: 1}})
}

// reached is how far a store has come.
func (m *machine) reached(t *testing.T, fs *vfs.MemFS, dir string) (after, fenced bool) {
	t.Helper()
	f, err := engine.ReadFence(base.NewMem(fs), dir)
	must(t, err)
	sum, err := digestAt(base.NewMem(fs), dir)
	must(t, err)
	if sum != m.old[dir] && sum != m.repaired[dir] && (f == nil || !f.Ours) {
		t.Errorf("%s is neither what it was nor repaired, and nothing keeps TiKV from starting", dir)
	}
	return sum == m.repaired[dir], f != nil && f.Ours
}

// examine: a store without a fence is as it was, or all stores are repaired; the same command goes on, and once more changes nothing.
func (m *machine) examine(t *testing.T, label string, fs *vfs.MemFS) (begun, released int) {
	t.Helper()
	done := 0
	began := map[string]bool{}
	for _, d := range m.dirs {
		after, fenced := m.reached(t, fs, d)
		switch {
		case after && !fenced:
			released++
			done++
		case after:
			done++
		}
		if fenced {
			begun++
		}
		began[d] = after || fenced
	}
	if released > 0 && done < len(m.dirs) {
		t.Errorf("%s: %d stores may start, and only %d of %d are repaired", label, released, done, len(m.dirs))
	}
	if begun > 0 {
		m.withoutOne(t, label, fs)
	}
	res, err := m.run(base.NewMem(fs), later, m.dirs)
	if err != nil {
		t.Errorf("%s: a rerun: %v\nnext: %s", label, err, base.Next(err))
		return begun, released
	}
	if begun > 0 && (res.State != repair.StateDone || res.PlanID != fmt.Sprintf("drop-peers-%d", now.Unix())) {
		t.Errorf("%s: a rerun makes a plan of its own: %s, %s", label, res.PlanID, res.State)
	}
	for _, d := range m.dirs {
		files, err := tree(fs, d)
		must(t, err)
		// A store that the first run had not come to is written at another time, which stands in its tables.
		if diff := differ(withoutHarmless(withoutBackups(files)), m.trees[d]); diff != "" && began[d] {
			t.Errorf("%s: after a rerun, %s: %s", label, d, diff)
		}
		if after, fenced := m.reached(t, fs, d); !after && begun > 0 || fenced {
			t.Errorf("%s: after a rerun, %s: repaired %v, fenced %v", label, d, after, fenced)
		}
	}
	if res, err = m.run(base.NewMem(fs), later.Add(time.Hour), m.dirs); err != nil || res.State != repair.StateUnchanged {
		t.Errorf("%s: the second rerun says %+v, %v", label, res, err)
	}
	return begun, released
}

// withoutOne: the rerun forgets a directory, or that directory is gone. It says which store it is, and writes nothing.
func (m *machine) withoutOne(t *testing.T, label string, fs *vfs.MemFS) {
	t.Helper()
	for i := range m.dirs {
		rest := slices.Delete(slices.Clone(m.dirs), i, i+1)
		if f, err := engine.ReadFence(base.NewMem(fs), rest[0]); err != nil || f == nil {
			continue // the plan is in the one that was forgotten
		}
		before, err := tree(fs, rest[0])
		must(t, err)
		for what, c := range map[string]struct {
			dirs  []string
			class error
			says  string
		}{
			"forgets a directory": {rest, base.ErrPlanMismatch, "whose directory was not given"},
			"lost a directory":    {append(slices.Clone(rest), "/gone"), base.ErrPlanMismatch, "/gone: there is no such directory"},
		} {
			if _, err := m.run(base.NewMem(fs), later, c.dirs); !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) || base.Next(err) == "" {
				t.Errorf("%s: a rerun that %s: %v", label, what, err)
			}
		}
		after, err := tree(fs, rest[0])
		must(t, err)
		if d := differ(after, before); d != "" {
			t.Errorf("%s: a rerun without a store has written: %s", label, d)
		}
	}
}

// One command for all stores is killed between the stores, between the releases, and everywhere else.
func TestCrashTogether(t *testing.T) {
	commits := fixtures.History(t, "multi5-lost3")
	m := newMachine(t, "multi5-lost3", []string{"/store3", "/store4"}, []uint64{1, 4, 8}, mvcc.TS(commits[len(commits)-len(commits)/16].CommitTS))
	count := &faults{}
	if _, err := m.run(faultFS{base.NewMem(m.before.CrashClone(vfs.CrashCloneCfg{})), count}, now, m.dirs); err != nil {
		t.Fatal(err)
	}
	marks := []int{}
	for i, n := range count.names {
		// Around everything that has to do with a fence, and else here and there.
		if strings.Contains(n, engine.PanicMark) || strings.Contains(n, "journal.json") && strings.HasPrefix(n, "rename") || i%sparser(16) == 0 {
			marks = append(marks, i+1)
		}
	}
	seen := map[[2]int]int{}
	for _, k := range marks {
		mem := m.before.CrashClone(vfs.CrashCloneCfg{})
		f := &faults{write: k, cut: true}
		if _, err := m.run(faultFS{base.NewMem(mem), f}, now, m.dirs); err == nil {
			t.Errorf("success without power at write %d", k)
		}
		label := fmt.Sprintf("power off at write %d (%s)", k, f.failed)
		begun, released := m.examine(t, label, mem.CrashClone(vfs.CrashCloneCfg{}))
		seen[[2]int{begun, released}]++
	}
	t.Logf("%d writes, the power off at %d of them; fenced and released stores: %v", count.writes, len(marks), seen)
	for _, want := range [][2]int{{0, 0}, {1, 0}, {2, 0}, {1, 1}} {
		if seen[want] == 0 {
			t.Errorf("the power never went off with %d stores fenced and %d released", want[0], want[1])
		}
	}
}

// The power goes off between two releases, and the store that is free is started before the command is run again: the other one is released,
// whatever the first has become.
func TestCrashBetweenReleases(t *testing.T) {
	m := newMachine(t, "multi4-dr-learner", []string{"/store0", "/store3"}, []uint64{1, 8}, 0)
	const first, second = "/store3", "/store0" // by store id
	count := &faults{}
	if _, err := m.run(faultFS{base.NewMem(m.before.CrashClone(vfs.CrashCloneCfg{})), count}, now, m.dirs); err != nil {
		t.Fatal(err)
	}
	last := slices.Index(count.names, "remove "+second+"/"+engine.PanicMark)
	mem := m.before.CrashClone(vfs.CrashCloneCfg{})
	if _, err := m.run(faultFS{base.NewMem(mem), &faults{write: last + 1, cut: true}}, now, m.dirs); err == nil {
		t.Fatal("success without power")
	}
	mem = mem.CrashClone(vfs.CrashCloneCfg{})
	if _, fenced := m.reached(t, mem, first); fenced {
		t.Fatal("the first store is not released")
	}
	// What a server that runs does to its logs, as far as this is about.
	if res, err := repair.Hand(context.Background(), base.NewMem(mem), first, scan.Options{}, repair.HandOptions{Verb: repair.CutTail, Now: later,
		Force: map[string]bool{"raft-tail": true, "multi-store": true}}); err != nil || res.State != repair.StateDone {
		t.Fatal(res, err)
	}
	res, err := m.run(base.NewMem(mem), later.Add(time.Hour), m.dirs)
	if err != nil || res.State != repair.StateDone {
		t.Fatalf("%v\nnext: %s", err, base.Next(err))
	}
	if after, fenced := m.reached(t, mem, second); !after || fenced {
		t.Errorf("the second store: repaired %v, fenced %v", after, fenced)
	}
}
