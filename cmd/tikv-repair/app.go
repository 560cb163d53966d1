package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/scan"
)

// env is the world around the tool: tests bring their own.
type env struct {
	fs             base.FS
	stdin          io.Reader
	stdout, stderr io.Writer
	tempDir        string
	now            func() time.Time
	every          func(d time.Duration, do func()) (stop func()) // calls do again and again, until stop has returned
	columns        func() int                                     // of the terminal; 0 is unknown
	terminal       bool                                           // stderr is a terminal: progress may move
	answers        bool                                           // stdin is a terminal: questions can be answered
}

// app is one run of the command line.
type app struct {
	env
	root   *cobra.Command
	log    *logger
	c      common
	pulse  *base.Pulse
	bare   base.FS // below the pulse
	temp   string  // for what verbs that only read have no memory for
	screen *screen
	ctx    context.Context // of the run
	beats  func()          // ends the progress
	// inVerb: the command line was understood; errors from here on are not about usage.
	inVerb bool
}

// common are the flags of all verbs.
type common struct {
	threads  int
	memory   byteSize
	quiet    bool
	json     bool
	logFile  string
	progress string

	walDir, raftDir, raftWALDir, titanDir string
}

func newApp(e env) *app {
	a := &app{env: e, log: &logger{now: e.now}, screen: &screen{err: e.stderr}, ctx: context.Background(), beats: func() {}}
	a.pulse = base.NewPulse(e.now, a.interrupted)
	a.temp = e.fs.PathJoin(e.tempDir, "tikv-repair-"+rand.Text())
	a.bare, a.fs = e.fs, a.pulse.Watch(e.fs)
	a.stderr, a.stdout = talker{a.screen, e.stderr}, talker{a.screen, e.stdout}
	root := &cobra.Command{
		Use:   "tikv-repair",
		Short: "Repair stopped TiKV stores",
		Long: "tikv-repair reads and repairs the data directories of stopped TiKV stores.\n\n" +
			"A verb that writes shows first what it would do, asks, and can be taken back with undo. All others only read.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetIn(e.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetUsageTemplate(strings.TrimRight(root.UsageTemplate(), "\n") + "\n\n" + exitHelp)
	f := root.PersistentFlags()
	f.SortFlags = false
	f.IntVar(&a.c.threads, "threads", runtime.GOMAXPROCS(0), "how many threads read and write")
	f.Lookup("threads").DefValue = "one a core"
	a.c.memory = 512 << 20
	f.Var(&a.c.memory, "memory", "bound of the memory: what does not fit goes to disk, into the store that is changed, else into $TMPDIR")
	f.BoolVarP(&a.c.quiet, "quiet", "q", false, "print results and errors only")
	f.BoolVar(&a.c.json, "json", false, "one JSON document on standard output")
	f.StringVar(&a.c.logFile, "log-file", "", "append what is said and done to this `file`, in TiKV's log format")
	f.StringVar(&a.c.progress, "progress", "", "progress on standard error: bar, plain, json or none (default: bar on a terminal, else plain)")
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error { return a.begin(cmd, args) }
	root.AddCommand(
		a.withLimits(a.withPDSteps(a.inspectCmd())), a.mvccCmd(), a.scanCmd(), a.dumpCmd(),
		a.checkCmd(), a.regionCmd(), a.raftLogCmd(),
		a.collectCmd(), a.planCmd(), a.applyCmd(), a.releaseCmd(), a.dropPeersCmd(),
		a.resetCmd(),
		a.verifyCmd(),
		a.statusCmd(),
		a.applyTailCmd(),
		a.cutTailCmd(),
		a.tombstoneCmd(),
		a.setPeersCmd(),
		a.cleanCmd(),
		a.undoCmd(),
		a.discardCmd(),
		a.versionCmd(),
	)
	root.InitDefaultHelpCmd()
	a.root = root
	return a
}

// begin checks the common flags.
func (a *app) begin(cmd *cobra.Command, args []string) error {
	if a.c.threads < 1 {
		return usagef("--threads must be at least 1")
	}
	switch a.c.progress {
	case "", "bar", "plain", "json", "none":
	default:
		return usagef("--progress is bar, plain, json or none, not %q", a.c.progress)
	}
	// What is not on Go's heap, the program itself above all, takes about 24 MiB; while garbage is collected, the heap grows by some more.
	debug.SetMemoryLimit(max(int64(a.c.memory)-28<<20, int64(a.c.memory)/2))
	a.inVerb = true
	if a.c.logFile != "" {
		// The log tells of an interruption, too.
		if err := a.log.open(a.bare, a.c.logFile); err != nil {
			return err
		}
		a.log.info("tikv-repair starts", "version", version, "verb", cmd.Name(), "args", strings.Join(args, " "))
	}
	a.beats = a.beat(cmd.Name())
	return nil
}

// interrupted is the error of a run that has been asked to end.
func (a *app) interrupted() error {
	select {
	case <-a.ctx.Done():
		return &base.Error{Class: base.ErrInterrupted, Op: "interrupted", Offset: -1, Err: context.Cause(a.ctx)}
	default:
		return nil
	}
}

// run executes one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	a.root.SetArgs(args)
	a.ctx = ctx
	err := a.root.ExecuteContext(ctx)
	// As a rule there is none. Where it cannot be looked for, nothing was put.
	if ok, e := base.Exists(a.bare, a.temp); e == nil && ok {
		if e := a.bare.RemoveAll(a.temp); e != nil && err == nil {
			err = base.IO("remove", a.temp, e)
		}
	}
	a.beats()
	if err != nil && !a.inVerb && exitStatus(err) == exitBug {
		// What cobra and pflag complain about is the command line.
		err = &base.Error{Class: base.ErrUsage, Op: "usage", Offset: -1, Reason: err.Error(), Next: "tikv-repair help"}
	}
	if bare := !errors.As(err, new(*base.Error)); a.pulse.Refused() && exitStatus(err) != exitInterrupted || bare && errors.Is(err, context.Canceled) {
		// What a verb makes of a file operation that was not done any more, be it a finding, is nothing but the interruption.
		err = &base.Error{Class: base.ErrInterrupted, Op: "interrupted", Offset: -1, Err: err, Next: base.Next(err)}
	}
	status := exitStatus(err)
	if err != nil {
		printError(a.stderr, err)
		a.log.error(err.Error(), "next", base.Next(err))
	}
	a.log.info("tikv-repair ends", "exit_status", fmt.Sprint(status))
	if err := a.log.close(); err != nil {
		printError(a.stderr, err)
		if status == exitOK {
			status = exitStatus(err)
		}
	}
	return status
}

// say talks to the operator, on standard error and into the log.
func (a *app) say(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if !a.c.quiet {
		fmt.Fprintln(a.stderr, msg)
	}
	a.log.info(msg)
}

// warn is say that --quiet does not silence.
func (a *app) warn(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	fmt.Fprintln(a.stderr, "warning: "+msg)
	a.log.warn(msg)
}

// storeFlags add the overrides of a store's directories to a verb.
func (a *app) storeFlags(f *pflag.FlagSet) {
	f.StringVar(&a.c.walDir, "wal-dir", "", "the `directory` of the key-value database's write-ahead log")
	f.StringVar(&a.c.raftDir, "raft-dir", "", "the `directory` of raft-engine or of the raft RocksDB")
	f.StringVar(&a.c.raftWALDir, "raft-wal-dir", "", "the `directory` of the raft RocksDB's write-ahead log")
	f.StringVar(&a.c.titanDir, "titan-dir", "", "the `directory` of Titan's blob files")
}

// overridden tells whether a directory of the store was named.
func (c *common) overridden() bool { return c.walDir+c.raftDir+c.raftWALDir+c.titanDir != "" }

// scanOptions are the options of an opened store.
func (a *app) scanOptions() scan.Options {
	o := scan.Options{Mode: base.LockShared, Memory: int64(a.c.memory), TempDir: a.temp}
	o.Overrides.WALDir, o.Overrides.RaftDir = a.c.walDir, a.c.raftDir
	o.Overrides.RaftWALDir, o.Overrides.TitanDir = a.c.raftWALDir, a.c.titanDir
	return o
}

// openStore opens a store for reading.
func (a *app) openStore(dir string, o scan.Options) (*scan.Store, error) {
	s, err := scan.Open(a.fs, dir, o)
	if err != nil {
		return nil, err
	}
	for _, w := range s.Layout.Warnings {
		a.warn("%s", w)
	}
	a.log.info("store opened", "dir", dir, "cluster_id", fmt.Sprint(s.Ident.ClusterID), "store_id", fmt.Sprint(s.Ident.StoreID))
	return s, nil
}

// dirArgs wants n directories at least, and one at most when many is false.
func dirArgs(many bool) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usagef("which directory? Give the data directory of a stopped TiKV store")
		case len(args) > 1 && !many:
			return usagef("one directory at a time, not %d", len(args))
		}
		return nil
	}
}

// readOptions leave the raft store alone: verbs that look at rows do not need it, and can then work when it is damaged.
func (a *app) readOptions() scan.Options {
	o := a.scanOptions()
	o.NoRaft = true
	return o
}
