package runbooks

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// damage does to a file what a broken disk or a cut power line does.
//
//	flip PATH    one bit in the middle of the file, or of the first file that a pattern names
//	end PATH     the last 0.3 % of what is written in the file is zero
func (w *world) damage(t *testing.T, where string, words []string) {
	t.Helper()
	if w == nil || len(words) != 2 {
		t.Fatalf("%s: damage HOW PATH, behind a fixture", where)
	}
	found, err := filepath.Glob(w.path(words[1]))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: there is no %s (%v)", where, words[1], err)
	}
	file := found[0]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	switch words[0] {
	case "flip":
		b[len(b)/2] ^= 0x10
		err = os.WriteFile(file, b, 0o644)
	case "end":
		written := bytes.TrimRight(b, "\x00")
		clear(written[len(written)*997/1000:])
		err = os.WriteFile(file, b, 0o644)
	default:
		t.Fatalf("%s: there is no damage %s", where, words[0])
	}
	if err != nil {
		t.Fatal(err)
	}
}
