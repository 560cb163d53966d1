package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Ctrl-C in any step ends a reset with status 130, and the same command again, or undo, ends in order.
func TestInterrupt(t *testing.T) {
	records := 200_000
	if testing.Short() {
		records = 50_000
	}
	ts := mvcc.TS(fixtures.Facts(t, "single-default").T2)
	store := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	before := rowsAt(t, store, ts)
	longLog(t, store, ts, records)
	for _, c := range []struct {
		at   string // what is said when the step begins
		undo bool
	}{
		{"continuing", false}, // is not said: nothing is interrupted
		{"reading what is above", false},
		{"fence up", false},
		{"writing new tables", false},
		{"writing new tables", true},
		{"reading them back", false},
		{"publishing", false},
		{"verifying", false},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(dir, os.DirFS(store)); err != nil {
			t.Fatal(err)
		}
		args := []string{"reset", "--to-ts", ts.String(), "--safe-point", "1", "--yes", "--json", "--progress=none", "--memory", "64MiB", dir}
		status, sent := interruptAt(t, c.at, args)
		want := 0
		if sent {
			want = 130
		}
		// The last steps may be over before the signal arrives.
		if status != want && (status != 0 || !sent) {
			t.Errorf("%q: exit status %d, signal sent: %v", c.at, status, sent)
		}
		t.Logf("%q: exit status %d", c.at, status)
		if c.undo {
			if out, err := exec.Command("tikv-repair", "undo", "--yes", dir).CombinedOutput(); err != nil && status == 130 {
				t.Fatalf("%q: undo: %v\n%s", c.at, err, out)
			}
			if out, err := exec.Command("tikv-repair", "status", "--json", dir).Output(); err != nil || bytes.Contains(out, []byte(`"fenced": true`)) {
				t.Errorf("%q: after undo: %v\n%s", c.at, err, out)
			}
		}
		var res repair.Result
		out, err := exec.Command("tikv-repair", args...).Output()
		if err == nil {
			err = json.Unmarshal(out, &res)
		}
		if err != nil || res.State != repair.StateDone && res.State != repair.StateUnchanged {
			t.Errorf("%q: again: %+v, %v", c.at, res, err)
		}
		if _, err := os.Stat(filepath.Join(dir, scan.SpillDirName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: the spill directory is left: %v", c.at, err)
		}
		if after := rowsAt(t, dir, mvcc.MaxTS); !bytes.Equal(after, before) {
			t.Errorf("%q: other rows than before", c.at)
		}
	}
}

// interruptAt runs the tool and sends it a signal when it says something. It returns the exit status and whether the signal was sent.
func interruptAt(t *testing.T, at string, args []string) (status int, sent bool) {
	t.Helper()
	cmd := exec.Command("tikv-repair", args...)
	talk, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(talk); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), at) {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			sent = true
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if status = cmd.ProcessState.ExitCode(); status != 0 && status != 130 {
		t.Logf("%q: %s", at, said.String())
	}
	return status, sent
}
