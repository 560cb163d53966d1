// Command tikv-repair repairs stopped TiKV stores.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Stamped by -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "unknown"
	commit  = "unknown"
)

func main() { os.Exit(Main()) }

// Main runs the tool on the machine it is on and returns the exit status.
func Main() (status int) {
	e := env{
		fs: base.NewOS(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, tempDir: os.TempDir(), now: time.Now, every: every,
		columns: func() int {
			if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil {
				return w
			}
			return 0
		},
		terminal: term.IsTerminal(int(os.Stderr.Fd())), answers: term.IsTerminal(int(os.Stdin.Fd())),
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; a second one must end the process whatever it is doing.
	context.AfterFunc(ctx, stop)
	defer func() {
		if r := recover(); r != nil {
			status = reportBug(e.stderr, r, debug.Stack())
		}
	}()
	return newApp(e).run(ctx, os.Args[1:])
}

// every calls do each time that d has passed, on a goroutine of its own, so that nothing else can hold it up.
func every(d time.Duration, do func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
				do()
			}
		}
	}()
	return func() { close(quit); <-done }
}

// reportBug tells how to report what should not have happened.
func reportBug(w io.Writer, cause any, stack []byte) int {
	if e, ok := cause.(*elsewhere); ok {
		cause, stack = e.cause, e.stack
	}
	fmt.Fprintf(w, "error: internal error: %v\n"+
		"  next: this is a bug in tikv-repair %s: report the command and all of this text at https://github.com/tikv-repair/tikv-repair/issues\n"+
		"        if the verb writes: TiKV does not start until the command has been run again or taken back with undo; see tikv-repair status\n\n%s\n",
		cause, version, stack)
	return exitBug
}
