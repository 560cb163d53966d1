package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

type resetOptions struct {
	toTS, safePoint string
	tail            string
	pd, force       []string
	dryRun, yes     bool
}

func (a *app) resetCmd() *cobra.Command {
	var o resetOptions
	cmd := &cobra.Command{
		Use:   "reset --to-ts T DIR…",
		Short: "Rewind a store to a consistent timestamp T",
		Long: `reset makes the version at T the newest one of every key. Everything committed after T goes physically; locks are decided by their
transactions; log entries that are not applied cannot bring anything back. It prints what would be lost and asks before anything is written. What it
replaces is kept as hard links in DIR/tikv-repair/<plan-id>/ until discard, and undo takes it back until TiKV has been started.

T is a TSO, or a time with a zone (RFC 3339), which covers its whole millisecond; with --pd also min-resolved-ts: what PD knew to be
consistent over all stores.

Log entries that are not applied are dealt with region by region, each with its reason in the preview. --tail=auto, the default, keeps what cannot
matter, applies first what can be applied, and makes the rest harmless: by a raised epoch (neutralise), or, where an entry is applied whatever its
epoch, by ending the log at the applied index (drop). apply, keep, neutralise and drop ask for one way for all regions; where that is not safe it is
the problem tail-strategy. Data at or below T that goes with a tail is the problem raft-tail.

T must not be below the cluster's GC safe point: versions visible at T may be gone then. --pd takes it from the data directory of the stopped
PD, --safe-point states it (of both the larger counts); with --force=unknown-safe-point the operator answers for it, and every
write record is looked at.

With the directories of all stores of a cluster, every store is rewound by one plan: replicas are made equal first, locks are decided from the
evidence of all stores, and no fence goes before every store is proven. --tail does not apply then.

When reset is interrupted at any point, TiKV is fenced off (panic_mark_file) until the same command is run again, or undo.`,
		Example: `  tikv-repair reset --to-ts 2026-02-03T04:05:06+01:00 --pd /data/pd --dry-run /data/tikv
  tikv-repair reset --to-ts min-resolved-ts --pd /data/pd /data/tikv
  tikv-repair reset --to-ts 2026-02-03T04:05:06+01:00 --safe-point 463875000000000000 --dry-run /data/tikv
  tikv-repair reset --to-ts 463876543210000000 --safe-point 463875000000000000 /data/tikv`,
		Args: dirArgs(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.reset(cmd, args[0], &o)
			}
			switch {
			case a.c.overridden():
				return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(args))
			case o.toTS == "":
				return usagef("--to-ts is missing: a TSO, or a time with a zone such as 2026-02-03T04:05:06+01:00")
			case cmd.Flags().Changed("tail"):
				return usagef("--tail is for one store: a plan for several decides it for each region")
			}
			po := planOptions{toTS: o.toTS, safePoint: o.safePoint, pd: o.pd, force: o.force, keep: plan.KeepAll, holeFill: plan.HoleEmpty}
			return a.together(cmd, "reset", args, &po, o.dryRun, o.yes)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.toTS, "to-ts", "", "the timestamp `T` to return to")
	f.StringVar(&o.safePoint, "safe-point", "", "the cluster's GC safe point, a `TSO`")
	f.StringVar(&o.tail, "tail", string(repair.TailAuto), "`how` to deal with log entries that are not applied: auto, apply, keep, neutralise, drop")
	f.StringArrayVar(&o.pd, "pd", nil, "PD's data `directory`; repeat for more members of the same PD")
	f.StringArrayVar(&o.force, "force", nil, "accept this `problem`; repeat for more")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "do everything but write")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask; problems are not answered by this")
	a.storeFlags(f)
	return cmd
}

func (a *app) reset(cmd *cobra.Command, dir string, o *resetOptions) error {
	evidence, err := a.readPD(o.pd)
	if err != nil {
		return err
	}
	t, err := a.parseTWithPD("to-ts", o.toTS, evidence)
	if err != nil {
		return err
	}
	ro := repair.ResetOptions{DryRun: o.dryRun, Version: version, Say: a.say, Tail: repair.TailStrategy(o.tail)}
	if known := repair.TailStrategies(); !slices.Contains(known, ro.Tail) {
		return usagef("--tail=%s: known are %s", o.tail, strings.Trim(fmt.Sprint(known), "[]"))
	}
	ro.T, ro.Threads, ro.Memory, ro.Now = t, a.c.threads, int64(a.c.memory), a.now()
	if o.safePoint != "" {
		sp, err := mvcc.ParseTS(o.safePoint)
		if err != nil {
			return usagef("--safe-point: %v", err)
		}
		ro.SafePoint, ro.SafePointSource = &sp, repair.StatedSafePoint
	}
	if evidence != nil {
		ro.UsePD(evidence)
	}
	if ro.Force, err = parseForce(o.force); err != nil {
		return err
	}
	ro.Preview = func(p *repair.Preview) { a.showPreview(p, ro.Force) }
	ro.Confirm = func(*repair.Preview) (bool, error) { return a.ask("Rewind this store?", o.yes) }
	res, err := repair.Reset(cmd.Context(), a.fs, dir, a.scanOptions(), ro)
	if res != nil && a.c.json {
		if e := a.printJSON(res); e != nil && err == nil {
			err = e
		}
	} else if res != nil && err == nil {
		err = a.print(resultText(res, dir))
	}
	return err
}

// ask puts a question that --yes answers. Without a terminal there is nobody to ask.
func (a *app) ask(question string, yes bool) (bool, error) {
	if yes {
		return true, nil
	}
	if !a.answers {
		return false, &base.Error{Class: base.ErrDeclined, Op: "ask", Offset: -1, Reason: "standard input is no terminal, so that nobody can answer; nothing was written",
			Next: "run it again with --yes"}
	}
	a.screen.ask(true)
	fmt.Fprintf(a.stderr, "%s Type yes to go on: ", question)
	defer a.screen.ask(false)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		answered <- answer{line, err}
	}()
	var line string
	select {
	case <-a.ctx.Done():
		fmt.Fprintln(a.stderr)
		return false, a.interrupted()
	case got := <-answered:
		if got.err != nil && got.err != io.EOF {
			return false, base.IO("read", "the answer", got.err)
		}
		line = got.line
	}
	return strings.TrimSpace(line) == "yes", nil
}

func resultText(r *repair.Result, dir string) string {
	var b strings.Builder
	switch r.State {
	case repair.StateUnchanged:
		fmt.Fprintf(&b, "Nothing to do: %s is at %s already. Nothing was written.\n", dir, r.ToTime)
		return b.String()
	case repair.StateDryRun:
		fmt.Fprintf(&b, "Dry run, nothing was written. The rewind to %s would do this:\n", r.ToTime)
	case repair.StateDone:
		fmt.Fprintf(&b, "Done and verified: %s is at %s (%s).\n", dir, r.ToTS, r.ToTime)
	}
	var t table
	t.add("  versions removed", r.VersionsRemoved, fmt.Sprintf("in %d rows", r.RowsChanged))
	t.add("  long values removed", r.DefaultRows)
	if r.RawRemoved > 0 {
		t.add("  raw entries removed", r.RawRemoved)
	}
	t.add("  locks", r.LocksCommitted, fmt.Sprintf("committed, %d removed", r.LocksRemoved))
	t.add("  gc fences cleared", r.FencesCleared)
	t.add("  regions neutralised", r.RegionsNeutralised)
	t.add("  tables", r.FilesRewritten, fmt.Sprintf("rewritten, %d dropped, %d not touched", r.FilesDropped, r.FilesKept))
	t.add("  written", bytesText(uint64(r.BytesWritten)), fmt.Sprintf("in %.2f s", r.Seconds))
	b.WriteString(t.String())
	if r.State == repair.StateDone {
		fmt.Fprintf(&b, "The way back: tikv-repair undo %s   (until TiKV is started; backup in %s)\n", dir, r.Backup)
		fmt.Fprintf(&b, "When all is well: tikv-repair discard %s\n", dir)
	}
	return b.String()
}
