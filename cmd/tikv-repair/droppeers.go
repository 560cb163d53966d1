package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) dropPeersCmd() *cobra.Command {
	var o planOptions
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "drop-peers --failed-stores IDS DIR…",
		Short: "Repair a lost quorum, with all surviving stores on this machine",
		Long: `drop-peers does collect, plan, apply, verify and release in one go for the data directories of all stores that survived: regions that lost
their quorum go on with the replicas that are left, those replicas hold the same data, and keys that nobody holds are named. With --to-ts all
stores are rewound to T as well. It prints the plan and asks before anything is written.

Every store that is done waits behind its fence (panic_mark_file) until all are proven. When drop-peers is interrupted at any point, run the same
command again, or undo on each store.

On a fleet use the single verbs: collect on each store, plan, apply on each, release.`,
		Example: `  tikv-repair drop-peers --failed-stores 3,4,5 --dry-run /data/tikv1 /data/tikv2
  tikv-repair drop-peers --failed-stores 1 --pd /data/pd --to-ts min-resolved-ts /data/tikv2 /data/tikv3`,
		Args: dirArgs(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.failed) == 0 {
				return usagef("--failed-stores is missing: the ids of the stores that are gone for good; inspect PD_DIR lists all stores")
			}
			return a.together(cmd, "drop-peers", args, &o, dryRun, yes)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.add(f)
	f.BoolVarP(&dryRun, "dry-run", "n", false, "do everything but write")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask; problems are not answered by this")
	return cmd
}

// together repairs the stores of a cluster that are on this machine.
func (a *app) together(cmd *cobra.Command, verb string, dirs []string, o *planOptions, dryRun, yes bool) error {
	po, pd, err := a.planOptions(verb, o)
	if err != nil {
		return err
	}
	to := repair.TogetherOptions{Verb: verb, Plan: po, PD: pd, DryRun: dryRun, Threads: a.c.threads, Memory: int64(a.c.memory), Now: a.now(), Version: version, Say: a.say, Watch: a.watch}
	to.Preview = func(p *plan.Plan) {
		if a.c.quiet {
			return
		}
		fmt.Fprint(a.stderr, planText(p)+"\n")
		if p.ToTS == 0 {
			return
		}
		l, err := a.findLimits(cmd.Context(), dirs, pd)
		if err != nil {
			a.warn("what limits T could not be found out: %v", err)
			return
		}
		fmt.Fprint(a.stderr, limitsShort(l)+"\n")
	}
	forced := map[string]bool{}
	for _, n := range po.Forced {
		forced[n] = true
	}
	to.StorePreview = func(r *repair.ApplyResult) { a.showApply(r, &plan.Plan{}, forced) }
	to.Confirm = func() (bool, error) { return a.ask("Change these stores?", yes) }
	res, err := repair.Together(cmd.Context(), a.fs, dirs, a.scanOptions(), to)
	if res != nil && a.c.json {
		if e := a.printJSON(res); e != nil && err == nil {
			err = e
		}
	} else if res != nil && err == nil {
		err = a.print(clusterText(res))
	}
	return err
}

func clusterText(r *repair.TogetherResult) string {
	s := r.Plan.Summary
	what := fmt.Sprintf("%d regions rewritten, %d rewound, %d created, %d replicas tombstoned, %d regions left alone", s.Rewritten, s.Rewound, s.Created, s.Tombstoned, s.Healthy)
	switch r.State {
	case repair.StateUnchanged:
		if r.DoneBefore {
			return fmt.Sprintf("Nothing to do: plan %s, with the same arguments, was done on these stores, and nothing has changed them since. Nothing was written.\n", r.PlanID)
		}
		return fmt.Sprintf("Nothing to do: all %d regions have their quorum. Nothing was written.\n", s.Healthy)
	case repair.StateDryRun:
		return fmt.Sprintf("Dry run, nothing was written. Plan %s would do this on %d stores: %s.\n", r.PlanID, len(r.Stores), what)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Done and verified, and released: plan %s on %d stores: %s", r.PlanID, len(r.Stores), what)
	if r.Compared > 0 {
		fmt.Fprintf(&b, "; the replicas of %d regions hold the same data", r.Compared)
	}
	fmt.Fprintf(&b, " (%.2f s).\n", r.Seconds)
	b.WriteString("Now:\n" + stepsText(r.Plan))
	var back []string
	for _, s := range r.Stores {
		back = append(back, "tikv-repair undo "+s.Dir)
	}
	fmt.Fprintf(&b, "The way back, on each store before TiKV is started on any: %s\n", strings.Join(back, "; "))
	return b.String()
}
