package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

// handOptions are the flags that the verbs by hand share.
type handOptions struct {
	regions     []uint
	all         bool
	force       []string
	dryRun, yes bool
}

func (o *handOptions) add(a *app, cmd *cobra.Command, regions string) {
	f := cmd.Flags()
	f.SortFlags = false
	f.UintSliceVar(&o.regions, "regions", nil, regions)
	f.StringArrayVar(&o.force, "force", nil, "accept this `problem`; repeat for more")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be done")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask; problems are not answered by this")
	a.storeFlags(f)
}

// hand runs one verb by hand on one directory.
func (a *app) hand(cmd *cobra.Command, dir string, verb repair.HandVerb, args repair.HandArgs, o *handOptions) error {
	for _, id := range o.regions {
		args.Regions = append(args.Regions, uint64(id))
	}
	slices.Sort(args.Regions)
	args.Regions = slices.Compact(args.Regions)
	force, err := parseForce(o.force)
	if err != nil {
		return err
	}
	ho := repair.HandOptions{Verb: verb, Args: args, Force: force, DryRun: o.dryRun, Threads: a.c.threads, Now: a.now(), Version: version, Say: a.say}
	ho.Preview = func(r *repair.HandResult) {
		if !a.c.quiet {
			fmt.Fprint(a.stderr, handPreview(r))
		}
	}
	ho.Confirm = func() (bool, error) { return a.ask("Change this store?", o.yes) }
	res, err := repair.Hand(cmd.Context(), a.fs, dir, a.scanOptions(), ho)
	if res != nil && a.c.json {
		if e := a.printJSON(res); e != nil && err == nil {
			err = e
		}
	} else if res != nil && err == nil {
		err = a.print(handText(res, dir))
	}
	return err
}

// parseForce reads the names of --force.
func parseForce(list []string) (map[string]bool, error) {
	force := map[string]bool{}
	for _, names := range list {
		for _, n := range strings.Split(names, ",") {
			if !slices.Contains(plan.Names(), n) {
				return nil, usagef("--force=%s: there is no such problem; known are %s", n, strings.Join(plan.Names(), ", "))
			}
			force[n] = true
		}
	}
	return force, nil
}

func handPreview(r *repair.HandResult) string {
	var b strings.Builder
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "region %-8d %s\n                before  %s\n                after   %s\n", l.Region, l.Action, l.Before, l.After)
		if l.Lost > 0 {
			fmt.Fprintf(&b, "                lost    %d versions\n", l.Lost)
		}
	}
	if r.Raft != nil {
		fmt.Fprintf(&b, "raft store      %d regions change, new file %s\n", r.Raft.Regions, r.Raft.File)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem         %s (%s), %s: %s\n                next: %s\n", p.Name, p.Severity, p.Where, p.What, p.Next)
	}
	return b.String()
}

func handText(r *repair.HandResult, dir string) string {
	switch r.State {
	case repair.StateUnchanged:
		return "Nothing to do. Nothing was written.\n"
	case repair.StateDryRun:
		return fmt.Sprintf("Dry run, nothing was written: %d regions would change.\n", len(r.Lines))
	}
	return fmt.Sprintf("Done and verified: %s, %d regions, %s written in %.2f s.\nThe way back: tikv-repair undo %s   (until TiKV is started; backup in %s)\n",
		r.Verb, len(r.Lines), bytesText(uint64(r.Written)), r.Seconds, dir, r.Backup)
}
