package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// A $TMPDIR that cannot be used is no matter as long as the memory does for everything, and otherwise a reason to stop that says nothing
// about the store; one that is not there is not made.
func TestUnusableTempDir(t *testing.T) {
	data := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	for _, temp := range []string{file, none} {
		for _, verb := range [][]string{{"inspect"}, {"check", "--quick"}, {"check"}} {
			for _, c := range []struct {
				memory string
				status int
			}{{"512MiB", 0}, {"64KiB", 8}} {
				cmd := exec.Command("tikv-repair", append(verb, "--progress=none", "--memory", c.memory, data)...)
				cmd.Env = append(os.Environ(), "TMPDIR="+temp)
				var out, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errs
				_ = cmd.Run() // the status says it
				says := errs.String()
				if cmd.ProcessState.ExitCode() != c.status || c.status != 0 && (out.Len() > 0 || !strings.Contains(says, "put away what does not fit into --memory") || !strings.Contains(says, "set TMPDIR")) {
					t.Errorf("TMPDIR=%s, %v, %s: exit status %d\n%s%s", temp, verb, c.memory, cmd.ProcessState.ExitCode(), out.String(), says)
				}
			}
		}
	}
	if _, err := os.Stat(none); !os.IsNotExist(err) {
		t.Errorf("%s: %v", none, err)
	}
}
