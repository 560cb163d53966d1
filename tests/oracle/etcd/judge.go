// Package etcdjudge lets real etcd, in the version that PD 8.5 embeds, judge member directories: a small program in a module of its
// own (judge/), so that nothing that is shipped depends on etcd's server. "make oracle-deps" builds it.
//
// A judge that is not built skips the test and says so; with TIKV_REPAIR_ORACLE=1 in the environment it fails the test instead. With
// -short no judge is asked. etcd writes to what it opens: the judge only ever gets copies.
package etcdjudge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// timeout ends a judge that hangs on the bytes it was given.
const timeout = 2 * time.Minute

// KV is one key as etcd has it.
type KV struct {
	Key, Value                  []byte
	Create, Mod, Version, Lease int64
}

// Member is one member of the list that etcd serves.
type Member struct {
	ID                   uint64
	Name                 string
	PeerURLs, ClientURLs []string
	Learner              bool
}

// Entry is one entry of the log.
type Entry struct {
	Type, Term, Index uint64
	Data              []byte
}

// Dumped is what etcd's libraries read: the WAL from its start snapshot, the database without the log.
type Dumped struct {
	Error                 string // of the WAL: then nothing of it is there
	Term, Vote, Commit    uint64
	StartIndex, StartTerm uint64
	Entries               []Entry

	ConsistentIndex         uint64
	Revision, FirstRevision int64
	Keys                    []KV
	Leases                  []int64
}

// Served is what a client of a started server reads.
type Served struct {
	Revision int64
	Keys     []KV
	Leases   []int64 // ascending
	Members  []Member
}

// Made is a data directory that the judge made and whose server it killed.
type Made struct {
	Name, Dir, PeerPort string
	Acked               int64 // revision of the last change that a client was told of
}

func program() (string, error) {
	root, err := fixtures.ModuleRoot()
	return filepath.Join(root, ".cache", "oracle", "etcd-judge"), err
}

// Available skips the test (or fails it, see the package comment) unless the judge is built.
func Available(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("asks real etcd: not in a short run")
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
	tb.Skipf("SKIPPED, NOT CHECKED AGAINST REAL ETCD: %v; run: make oracle-deps", err)
}

func command(tb testing.TB, args ...string) *exec.Cmd {
	tb.Helper()
	Available(tb)
	p, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	tb.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, p, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tb.TempDir())
	return cmd
}

func ask(tb testing.TB, answer any, args ...string) error {
	tb.Helper()
	cmd := command(tb, args...)
	var out, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &e
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("etcd: %w: %s", err, strings.TrimSpace(e.String()))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(out.Bytes(), answer)
}

// copyOf copies a data directory's member/ for etcd to write to.
func copyOf(tb testing.TB, dir string) string {
	tb.Helper()
	to := filepath.Join(tb.TempDir(), "copy")
	CopyMember(tb, dir, to)
	return to
}

// CopyMember copies member/ of a data directory. Holes stay holes.
func CopyMember(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command("cp", "-R", "--sparse=always", filepath.Join(from, "member"), filepath.Join(to, "member")).CombinedOutput(); err != nil {
		tb.Fatalf("cp: %v: %s", err, out)
	}
}

// Dump asks what a copy of the data directory holds.
func Dump(tb testing.TB, dir string) (*Dumped, error) {
	tb.Helper()
	d := &Dumped{}
	return d, ask(tb, d, "dump", copyOf(tb, dir))
}

// Serve starts copies of these members together and asks what they serve.
func Serve(tb testing.TB, members ...Made) (*Served, error) {
	tb.Helper()
	return serve(tb, nil, members)
}

// ServeAlone starts a copy of one member with --force-new-cluster.
func ServeAlone(tb testing.TB, member Made) (*Served, error) {
	tb.Helper()
	return serve(tb, []string{"-force-new-cluster"}, []Made{member})
}

func serve(tb testing.TB, flags []string, members []Made) (*Served, error) {
	tb.Helper()
	args := append([]string{"serve"}, flags...)
	for _, m := range members {
		args = append(args, m.Name+"="+copyOf(tb, m.Dir)+"="+m.PeerPort)
	}
	s := &Served{}
	return s, ask(tb, s, args...)
}

// Hold runs a member on dir itself until the test ends or stop is called.
func Hold(tb testing.TB, m Made) (stop func()) {
	tb.Helper()
	cmd := command(tb, "hold", m.Name+"="+m.Dir+"="+m.PeerPort)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			in.Close()
			if err := cmd.Wait(); err != nil {
				tb.Errorf("etcd: %v", err)
			}
		}
	}
	tb.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "serving\n" {
		rest, _ := io.ReadAll(out)
		tb.Fatalf("etcd: %q %s %v", line, rest, err)
	}
	return stop
}

// Make makes the directories of a scenario (see judge/make.go) below out.
func Make(tb testing.TB, scenario string, seed int64, out string) []Made {
	tb.Helper()
	if err := ask(tb, nil, "make", scenario, fmt.Sprint(seed), out); err != nil {
		tb.Fatalf("scenario %s, seed %d: %v", scenario, seed, err)
	}
	b, err := os.ReadFile(filepath.Join(out, "members.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var made []Made
	if err := json.Unmarshal(b, &made); err != nil {
		tb.Fatal(err)
	}
	return made
}
