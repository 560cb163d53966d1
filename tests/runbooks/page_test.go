package runbooks

import (
	"fmt"
	"strings"
)

// page is a text file of the documentation, line by line, and what in it concerns the test.
//
//	<!-- fixture NAME MEMBER=PATH… -->     a new world: directories of an archive under the paths that the text uses
//	<!-- moved -->                         after it, fixtures keep the paths that their last_tikv.toml has, as restored copies do
//	<!-- damage HOW PATH -->               bytes of a file are changed, as a broken disk would
//	<!-- rows TIMESTAMP PATH -->           the rows of a store are those that the live cluster had at the timestamp
//	```console                             a block of commands ("$ " in front) and what they print
//
// Everything else is text, other fenced blocks included: those show what other programs are told, and are not run.
type page struct {
	name  string
	lines []string
	steps []step
	// shown are the lines of all fenced blocks that are not run.
	shown []shown
}

type shown struct {
	line int
	text string
}

// step is a directive or a command.
type step struct {
	line      int      // of the directive or the command, from 0
	directive []string // its words; nil for a command
	command   string
	// from and to delimit the lines of what the command prints.
	from, to int
}

const prompt = "$ "

func parsePage(name, text string) (*page, error) {
	p := &page{name: name, lines: strings.Split(text, "\n")}
	fence, runs := "", false
	for i := 0; i < len(p.lines); i++ {
		l := p.lines[i]
		switch {
		case fence == "" && strings.HasPrefix(l, "```"):
			fence, runs = "```", l == "```console"
		case fence != "" && l == fence:
			fence = ""
		case fence != "" && !runs:
			p.shown = append(p.shown, shown{i, l})
		case fence != "" && strings.HasPrefix(l, prompt):
			s := step{line: i, command: strings.TrimPrefix(l, prompt)}
			for strings.HasSuffix(s.command, `\`) && i+1 < len(p.lines) {
				i++
				s.command = strings.TrimSuffix(s.command, `\`) + strings.TrimPrefix(p.lines[i], "> ")
			}
			s.from = i + 1
			for s.to = s.from; s.to < len(p.lines) && p.lines[s.to] != fence && !strings.HasPrefix(p.lines[s.to], prompt); s.to++ {
			}
			i = s.to - 1
			p.steps = append(p.steps, s)
		case fence != "":
			return nil, fmt.Errorf("%s:%d: a console block begins with what no command has printed", name, i+1)
		case strings.HasPrefix(l, "<!-- ") && strings.HasSuffix(l, " -->"):
			p.steps = append(p.steps, step{line: i, directive: strings.Fields(l[5 : len(l)-4])})
		}
	}
	if fence != "" {
		return nil, fmt.Errorf("%s: a fenced block has no end", name)
	}
	return p, nil
}

// with is the text of the page with other output under some commands: got has it by the number of the step.
func (p *page) with(got map[int][]string) string {
	var out []string
	at := 0
	for i, s := range p.steps {
		if lines, ok := got[i]; ok {
			out = append(append(out, p.lines[at:s.from]...), lines...)
			at = s.to
		}
	}
	return strings.Join(append(out, p.lines[at:]...), "\n")
}
