package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tikv-repair": main, "tikv-repair-peak": mainWithPeak})
}

// The scripts of tests/cli drive the real command line on real directories. UPDATE_SCRIPTS=1 renews their golden files.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "../../tests/cli",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// fixture NAME DIR [pd] unpacks an archive, with PD's directory if asked.
			"fixture": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 || len(args) > 3 || len(args) == 3 && args[2] != "pd" {
					ts.Fatalf("usage: fixture NAME DIR [pd]")
				}
				var with []fixtures.Option
				if len(args) == 3 {
					with = append(with, fixtures.WithPD())
				}
				fixtures.DirAt(t, args[0], ts.MkAbs(args[1]), with...)
			},
			// status N ARGS… runs tikv-repair and wants exit status N.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 1 {
					ts.Fatalf("usage: status N ARGS…")
				}
				// On a busy machine a sign of life would be in the output.
				err := ts.Exec("tikv-repair", append([]string{"--progress=none"}, args[1:]...)...)
				got := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					got = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(got) != args[0] {
					ts.Fatalf("exit status %d, want %s", got, args[0])
				}
			},
			// keys FILE prints the names of all fields of a JSON document, one path a line, into keys.txt.
			"keys": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: keys FILE")
				}
				var doc any
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &doc))
				seen := map[string]bool{}
				var out strings.Builder
				fields("", doc, func(path string) {
					if !seen[path] {
						seen[path] = true
						out.WriteString(path + "\n")
					}
				})
				ts.Check(os.WriteFile(ts.MkAbs("keys.txt"), []byte(out.String()), 0o666))
			},
		},
	})
}

// fields walks a decoded JSON document; elements of an array share one path.
func fields(path string, v any, fn func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			fn(path + k)
			fields(path+k+".", v[k], fn)
		}
	case []any:
		for _, e := range v {
			fields(path, e, fn)
		}
	}
}

func TestExitStatus(t *testing.T) {
	of := func(class, cause error) error { return &base.Error{Class: class, Op: "test", Offset: -1, Err: cause} }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{of(base.ErrProblems, nil), 1},
		{of(base.ErrCorrupt, nil), 2},
		{of(base.ErrUnsupported, nil), 2},
		{of(base.ErrPartial, nil), 3},
		{of(base.ErrIO, nil), 8},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, 8},
		{of(base.ErrNotStore, nil), 10},
		{of(base.ErrInUse, nil), 11},
		{of(base.ErrPlanMismatch, nil), 12},
		{of(base.ErrUsage, nil), 16},
		{of(base.ErrDeclined, nil), 32},
		{errors.New("unexpected"), 70},
		{of(base.ErrInterrupted, context.Canceled), 130},
		{context.Canceled, 130},
		// The outermost class counts.
		{of(base.ErrPartial, of(base.ErrIO, syscall.ENOSPC)), 3},
		{fmt.Errorf("while reading: %w", of(base.ErrCorrupt, nil)), 2},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
		if !strings.Contains(exitHelp, fmt.Sprintf("\n  %-4d ", c.want)) {
			t.Errorf("the help does not explain %d", c.want)
		}
	}
}

// inMemory is an app on a fixture in memory: no file of the machine is touched.
func inMemory(t *testing.T, fixture string) (a *app, mem *vfs.MemFS, stdout, stderr *bytes.Buffer) {
	t.Helper()
	mem, stdout, stderr = fixtures.Mem(t, fixture), new(bytes.Buffer), new(bytes.Buffer)
	return newApp(memEnv(mem, stdout, stderr)), mem, stdout, stderr
}

func memEnv(mem *vfs.MemFS, stdout, stderr io.Writer) env {
	clock := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	return env{
		fs: base.NewMem(mem), stdin: strings.NewReader(""), stdout: stdout, stderr: stderr,
		tempDir: "/tmp", now: func() time.Time { return clock },
		every: func(time.Duration, func()) func() { return func() {} }, columns: func() int { return 0 },
	}
}

func TestDumpInMemory(t *testing.T) {
	a, _, stdout, stderr := inMemory(t, "single-default")
	at := fixtures.Facts(t, "single-default").T2
	if status := a.run(context.Background(), []string{"dump", "--at", fmt.Sprint(at), "/data"}); status != 0 {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	if !bytes.Equal(stdout.Bytes(), fixtures.ExpectAt(t, "single-default", at)) {
		t.Error("the rows differ")
	}
	if want := fmt.Sprintf("timestamp %d = 2026-11-21T", at); !strings.Contains(stderr.String(), want) || !strings.Contains(stderr.String(), "before the newest commit") {
		t.Errorf("T is not echoed:\n%s", stderr)
	}
}

func TestInterrupted(t *testing.T) {
	a, _, _, stderr := inMemory(t, "single-default")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if status := a.run(ctx, []string{"dump", "--at", "470610466663301130", "/data"}); status != 130 {
		t.Errorf("status %d\n%s", status, stderr)
	}
}

// TiKV's log line format, so that the same tools read it; a second run appends.
func TestLogFile(t *testing.T) {
	mem := fixtures.Mem(t, "single-default")
	line := regexp.MustCompile(`^\[2026/01/02 15:04:05\.000 \+00:00\] \[(INFO|WARN|ERROR)\] \[[a-z]+\.go:\d+\] \[("(\\.|[^"\\])*"|[^] "]+)\]( \[[a-z_]+=("(\\.|[^"\\])*"|[^] "]*)\])*$`)
	seen := 0
	for range 2 {
		var stdout, stderr bytes.Buffer
		a := newApp(memEnv(mem, &stdout, &stderr))
		if status := a.run(context.Background(), []string{"mvcc", "--table", "70", "--handle", "100", "--log-file", "/repair.log", "/data"}); status != 0 {
			t.Fatalf("status %d\n%s", status, &stderr)
		}
		b, err := base.ReadFile(base.NewMem(mem), "/repair.log")
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		for _, l := range all {
			if !line.MatchString(l) {
				t.Errorf("not a line of TiKV's format: %s", l)
			}
		}
		if len(all) <= seen || !strings.Contains(all[len(all)-1], "[exit_status=0]") {
			t.Errorf("%d lines after %d: %q", len(all), seen, all)
		}
		seen = len(all)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]uint64{"1": 1, "512MiB": 512 << 20, "2GB": 2 << 30, "1.5 kib": 1536, "3T": 3 << 40, "7b": 7} {
		var s byteSize
		if err := s.Set(text); err != nil || uint64(s) != want {
			t.Errorf("%s: %d, %v; want %d", text, s, err, want)
		}
		var again byteSize
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s prints as %s, which reads as %d, %v", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "0", "1ZB", "NaN", "Inf", "99999999P", "MiB"} {
		var s byteSize
		if err := s.Set(text); err == nil {
			t.Errorf("%q is %d", text, s)
		}
	}
}

func TestBugReport(t *testing.T) {
	var b bytes.Buffer
	if status := reportBug(&b, "index out of range", []byte("goroutine 1")); status != 70 {
		t.Error(status)
	}
	for _, want := range []string{"error: internal error: index out of range", "next: ", "/issues", "goroutine 1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestLockLinesAreFew(t *testing.T) {
	var lines []repair.LockLine
	for i := range maxLockLines + 3 {
		lines = append(lines, repair.LockLine{Decision: []string{"remove", "commit"}[i%2], Reason: fmt.Sprintf("reason %d", i), Locks: 2})
	}
	if got := strings.Count(lockLines(lines[:maxLockLines]), "\n"); got != maxLockLines {
		t.Errorf("%d lines for %d reasons", got, maxLockLines)
	}
	got := lockLines(lines)
	for _, want := range []string{"reason 9\n", " 4 more remove; --json lists them\n", " 2 more commit; --json lists them\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if strings.Contains(got, "reason 10") {
		t.Errorf("too many lines:\n%s", got)
	}
}
