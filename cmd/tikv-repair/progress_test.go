package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// beating is an app whose heart beats when the test says so.
func beating(out io.Writer) (a *app, clock *time.Time, beat *func(), every *time.Duration) {
	e := memEnv(vfs.NewMem(), io.Discard, out)
	clock, beat, every = new(time.Time), new(func()), new(time.Duration)
	*clock = e.now()
	e.now = func() time.Time { return *clock }
	e.every = func(d time.Duration, do func()) func() { *every, *beat = d, do; return func() { *beat = nil } }
	return newApp(e), clock, beat, every
}

// What each form of progress says at a beat, of a phase with and without numbers.
func TestProgress(t *testing.T) {
	type phase func(a *app) *base.Phase
	bytesOf := func(a *app) *base.Phase {
		p := base.Begin(a.fs, "reading what is above T").Needs(base.Bytes, 4<<30, "")
		p.Rows.Store(12)
		p.Done.Store(1 << 30)
		return p
	}
	items := func(a *app) *base.Phase {
		p := base.Begin(a.fs, "collecting").Items(4000, "regions")
		if err := p.Did(1000); err != nil {
			t.Error(err)
		}
		return p
	}
	for _, c := range []struct {
		mode  string
		phase phase
		want  string
	}{
		{"plain", bytesOf, "reset, reading what is above T: 1GiB of 4GiB, 12 rows, 102.4MiB/s, 30s left\n"},
		{"plain", items, "reset, collecting: 1000 of 4000 regions, 100/s, 30s left\n"},
		{"plain", func(a *app) *base.Phase { return base.Begin(a.fs, "deciding the locks") }, "reset, deciding the locks: 10s so far\n"},
		{"plain", func(a *app) *base.Phase { return base.Begin(a.fs, "replaying").Reads(1 << 20) }, "reset, replaying: 0B of 1MiB, 10s so far\n"},
		{"plain", nil, "reset: 1m10s so far\n"},
		{"json", bytesOf, `{"step":"reset","phase":"reading what is above T","done":1073741824,"total":4294967296,"unit":"bytes","rows":12,"bytes_read":0,"bytes_written":0,"seconds":10,"seconds_left":30}` + "\n"},
		{"json", items, `{"step":"reset","phase":"collecting","done":1000,"total":4000,"unit":"regions","rows":0,"bytes_read":0,"bytes_written":0,"seconds":10,"seconds_left":30}` + "\n"},
		{"bar", items, "\rreset, collecting: 1000 of 4000 region…\x1b[K"},
		{"none", items, ""},
	} {
		var out bytes.Buffer
		a, clock, beat, every := beating(&out)
		a.columns = func() int { return 40 }
		a.c.progress = c.mode
		stop := a.beat("reset")
		*clock = clock.Add(time.Minute)
		if c.phase != nil {
			defer c.phase(a).End()
		}
		*clock = clock.Add(10 * time.Second)
		if c.mode == "none" {
			if *beat != nil {
				t.Errorf("--progress=none beats")
			}
			stop()
			continue
		}
		if *every <= 0 || *every > longestSilence {
			t.Errorf("%s: a beat every %s", c.mode, *every)
		}
		(*beat)()
		if got := out.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.mode, got, c.want)
		}
		stop()
		if c.mode == "bar" && !strings.HasSuffix(out.String(), "\r\x1b[K") {
			t.Errorf("the line stays on the terminal: %q", out.String())
		}
	}
}

// What is said takes the progress line away first; a question is not interrupted by it.
func TestProgressAndTalk(t *testing.T) {
	var out bytes.Buffer
	a, _, beat, _ := beating(&out)
	a.c.progress = "bar"
	stop := a.beat("undo")
	(*beat)()
	a.say("hello")
	a.screen.ask(true)
	(*beat)()
	a.screen.ask(false)
	stop()
	if got, want := out.String(), "\rundo: 0s so far\x1b[K\r\x1b[Khello\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Phases hide each other, whichever ends first.
func TestPhases(t *testing.T) {
	a, _, _, _ := beating(io.Discard)
	at := func() string {
		s, ok := a.pulse.Sign()
		if !ok {
			return "-"
		}
		return s.Step + "/" + s.Phase
	}
	got := []string{at()}
	one := base.Begin(a.fs, "one")
	got = append(got, at())
	two := base.Begin(a.fs, "two")
	three := base.Begin(a.fs, "three")
	got = append(got, at())
	two.End()
	two.End()
	got = append(got, at())
	three.End()
	got = append(got, at())
	one.End()
	got = append(got, at())
	if want := "- one/ one/three one/three one/ -"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", strings.Join(got, " "), want)
	}
}

// The heart beats while nothing else happens, and not after its end.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		stop := every(time.Second, func() { n++ })
		time.Sleep(10*time.Second + time.Millisecond) // of the clock in this bubble
		stop()
		time.Sleep(10 * time.Second)
		if n != 10 {
			t.Errorf("%d beats in 10 seconds", n)
		}
	})
}

// A question ends with the run.
func TestInterruptedQuestion(t *testing.T) {
	e := memEnv(vfs.NewMem(), io.Discard, io.Discard)
	in, _ := io.Pipe() // nobody answers
	e.stdin, e.answers = in, true
	a := newApp(e)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a.ctx = ctx
	if ok, err := a.ask("Sure?", false); ok || !errors.Is(err, base.ErrInterrupted) {
		t.Errorf("%v, %v", ok, err)
	}
}

// Nothing is drawn over a question, not even by one who looked before it was put.
func TestNothingIsDrawnOverAQuestion(t *testing.T) {
	var errs bytes.Buffer
	a := newApp(memEnv(vfs.NewMem(), io.Discard, &errs))
	a.screen.draw("a bar", 80)
	a.screen.ask(true)
	fmt.Fprint(a.stderr, "Sure? ")
	a.screen.draw("a late bar", 80)
	if got := errs.String(); !strings.HasSuffix(got, "\x1b[KSure? ") {
		t.Errorf("%q", got)
	}
}

func buggy() error { panic("a bug") }

// A computation is left behind by Ctrl-C; its error and its bug come out.
func TestCompute(t *testing.T) {
	a := newApp(memEnv(vfs.NewMem(), io.Discard, io.Discard))
	want := errors.New("no")
	if err := a.compute("x", func() error { return want }); err != want {
		t.Error(err)
	}
	func() {
		defer func() {
			var b bytes.Buffer
			reportBug(&b, recover(), debug.Stack())
			if s := b.String(); !strings.Contains(s, "error: internal error: a bug\n") || !strings.Contains(s, "tikv-repair.buggy(") {
				t.Errorf("it does not say where the bug is:\n%s", s)
			}
		}()
		_ = a.compute("x", buggy)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a.ctx = ctx
	never := make(chan struct{})
	defer close(never)
	if err := a.compute("x", func() error { <-never; return nil }); !errors.Is(err, base.ErrInterrupted) {
		t.Error(err)
	}
}
