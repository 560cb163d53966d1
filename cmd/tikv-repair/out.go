package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// whole refuses to print what was made of files that were not read any more because the run was interrupted.
func (a *app) whole() error {
	if a.pulse.Refused() {
		return a.interrupted()
	}
	return nil
}

// printJSON prints the one document of --json.
func (a *app) printJSON(v any) error {
	if err := a.whole(); err != nil {
		return err
	}
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return base.IO("write", "the output", e.Encode(v))
}

// jsonEach prints the elements of a JSON array one at a time, because all of them may not fit in memory. open stands before the first
// one: the bracket, and what encloses the array.
func jsonEach[T any](out *bufio.Writer, open string) func(*T) error {
	sep := open
	return func(e *T) error {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := out.WriteString(sep); err != nil {
			return err
		}
		sep = ",\n"
		_, err = out.Write(b)
		return err
	}
}

// table aligns rows of cells in columns.
type table struct {
	rows [][]string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

func (t *table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	// Writing to a strings.Builder cannot fail.
	_ = w.Flush()
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func (a *app) print(text string) error {
	if err := a.whole(); err != nil {
		return err
	}
	_, err := fmt.Fprint(a.stdout, text)
	return base.IO("write", "the output", err)
}
