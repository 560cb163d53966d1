package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

type applyOptions struct {
	plan        string
	force       []string
	dryRun, yes bool
}

func (a *app) applyCmd() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply --plan PLAN DIR",
		Short: "Do this store's part of a plan",
		Long: `apply changes one stopped store as the plan says: it applies log entries, rewrites, tombstones and creates regions, and rewinds the data, as one
edit with preview, backup and undo. It refuses a store that is not what it was when its report was made.

When the plan has parts for several stores, the store stays fenced (panic_mark_file): TiKV does not start until release has seen the results of
all of them. The result is written to DIR/tikv-repair/<plan-id>/result.json.

When apply is interrupted at any point, run the same command again, or undo.`,
		Example: `  tikv-repair apply --plan plan.json --dry-run /data/tikv
  tikv-repair apply --plan plan.json /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.apply(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.plan, "plan", "", "the `file` that plan has written")
	f.StringArrayVar(&o.force, "force", nil, "accept this `problem` of the store; repeat for more")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "do everything but write")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask; problems are not answered by this")
	a.storeFlags(f)
	return cmd
}

func (a *app) apply(cmd *cobra.Command, dir string, o *applyOptions) error {
	p, err := a.planFile(o.plan)
	if err != nil {
		return err
	}
	ao := repair.ApplyOptions{Plan: p, DryRun: o.dryRun, Threads: a.c.threads, Memory: int64(a.c.memory), Now: a.now(), Version: version, Say: a.say}
	if ao.Force, err = parseForce(o.force); err != nil {
		return err
	}
	ao.Preview = func(r *repair.ApplyResult) { a.showApply(r, p, ao.Force) }
	ao.Confirm = func() (bool, error) { return a.ask("Change this store?", o.yes) }
	res, err := repair.Apply(cmd.Context(), a.fs, dir, a.scanOptions(), ao)
	if res != nil && a.c.json {
		if e := a.printJSON(res); e != nil && err == nil {
			err = e
		}
	} else if res != nil && err == nil {
		err = a.print(applyText(res, dir, o.plan))
	}
	return err
}

// planFile reads --plan.
func (a *app) planFile(path string) (*plan.Plan, error) {
	if path == "" {
		return nil, usagef("--plan is missing: the file that plan has written")
	}
	return repair.ReadPlan(a.fs, path)
}

// showApply prints what happens to one store.
func (a *app) showApply(r *repair.ApplyResult, p *plan.Plan, force map[string]bool) {
	if a.c.quiet {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "store %d\n", r.StoreID)
	for i, l := range r.Lines {
		if i == maxRegionLines {
			fmt.Fprintf(&b, "and %d more regions; --json lists them all\n", len(r.Lines)-i)
			break
		}
		fmt.Fprintf(&b, "region %-8d %s: %s\n                before  %s\n                after   %s\n", l.Region, l.Kind, l.Reason, l.Before, l.After)
		if t := l.Tail; t != nil {
			fmt.Fprintf(&b, "                log     %d to %d applied first: %d records", t.From+1, t.To, t.Records)
			if t.Appended > 0 {
				fmt.Fprintf(&b, ", %d entries from another store", t.Appended)
			}
			b.WriteByte('\n')
		}
		if l.Deleted > 0 {
			fmt.Fprintf(&b, "                deleted %d records of the range\n", l.Deleted)
		}
	}
	if r.Raft != nil {
		fmt.Fprintf(&b, "raft store      %s, new file %s\n", plural(r.Raft.Regions, "region changes", "regions change"), r.Raft.File)
	}
	fmt.Fprint(a.stderr, b.String())
	accepted := map[string]bool{}
	for n := range force {
		accepted[n] = true
	}
	for _, n := range p.Forced {
		accepted[n] = true
	}
	if pv := r.Preview(); pv != nil {
		a.showPreview(pv, accepted)
	}
	for _, d := range r.Problems {
		word := "problem"
		if accepted[d.Name] {
			word = "accepted"
		}
		fmt.Fprintf(a.stderr, "%-15s %s (%s), %s: %s\n                next: %s\n", word, d.Name, d.Severity, d.Where, d.What, d.Next)
	}
}

func applyText(r *repair.ApplyResult, dir, file string) string {
	var b strings.Builder
	what := plural(len(r.Lines), "region", "regions")
	if r.Rewind != nil {
		what += fmt.Sprintf(", %d versions above %s removed", r.Rewind.VersionsRemoved, r.Rewind.ToTime)
	}
	switch r.State {
	case repair.StateUnchanged:
		return fmt.Sprintf("Nothing to do: all regions of store %d stay as they are. Nothing was written, and it needs no release.\n", r.StoreID)
	case repair.StateDryRun:
		return fmt.Sprintf("Dry run, nothing was written: store %d, %s would change.\n", r.StoreID, what)
	}
	if r.DoneBefore {
		fmt.Fprintf(&b, "Nothing to do: this plan was done on store %d before (%s). Nothing was written now.\n", r.StoreID, what)
	} else {
		fmt.Fprintf(&b, "Done and verified: store %d, %s; %s written in %.2f s.\n", r.StoreID, what, bytesText(uint64(r.Written)), r.Seconds)
	}
	if r.Fenced {
		fmt.Fprintf(&b, "The store stays fenced until all stores of the plan are done. Its result: %s/result.json\n", r.Backup)
		fmt.Fprintf(&b, "Then, on each store: tikv-repair release --plan %s %s RESULT…   (the results, or the data directories, of the others)\n", file, dir)
	}
	fmt.Fprintf(&b, "The way back: tikv-repair undo %s   (until TiKV is started; backup in %s)\n", dir, r.Backup)
	return b.String()
}

func (a *app) releaseCmd() *cobra.Command {
	var file string
	var yes bool
	cmd := &cobra.Command{
		Use:   "release --plan PLAN DIR RESULT…",
		Short: "Remove the fence once all stores of a plan are done",
		Long: `release lets TiKV start again on one store. It demands the result of every other store of the plan: the file
tikv-repair/<plan-id>/result.json of its data directory, copied here, or that data directory itself when it is on this machine. One store that
started while another still has the old peers, or data above T, would bring both back.`,
		Example: `  tikv-repair release --plan plan.json /data/tikv store2.result.json store3.result.json
  tikv-repair release --plan plan.json /data/tikv1 /data/tikv2 /data/tikv3`,
		Args: dirArgs(true),
		RunE: func(_ *cobra.Command, args []string) error { return a.release(args[0], args[1:], file, yes) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&file, "plan", "", "the `file` that plan has written")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.storeFlags(f)
	return cmd
}

func (a *app) release(dir string, others []string, file string, yes bool) error {
	p, err := a.planFile(file)
	if err != nil {
		return err
	}
	ro := repair.ReleaseOptions{Plan: p, Overrides: a.scanOptions().Overrides, Memory: int64(a.c.memory)}
	for _, f := range others {
		r, err := repair.ReadResult(a.fs, f, p)
		if err != nil {
			return err
		}
		if r != nil { // a store that has none is named by Release
			ro.Results = append(ro.Results, r)
		}
	}
	ro.Confirm = func() (bool, error) { return a.ask("Let TiKV start on this store?", yes) }
	res, err := repair.Release(a.fs, dir, ro)
	if err != nil {
		return err
	}
	if a.c.json {
		return a.printJSON(res)
	}
	if res.State == repair.StateUnchanged {
		return a.print(fmt.Sprintf("%s has no fence: there is nothing to release.\n", dir))
	}
	return a.print(fmt.Sprintf("Released: TiKV may start on %s once the other stores are released, too. Then:\n%s", dir, stepsText(p)))
}

// stepsText lists what the operator does once every store is done: all that the plan names but the apply itself.
func stepsText(p *plan.Plan) string {
	var b strings.Builder
	n := 0
	for _, l := range p.NextSteps {
		if !strings.HasPrefix(l, "apply this plan ") {
			n++
			fmt.Fprintf(&b, "  %d. %s\n", n, l)
		}
	}
	return b.String()
}

func plural[T int | int64 | uint64](n T, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}
