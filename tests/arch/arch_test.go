// Package arch holds the rules of the code base that a compiler does not check: who may import whom, what pure code may touch,
// how long a file is, and words that do not belong in a finished text.
package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const module = "github.com/tikv-repair/tikv-repair/"

// maxLines bounds a file of non-test code.
const maxLines = 500

// mayImport has, for each directory, the directories of the module that its non-test code may import, both with what is below
// them. The longest matching entry counts. Arrows go down only; inside an entry everything goes.
var mayImport = map[string][]string{
	"cmd": {"repair", "scan", "plan", "engine/base", "mvcc", "raftstate"},
	// Decoding and file access are not for the command line: of the engine it sees the error classes and the seam.
	"repair":    {"scan", "plan", "engine", "mvcc", "raftstate"},
	"scan":      {"plan", "engine", "mvcc", "raftstate"},
	"plan":      {"mvcc", "raftstate"},
	"engine":    {"mvcc", "raftstate"},
	"mvcc":      {},
	"raftstate": {},
	// Leaves of the engine.
	"engine/base":       {},
	"engine/rocks/ikey": {},
	// TiKV's property collectors reach RocksDB's files through an interface: the engine of bytes knows no MVCC.
	"engine/rocks": {"engine"},
	"tests":        {"cmd", "repair", "scan", "plan", "engine", "mvcc", "raftstate"},
}

// pure rooms see no files, no clock, no log, no network and no process.
var pure = []string{"mvcc", "raftstate", "plan"}

var impureImports = []string{"os", "os/", "io/fs", "io/ioutil", "log", "log/", "net", "net/", "syscall", "path/filepath", "math/rand",
	"math/rand/", "runtime", "golang.org/x/sys/", "github.com/cockroachdb/pebble/"}

// clock are the names of package time that read or wait for the clock; durations and formatting are no clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker", "Local"}

// fileFuncs are the functions of package os that touch files. All file access goes through engine/base.
var fileFuncs = regexp.MustCompile(`^(Open.*|Create.*|ReadFile|WriteFile|ReadDir|Stat|Lstat|Remove.*|Rename|Mkdir.*|Link|Symlink|Readlink|Chmod|Chown|Lchown|Chtimes|Truncate|DirFS|CopyFS)$`)

type source struct {
	name string // slash-separated, relative to the module's root
	text []byte
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// sources reads the files of the checkout with one of the endings.
func sources(t *testing.T, endings ...string) []source {
	t.Helper()
	root, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "tests/oracle/raftengine/target"}, rel) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(rel, e) }) {
			return nil
		}
		b, err := os.ReadFile(p)
		all = append(all, source{rel, b})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no file with one of %q", endings)
	}
	return all
}

func parse(t *testing.T, s source) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), s.name, s.text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func below(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// room returns the entry of mayImport for a directory.
func room(dir string) (string, bool) {
	best, found := "", false
	for r := range mayImport {
		if below(dir, r) && len(r) >= len(best) {
			best, found = r, true
		}
	}
	return best, found
}

func imports(t *testing.T, f *ast.File) []string {
	t.Helper()
	var all []string
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestArrowsGoDown(t *testing.T) {
	for _, s := range sources(t, ".go") {
		if s.isTest() {
			continue
		}
		from, ok := room(path.Dir(s.name))
		if !ok {
			t.Errorf("%s is in no room: give its directory an entry in mayImport", s.name)
			continue
		}
		for _, imp := range imports(t, parse(t, s)) {
			to, ours := strings.CutPrefix(imp, module)
			if !ours || below(to, from) {
				continue
			}
			if !slices.ContainsFunc(mayImport[from], func(dir string) bool { return below(to, dir) }) {
				t.Errorf("%s imports %s: %s may import %v", s.name, to, from, mayImport[from])
			}
		}
	}
}

func isPure(name string) bool {
	return slices.ContainsFunc(pure, func(dir string) bool { return below(name, dir) })
}

func TestPureRooms(t *testing.T) {
	for _, s := range sources(t, ".go") {
		if s.isTest() || !isPure(s.name) {
			continue
		}
		f := parse(t, s)
		for _, imp := range imports(t, f) {
			if slices.ContainsFunc(impureImports, func(p string) bool {
				return imp == p || strings.HasSuffix(p, "/") && strings.HasPrefix(imp, p)
			}) {
				t.Errorf("%s imports %s: %v are pure", s.name, imp, pure)
			}
		}
		selectors(f, func(pkg, name string) {
			switch {
			case pkg == "time" && slices.Contains(clock, name):
				t.Errorf("%s uses time.%s: pure code gets the time as an argument", s.name, name)
			case pkg == "fmt" && strings.HasPrefix(name, "Print"):
				t.Errorf("%s uses fmt.%s: pure code returns what is to be said", s.name, name)
			}
		})
	}
}

func TestFilesOnlyThroughTheSeam(t *testing.T) {
	for _, s := range sources(t, ".go") {
		if s.isTest() || below(s.name, "tests") || below(s.name, "engine/base") {
			continue
		}
		selectors(parse(t, s), func(pkg, name string) {
			if pkg == "os" && fileFuncs.MatchString(name) {
				t.Errorf("%s uses os.%s: files are reached through engine/base", s.name, name)
			}
		})
	}
}

// selectors calls f for each pkg.Name in the file; pkg is the identifier as written.
func selectors(file *ast.File, f func(pkg, name string)) {
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				f(x.Name, sel.Sel.Name)
			}
		}
		return true
	})
}

func TestFileLength(t *testing.T) {
	for _, s := range sources(t, ".go") {
		if n := bytes.Count(s.text, []byte("\n")); !s.isTest() && n > maxLines {
			t.Errorf("%s has %d lines, at most %d", s.name, n, maxLines)
		}
	}
}

// The shipped binary is static: cgo belongs to tests with the tag rocksdb.
func TestNoCgo(t *testing.T) {
	for _, s := range sources(t, ".go") {
		for _, imp := range imports(t, parse(t, s)) {
			if imp != "C" && !strings.HasPrefix(imp, "github.com/linxGnu/grocksdb") {
				continue
			}
			if !bytes.Contains(s.text, []byte("//go:build rocksdb\n")) {
				t.Errorf("%s imports %s without //go:build rocksdb", s.name, imp)
			}
			if !s.isTest() && !below(s.name, "tests") {
				t.Errorf("%s imports %s: only tests may", s.name, imp)
			}
		}
	}
}

func TestNothingLeftBehind(t *testing.T) {
	// Put together here, so that this file does not find itself.
	unfinished := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	// Directories of one person's machine.
	machine := regexp.MustCompile(`(^|[^A-Za-z0-9_.)}])/(wo` + `rk|fa` + `rm|ro` + `ot|ho` + `me|Us` + `ers|tmp/f` + `x)/[a-zA-Z0-9_]`)
	for _, s := range sources(t, ".go", ".java", ".rs", ".sh", ".md", ".toml", ".conf", ".yml", ".yaml", ".txt", ".txtar", "Makefile", ".ci/run", ".ci/fuzz") {
		for i, line := range bytes.Split(s.text, []byte("\n")) {
			for what, re := range map[string]*regexp.Regexp{"unfinished": unfinished, "a path of one machine": machine} {
				if m := re.Find(line); m != nil {
					t.Errorf("%s:%d: %s: %q", s.name, i+1, what, m)
				}
			}
		}
	}
}
