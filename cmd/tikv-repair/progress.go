package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/scan"
)

// A run never goes longer than this without a sign of life, whatever it does.
const longestSilence = 2 * time.Second

const (
	// plainEvery leaves a busy machine some time to get to the printing.
	plainEvery = longestSilence - 200*time.Millisecond
	barEvery   = 500 * time.Millisecond
)

// beat shows on standard error what the run is doing, from now until the function that it returns is called.
func (a *app) beat(verb string) (stop func()) {
	verbDone := a.pulse.Begin(verb, nil).End
	mode := a.c.progress
	switch {
	case mode == "" && a.c.quiet:
		mode = "none"
	case mode == "" && a.terminal:
		mode = "bar"
	case mode == "":
		mode = "plain"
	}
	every, show := plainEvery, func(s base.Sign) { fmt.Fprintln(a.stderr, signText(s)) }
	switch mode {
	case "none":
		return verbDone
	case "json":
		show = func(s base.Sign) {
			if b, err := json.Marshal(signJSON(s)); err == nil {
				fmt.Fprintf(a.stderr, "%s\n", b)
			}
		}
	case "bar":
		every, show = barEvery, func(s base.Sign) { a.screen.draw(signText(s), a.columns()) }
	}
	ended := a.every(every, func() {
		if s, ok := a.pulse.Sign(); ok && !a.screen.asking() {
			show(s)
		}
	})
	return func() { ended(); a.screen.clear(); verbDone() }
}

// watch makes a pass with a meter of its own the phase that is shown, until the function that it returns is called.
func (a *app) watch(what string, m *scan.Meter) (stop func()) { return a.pulse.Begin(what, m).End }

// compute does what touches no file and therefore cannot be stopped by one; Ctrl-C leaves it behind.
func (a *app) compute(name string, do func() error) error {
	defer base.Begin(a.fs, name).End()
	type outcome struct {
		err   error
		panic *elsewhere
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil {
				o.panic = &elsewhere{r, debug.Stack()}
			}
			done <- o
		}()
		o.err = do()
	}()
	select {
	case <-a.ctx.Done():
		return a.interrupted()
	case o := <-done:
		if o.panic != nil {
			panic(o.panic)
		}
		return o.err
	}
}

// elsewhere is a panic of another goroutine, taken to where the report about bugs is made.
type elsewhere struct {
	cause any
	stack []byte
}

// signText is one line: what is done, how far it is, how fast it goes, how long it still takes.
func signText(s base.Sign) string {
	text := s.Step
	if s.Phase != "" && s.Phase != s.Step {
		text += ", " + s.Phase
	}
	var parts []string
	amount := func(n int64) string { return bytesText(uint64(max(n, 0))) }
	if s.Counting == base.Items {
		amount = func(n int64) string { return fmt.Sprint(n) }
	}
	counts := s.Counting != base.Nothing
	if counts && (s.Total > 0 || s.Done > 0) {
		p := amount(s.Done)
		if s.Total > 0 {
			p += " of " + amount(s.Total)
		}
		if s.Unit != "" {
			p += " " + s.Unit
		}
		parts = append(parts, p)
	}
	if s.Rows > 0 {
		parts = append(parts, fmt.Sprintf("%d rows", s.Rows))
	}
	if s.Counting == base.Nothing || s.Counting == base.Items {
		if s.Read > 0 {
			parts = append(parts, bytesText(uint64(s.Read))+" read")
		}
		if s.Written > 0 {
			parts = append(parts, bytesText(uint64(s.Written))+" written")
		}
	}
	if rate := s.Rate(); counts && rate > 0 {
		if s.Counting == base.Items {
			parts = append(parts, fmt.Sprintf("%.0f/s", rate))
		} else {
			parts = append(parts, bytesText(uint64(rate))+"/s")
		}
	}
	if left, ok := s.Left(); ok && counts {
		parts = append(parts, left.Round(time.Second).String()+" left")
	} else {
		parts = append(parts, s.Since.Round(time.Second).String()+" so far")
	}
	return text + ": " + strings.Join(parts, ", ")
}

// signLine is the form of --progress=json.
type signLine struct {
	Step    string   `json:"step"`
	Phase   string   `json:"phase,omitempty"`
	Done    int64    `json:"done"`
	Total   int64    `json:"total"`
	Unit    string   `json:"unit"`
	Rows    int64    `json:"rows"`
	Read    int64    `json:"bytes_read"`
	Written int64    `json:"bytes_written"`
	Seconds float64  `json:"seconds"`
	Left    *float64 `json:"seconds_left,omitempty"`
}

func signJSON(s base.Sign) signLine {
	l := signLine{Step: s.Step, Phase: s.Phase, Done: s.Done, Total: s.Total, Unit: "bytes", Rows: s.Rows, Read: s.Read, Written: s.Written, Seconds: s.Since.Seconds()}
	if s.Counting == base.Items {
		l.Unit = s.Unit
	}
	if left, ok := s.Left(); ok {
		sec := left.Seconds()
		l.Left = &sec
	}
	return l
}

// screen keeps the progress line and everything else that is printed apart: lines come from several goroutines, and on a terminal the
// progress line has to go before another one is written.
type screen struct {
	mu       sync.Mutex
	err      io.Writer
	drawn    bool
	question bool
}

// talker writes to w behind the progress line.
type talker struct {
	s *screen
	w io.Writer
}

func (t talker) Write(p []byte) (int, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.wipe()
	return t.w.Write(p)
}

// wipe: what cannot be drawn on a terminal is no reason to stop.
func (s *screen) wipe() {
	if s.drawn {
		_, _ = io.WriteString(s.err, "\r\x1b[K")
		s.drawn = false
	}
}

func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

// draw replaces the progress line; what does not fit in the columns would begin a second line, which nobody could take away again.
func (s *screen) draw(text string, columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.question {
		return // it was put after the one who draws had looked
	}
	if columns > 1 && utf8.RuneCountInString(text) >= columns {
		text = string([]rune(text)[:columns-2]) + "…"
	}
	_, _ = io.WriteString(s.err, "\r"+text+"\x1b[K")
	s.drawn = true
}

// ask stops the progress as long as the operator is thinking.
func (s *screen) ask(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.question = on
}

func (s *screen) asking() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.question
}
