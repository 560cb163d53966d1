// Command tikv-repair repairs stopped TiKV stores.
package main

import (
	"context"
	"fmt"
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
		fs: base.NewOS(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, now: time.Now, tick: time.Tick,
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

// reportBug tells how to report what should not have happened. The stack goes into the report, not on the operator's screen
// alone: it is of no use to them.
func reportBug(w interface{ Write([]byte) (int, error) }, cause any, stack []byte) int {
	fmt.Fprintf(w, "error: internal error: %v\n  next: this is a bug in tikv-repair %s; run the same command with --dry-run or a read-only verb if it wrote,\n"+
		"        and report the command, this text and the store's inspect output at https://github.com/tikv-repair/tikv-repair/issues\n\n%s", cause, version, stack)
	return exitBug
}
