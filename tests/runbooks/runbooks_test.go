// Package runbooks runs what the documentation tells an operator to type: every command of docs/runbooks and README.md, in order, on
// directories that real clusters left behind, and compares what it prints and how it ends with the text.
//
// UPDATE_SCRIPTS=1 writes what the commands print now into the pages. Read the diff.
package runbooks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// command is the directory of the real program, built once.
var command string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "runbooks")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		// The flags of "make build", so that nothing is compiled twice.
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, "tikv-repair"), "../../cmd/tikv-repair")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		command = dir
		return m.Run()
	}())
}

// pages are the files whose commands are run.
func pages(t *testing.T) []string {
	t.Helper()
	root, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	books, err := filepath.Glob(filepath.Join(root, "docs", "runbooks", "*.md"))
	if err != nil || len(books) < 6 {
		t.Fatalf("%d runbooks, %v", len(books), err)
	}
	return append(books, filepath.Join(root, "README.md"))
}

func readPage(t *testing.T, file string) *page {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePage(filepath.Base(file), string(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDocumentedCommandsAreTestedCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("the program is run as it is shipped, which a short test, or one under the race detector, has nothing from")
	}
	for _, file := range pages(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			p := readPage(t, file)
			got := p.run(t)
			if len(got) == 0 || t.Failed() && os.Getenv("UPDATE_SCRIPTS") == "" {
				return
			}
			if err := os.WriteFile(file, []byte(p.with(got)), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: the output of %d commands was renewed", p.name, len(got))
		})
	}
}

// run plays a page and returns what has to be renewed.
func (p *page) run(t *testing.T) map[int][]string {
	renew := map[int][]string{}
	update := os.Getenv("UPDATE_SCRIPTS") != ""
	var w *world
	moved := false // the directories of the next worlds were somewhere else when their stores ran
	status := 0    // of the last command
	for i, s := range p.steps {
		where := fmt.Sprintf("%s:%d", p.name, s.line+1)
		if len(s.directive) > 0 {
			switch s.directive[0] {
			case "moved":
				moved = true
			case "fixture":
				w = newWorld(t, where, s.directive[1:], moved)
			case "damage":
				w.damage(t, where, s.directive[1:])
			case "rows":
				w.rows(t, where, s.directive[1:])
			default:
				t.Fatalf("%s: there is no directive %s", where, s.directive[0])
			}
			continue
		}
		if w == nil {
			t.Fatalf("%s: a command without a fixture", where)
		}
		var out []string
		if s.command == "echo $?" {
			out = []string{strconv.Itoa(status)}
			status = 0
		} else {
			if status != 0 {
				t.Errorf("%s: the command before it ended with status %d, and the page does not show that (echo $?)", where, status)
			}
			out, status = w.shell(t, s.command)
		}
		want := p.lines[s.from:s.to]
		if matches(want, out) {
			continue
		}
		if update {
			renew[i] = renewed(want, out)
			continue
		}
		t.Errorf("%s: %s\nthe page has\n%s\nprinted was (status %d)\n%s", where, s.command, strings.Join(want, "\n"), status, strings.Join(out, "\n"))
		if status != 0 {
			return nil // what follows would only tell the same
		}
	}
	if status != 0 {
		t.Errorf("%s: the last command ended with status %d, and the page does not show that (echo $?)", p.name, status)
	}
	return renew
}

// world is a directory that plays the root of a machine.
type world struct{ root, fixture string }

func newWorld(t *testing.T, where string, words []string, moved bool) *world {
	t.Helper()
	if len(words) < 2 {
		t.Fatalf("%s: fixture NAME MEMBER=PATH…", where)
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{root: root, fixture: words[0]}
	from := filepath.Join(root, "unpacked")
	var with []fixtures.Option
	if slices.ContainsFunc(words, func(s string) bool { return strings.HasPrefix(s, "pd=") }) {
		with = append(with, fixtures.WithPD())
	}
	if err := os.MkdirAll(w.path("/repair"), 0o755); err != nil {
		t.Fatal(err)
	}
	fixtures.DirAt(t, words[0], from, with...)
	for _, word := range words[1:] {
		member, path, ok := strings.Cut(word, "=")
		if !ok {
			t.Fatalf("%s: %q is not MEMBER=PATH", where, word)
		}
		to := w.path(path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(filepath.Join(from, member), to)); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if strings.HasPrefix(member, "pd") || moved {
			continue
		}
		// As if the store had always been where the page has it.
		toml := filepath.Join(to, "last_tikv.toml")
		text, err := os.ReadFile(toml)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		dir := regexp.MustCompile(`(?m)^data-dir = "(.*)"$`).FindSubmatch(text)
		if dir == nil {
			t.Fatalf("%s: %s names no data directory", where, toml)
		}
		if err := os.WriteFile(toml, bytes.ReplaceAll(text, dir[1], []byte(to)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(from); err != nil {
		t.Fatal(err)
	}
	return w
}

// rows compares what a client would read of a store now with what the live cluster had answered at a timestamp.
func (w *world) rows(t *testing.T, where string, words []string) {
	t.Helper()
	if w == nil || len(words) != 2 {
		t.Fatalf("%s: rows TIMESTAMP PATH, behind a fixture", where)
	}
	ts, err := strconv.ParseUint(words[0], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	out, status := w.shell(t, "tikv-repair dump --quiet --at 18446744073709551615 "+words[1]+" 2>/dev/null")
	want := strings.Split(strings.TrimRight(string(fixtures.RowsAt(t, w.fixture, ts)), "\n"), "\n")
	if status != 0 || !slices.Equal(out, want) {
		t.Errorf("%s: status %d, %d rows, the cluster had answered with %d others", where, status, len(out), len(want))
	}
}

// path is where a path of the page lies.
func (w *world) path(p string) string { return filepath.Join(w.root, filepath.FromSlash(p)) }

// ours are the paths of the page that lie in the world, at the beginning of a word or behind an equals sign.
var ours = regexp.MustCompile(`(^|[\s=])(/(?:data|repair|mnt)/)`)

// signOfLife is what a command says that lasts: on a busy machine the commands of the pages do.
var signOfLife = regexp.MustCompile(`^[a-z-]+(, [^:]+)?: .* (left|so far)$`)

// shell runs one command line, in /repair, as an operator would, and returns both outputs together, without the world's own path.
func (w *world) shell(t *testing.T, line string) (out []string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail; "+ours.ReplaceAllString(line, "${1}"+w.root+"${2}"))
	cmd.Dir = w.path("/repair")
	cmd.Env = append(os.Environ(), "PATH="+command+string(os.PathListSeparator)+os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC")
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	text = bytes.ReplaceAll(text, []byte(w.root+"/"), []byte("/"))
	if s := strings.TrimRight(string(text), "\n"); s != "" {
		out = strings.Split(s, "\n")
	}
	out = slices.DeleteFunc(out, signOfLife.MatchString)
	for i, l := range out {
		out[i] = strings.TrimRight(l, " ")
	}
	return out, status
}
