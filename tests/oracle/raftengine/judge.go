// Package raftjudge lets TiKV's own raft-engine judge raft-engine directories: a small Rust program on the crate that TiKV itself
// is built with. "make oracle-deps" builds it.
//
// A judge that is not built skips the test and says so; with TIKV_REPAIR_ORACLE=1 in the environment it fails the test instead.
// With -short no judge is asked. Opening an engine writes to its directory: the judge only ever opens copies.
package raftjudge

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// timeout ends a judge that hangs on the bytes it was given.
const timeout = 2 * time.Minute

func program() (string, error) {
	root, err := fixtures.ModuleRoot()
	return filepath.Join(root, "tests", "oracle", "raftengine", "target", "release", "raftengine-judge"), err
}

// Available skips the test (or fails it, see the package comment) unless the judge is built.
func Available(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("asks real raft-engine: not in a short run")
	}
	p, err := program()
	if err == nil {
		_, err = os.Stat(p)
	}
	if err == nil {
		return
	}
	if os.Getenv("TIKV_REPAIR_ORACLE") == "1" {
		tb.Fatalf("TIKV_REPAIR_ORACLE=1 and no judge: %v; run: make oracle-deps", err)
	}
	tb.Skipf("SKIPPED, NOT CHECKED AGAINST REAL RAFT-ENGINE: %v; run: make oracle-deps", err)
}

// Dump gives what raft-engine reads from a copy of dir, as canonical text (see src/main.rs), and ends the test when the engine
// does not open it.
func Dump(tb testing.TB, dir string, options ...string) string {
	tb.Helper()
	text, err := TryDump(tb, dir, options...)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// TryDump is Dump that returns what the engine said.
func TryDump(tb testing.TB, dir string, options ...string) (string, error) {
	tb.Helper()
	return ask(tb, "", append([]string{"dump", dir}, options...)...)
}

// DumpFS is TryDump of a directory in another file system, as in memory.
func DumpFS(tb testing.TB, fs vfs.FS, dir string, options ...string) (string, error) {
	tb.Helper()
	disk := filepath.Join(tb.TempDir(), "raft-engine")
	fixtures.CopyToDisk(tb, fs, dir, disk)
	defer os.RemoveAll(disk)
	return TryDump(tb, disk, options...)
}

// Run opens dest, a fresh copy of src (an empty engine when there is no src), and runs a script in it (see src/main.rs). It returns
// what the script's dumps printed.
func Run(tb testing.TB, src, dest, script string, options ...string) (string, error) {
	tb.Helper()
	return ask(tb, script, append([]string{"run", src, dest}, options...)...)
}

// scratch is a directory in memory where there is such a thing: an engine syncs what it cuts.
func scratch(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "raftengine-judge-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func ask(tb testing.TB, stdin string, args ...string) (string, error) {
	tb.Helper()
	Available(tb)
	p, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch(tb))
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("raft-engine: %w: %s", err, strings.TrimSpace(e.String()))
	}
	return o.String(), nil
}

// Verdict is what became of one damaged copy of a directory.
type Verdict string

// The verdicts.
const (
	Reads      Verdict = "ok"         // it opened, and every entry was read
	Refused    Verdict = "refused"    // it did not open
	Unreadable Verdict = "unreadable" // it opened, and something that it holds cannot be read
)

// Damage is what happens to one file of a directory: a byte is XORed with Mask or, with Mask 0, the file is cut at Offset. Without a
// file nothing happens.
type Damage struct {
	File   string
	Offset int
	Mask   byte
}

func (d Damage) String() string {
	switch {
	case d.File == "":
		return "none"
	case d.Mask == 0:
		return fmt.Sprintf("cut %s %d", d.File, d.Offset)
	}
	return fmt.Sprintf("flip %s %d %d", d.File, d.Offset, d.Mask)
}

// Apply changes the content of the file.
func (d Damage) Apply(b []byte) []byte {
	if d.Mask == 0 {
		return b[:d.Offset]
	}
	b = slices.Clone(b)
	b[d.Offset] ^= d.Mask
	return b
}

// Trial is one damaged copy, opened with one recovery mode.
type Trial struct {
	Mode   raftlog.Mode
	Damage Damage
}

func (t Trial) String() string { return string(t.Mode) + " " + t.Damage.String() }

// Outcome of a trial.
type Outcome struct {
	Verdict Verdict
	Why     string // of what is not Reads
	Dump    string // complete only with Reads
}

// Trials opens a fresh copy of a small directory for each trial, all in one process.
func Trials(tb testing.TB, dir string, list []Trial, options ...string) []Outcome {
	tb.Helper()
	var script strings.Builder
	for _, t := range list {
		fmt.Fprintln(&script, t)
	}
	text, err := ask(tb, script.String(), append([]string{"trials", dir}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	var out []Outcome
	var dump strings.Builder
	for line := range strings.Lines(text) {
		rest, end := strings.CutPrefix(line, "end ")
		if !end {
			dump.WriteString(line)
			continue
		}
		verdict, why, _ := strings.Cut(strings.TrimSpace(rest), " ")
		out = append(out, Outcome{Verdict(verdict), why, dump.String()})
		dump.Reset()
	}
	if len(out) != len(list) {
		tb.Fatalf("%d answers for %d trials", len(out), len(list))
	}
	return out
}

// Ours prints what our reader holds in the form of the judge's dump.
func Ours(e *raftlog.Engine) (string, error) {
	var b strings.Builder
	for _, id := range e.Groups() {
		if first, last, ok, err := e.Bounds(id); err != nil {
			return "", err
		} else if ok {
			fmt.Fprintf(&b, "region %d first %d last %d\n", id, first, last)
		} else {
			fmt.Fprintf(&b, "region %d empty\n", id)
		}
		err := e.Entries(id, 0, ^uint64(0), func(x raftstate.Entry) error {
			fmt.Fprintf(&b, "entry %d term %d len %d crc %08X\n", x.Index, x.Term, len(x.Raw), crc32.ChecksumIEEE(x.Raw))
			return nil
		})
		if err != nil {
			return "", err
		}
		for _, k := range e.Keys(id) {
			v, _ := e.Value(id, k)
			fmt.Fprintf(&b, "key %s %s\n", hexOf(k), hexOf(v))
		}
	}
	return b.String(), nil
}

func hexOf(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return fmt.Sprintf("%X", b)
}

// Region is one region of a dump.
type Region struct {
	First, Last uint64 // of the entries; both 0 when there are none
	Keys        map[string][]byte
}

// Parse reads a dump: the regions, without their entries.
func Parse(dump string) (map[uint64]Region, error) {
	out := map[uint64]Region{}
	var id uint64
	for line := range strings.Lines(dump) {
		w := strings.Fields(line)
		var err error
		switch {
		case len(w) >= 3 && w[0] == "region":
			r := Region{Keys: map[string][]byte{}}
			if id, err = strconv.ParseUint(w[1], 10, 64); err != nil {
				return nil, err
			}
			if len(w) == 6 {
				if r.First, err = strconv.ParseUint(w[3], 10, 64); err == nil {
					r.Last, err = strconv.ParseUint(w[5], 10, 64)
				}
			}
			out[id] = r
		case len(w) == 3 && w[0] == "key":
			var k, v []byte
			if k, err = hex.DecodeString(strings.Trim(w[1], "-")); err == nil {
				v, err = hex.DecodeString(strings.Trim(w[2], "-"))
			}
			out[id].Keys[string(k)] = v
		case len(w) > 0 && w[0] == "entry":
		default:
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("%w in line %q", err, line)
		}
	}
	return out, nil
}

// Diff returns the first lines in which two dumps differ, "" when they are equal.
func Diff(ours, judge string) string {
	a, b := slices.Collect(strings.Lines(ours)), slices.Collect(strings.Lines(judge))
	for i := 0; i < max(len(a), len(b)); i++ {
		x, y := "(end)\n", "(end)\n"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d: ours %q, raft-engine %q", i+1, x, y)
		}
	}
	return ""
}
