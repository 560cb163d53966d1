package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// runOn runs one command line on a file system in memory.
func runOn(t *testing.T, mem *vfs.MemFS, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	if status := newApp(memEnv(mem, &out, &talk)).run(context.Background(), args); status != want {
		t.Fatalf("%s: status %d, want %d\n%s", strings.Join(args, " "), status, want, &talk)
	}
	return out.String(), talk.String()
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

// files reads a flat directory.
func files(t *testing.T, mem *vfs.MemFS, dir string) map[string]string {
	t.Helper()
	names, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, n := range names {
		b, err := base.ReadFile(base.NewMem(mem), dir+"/"+n)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = string(b)
	}
	return out
}

// clean on the directory of a real PD, with and without the stores; then the way back.
func TestCleanPD(t *testing.T) {
	mem := fixtures.Mem(t, "multi3-merging-early", fixtures.WithPD())
	before := files(t, mem, "/pd/region-meta")
	_, talk := runOn(t, mem, 0, "clean", "-n", "/pd")
	contains(t, talk, "/pd: region-meta is set aside", "it knows 40 regions", "name the data directories of the TiKV stores")
	out, talk := runOn(t, mem, 0, "clean", "--yes", "/store0", "/pd", "/store1", "/store2")
	contains(t, talk, "are older): PD would do with it, too")
	contains(t, out, "Done: /pd is clean; region-meta lies in /pd/tikv-repair/clean-", "tikv-repair undo /pd   (until PD is started)", "Done: /store0 is clean")
	if mem, err := mem.List("/pd"); err != nil || strings.Contains(strings.Join(mem, " "), "region-meta") {
		t.Errorf("%v, %v", mem, err)
	}
	out, _ = runOn(t, mem, 0, "clean", "--yes", "/pd")
	contains(t, out, "Nothing to do in /pd: there is no region-meta")
	out, _ = runOn(t, mem, 0, "status", "/pd")
	contains(t, out, "done", "start PD; or tikv-repair undo /pd")
	runOn(t, mem, 0, "undo", "--yes", "/pd")
	after := files(t, mem, "/pd/region-meta")
	if len(after) != len(before) {
		t.Errorf("%d files, %d before", len(after), len(before))
	}
	for n, b := range before {
		if after[n] != b {
			t.Errorf("%s is not what it was", n)
		}
	}
	runOn(t, mem, 0, "undo", "--yes", "/pd")
	runOn(t, mem, 0, "discard", "--yes", "/pd")
}

// What region-meta knew that the one store which is left does not: regions that live elsewhere.
func TestCleanPDKnowsMoreThanOneStore(t *testing.T) {
	mem := fixtures.Mem(t, "multi5-lost3", fixtures.WithPD())
	out, _ := runOn(t, mem, 0, "clean", "--json", "-n", "/pd", "/store0")
	var res repair.CleanResult
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err)
	}
	m := res.Dirs[0].RegionMeta
	if res.State != repair.StateDryRun || m == nil || m.Regions != 28 || len(m.Stores) != 1 || len(m.Elsewhere) == 0 || len(m.Elsewhere) >= m.Regions {
		t.Fatalf("%+v", m)
	}
	_, talk := runOn(t, mem, 0, "clean", "-n", "/pd", "/store0")
	contains(t, talk, "are on none of stores", "region ", "version ")
	out, _ = runOn(t, mem, 0, "clean", "--json", "-n", "/pd", "/store0", "/store1", "/store2", "/store3", "/store4")
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatal(err)
	}
	if m := res.Dirs[0].RegionMeta; len(m.Elsewhere) != 0 || len(m.Newer) != 0 || len(m.Stores) != 5 {
		t.Errorf("with all stores: %+v", m)
	}
}

// A PD of one member comes back by itself; without any PD directory the steps make a new one, with ids above the largest one.
func TestPDSteps(t *testing.T) {
	mem := fixtures.Mem(t, "multi5-lost3", fixtures.WithPD())
	out, _ := runOn(t, mem, 0, "inspect", "--pd-steps", "/pd", "/store0", "/store1")
	contains(t, out, "largest id on store ", "/alloc_id, revision ", "1 of 1 voting members are here", "Ids: nothing to do", "Timestamps: nothing to do",
		"config set merge-schedule-limit 0", "back to what they were", "whose directories were not given: ", "?force'", "tikv-repair clean /pd")
	out, _ = runOn(t, mem, 0, "inspect", "--json", "--pd-steps", "/store0", "/store1")
	var s plan.PDSteps
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Route != plan.PDRouteRecover {
		t.Fatalf("%+v, %v", s, err)
	}
	contains(t, out, "pd-recover -endpoints http://127.0.0.1:2379 -cluster-id ", "-alloc-id 100000129")
	other := fixtures.Mem(t, "multi3-lost2")
	if err := vfsCopy(other, mem, "/store0", "/other"); err != nil {
		t.Fatal(err)
	}
	_, talk := runOn(t, mem, 16, "inspect", "--pd-steps", "/store0", "/other")
	contains(t, talk, "it belongs to cluster ")
}

// vfsCopy copies a tree from one file system in memory to another.
func vfsCopy(from, to *vfs.MemFS, src, dest string) error {
	st, err := from.Stat(src)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		b, err := base.ReadFile(base.NewMem(from), src)
		if err != nil {
			return err
		}
		return base.WriteFileSync(base.NewMem(to), dest, b, "")
	}
	if err := to.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	names, err := from.List(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := vfsCopy(from, to, src+"/"+n, dest+"/"+n); err != nil {
			return err
		}
	}
	return nil
}
