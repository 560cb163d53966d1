package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/many"
)

const manyTables = 100_000

// A store of 100,000 tables opens and answers at the cost of its MANIFEST and one read a table; a rewind of what is in its logs and top
// levels does not read the others, and no more descriptors are open than a shell allows. What exactly is read is seen in tests/many.
func TestManyTables(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 hard links")
	}
	dir := filepath.Join(fixtures.Dir(t, "single-levels"), "data")
	ts := mvcc.TS(fixtures.Facts(t, "single-levels").T3)
	if err := many.Link(base.NewOS(), dir, ts, manyTables); err != nil {
		t.Fatal(err)
	}
	run := func(into any, args ...string) time.Duration {
		t.Helper()
		args = append(args, "--json", "--progress=none", dir)
		cmd := exec.Command("sh", append([]string{"-c", `ulimit -n 512 && exec tikv-repair "$@"`, "sh"}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		began := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, errs.String())
		}
		took := time.Since(began)
		if err := json.Unmarshal(out.Bytes(), into); err != nil {
			t.Fatal(err)
		}
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		t.Logf("%s took %.2f s, %.2f s of processor", args[0], took.Seconds(), cpu.Seconds())
		return cpu
	}
	var inspected any
	run(&inspected, "inspect") // the first one may find the directory entries on the disk
	cpu := run(&inspected, "inspect")
	var res struct {
		State   string `json:"state"`
		Kept    int    `json:"files_kept"`
		Removed int64  `json:"versions_removed"`
		Read    int64  `json:"bytes_read"`
	}
	run(&res, "reset", "--to-ts", ts.String(), "--safe-point", "1", "--yes")
	if res.State != repair.StateDone || res.Kept < manyTables || res.Removed == 0 || res.Read > 1<<20 {
		t.Errorf("%+v", res)
	}
	// The goal is one second of wall clock on two cores. The time of the processor depends less on what else the machine does; a tool
	// that opens tables as files of any kind, one after the other, needs more.
	if limit := 2 * time.Second; cpu > limit {
		t.Errorf("inspect took %v of processor time", cpu)
	}
}
