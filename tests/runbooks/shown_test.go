package runbooks

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

var (
	ourVerb = regexp.MustCompile(`tikv-repair ([a-z][a-z-]+)((?:\s+[^|&;#'"]+)?)`)
	ourFlag = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]*|-[a-z])\b`)
	yaml    = strings.NewReplacer("[", " ", "]", " ", ",", " ")
)

// What is shown for a fleet is not run. Its verbs and flags exist all the same.
func TestShownCommandsExist(t *testing.T) {
	w := newWorld(t, "shown", []string{"single-default", "data=/data/tikv"}, false)
	help := map[string]string{}
	commands := 0
	for _, file := range pages(t) {
		p := readPage(t, file)
		for _, s := range p.shown {
			line := s.text
			if strings.Contains(line, "command: [") {
				line = yaml.Replace(line)
			}
			for _, m := range ourVerb.FindAllStringSubmatch(strings.Join(strings.Fields(line), " "), -1) {
				commands++
				verb := m[1]
				text, ok := help[verb]
				if !ok {
					out, status := w.shell(t, "tikv-repair "+verb+" --help")
					if status != 0 {
						t.Errorf("%s:%d: there is no verb %s", filepath.Base(file), s.line+1, verb)
					}
					text = strings.Join(out, "\n")
					help[verb] = text
				}
				for _, f := range ourFlag.FindAllStringSubmatch(m[2], -1) {
					if !regexp.MustCompile(`(?m)^\s+(-\w, )?` + f[1] + `\b|^\s+` + f[1] + `,`).MatchString(text) {
						t.Errorf("%s:%d: %s has no flag %s", filepath.Base(file), s.line+1, verb, f[1])
					}
				}
			}
		}
	}
	if commands < 10 {
		t.Errorf("%d commands found", commands)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)

// anchor is the name that a heading gets in the rendered page.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "# "))) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z':
			b.WriteRune(r)
		}
	}
	return b.String()
}

// A link of the pages leads to a file of the checkout, and to a heading that it has.
func TestLinks(t *testing.T) {
	root, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, file := range append(pages(t), filepath.Join(root, "docs", "how-it-works.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			to := file
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			target, err := os.ReadFile(to)
			if err != nil {
				if st, err := os.Stat(to); err == nil && st.IsDir() {
					continue
				}
				t.Errorf("%s: %v", filepath.Base(file), err)
				continue
			}
			found := m[2] == ""
			for l := range strings.Lines(string(target)) {
				found = found || strings.HasPrefix(l, "#") && "#"+anchor(l) == m[2]
			}
			if !found {
				t.Errorf("%s: %s has no heading for %s", filepath.Base(file), filepath.Base(to), m[2])
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links found", links)
	}
}
