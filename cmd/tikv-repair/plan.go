package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

// planOptions are the decisions that plan and drop-peers take.
type planOptions struct {
	failed, tiflash     []uint
	toTS, safePoint     string
	keep, holeFill      string
	allocID             uint64
	winners, tombstones []string
	recreate            []uint
	force, pd           []string
}

func (o *planOptions) add(f *pflag.FlagSet) {
	f.UintSliceVar(&o.failed, "failed-stores", nil, "the `ids` of the stores that are gone for good")
	f.StringVar(&o.toTS, "to-ts", "", "rewind all stores to the timestamp `T` as well")
	f.StringVar(&o.safePoint, "safe-point", "", "the cluster's GC safe point, a `TSO`")
	f.StringVar(&o.keep, "keep", plan.KeepAll, "`how many` survivors of a region that lost its quorum stay: all that can be made equal, or the winner alone")
	f.StringVar(&o.holeFill, "hole-fill", plan.HoleEmpty, "`what` takes the place of keys that no region holds: empty (a new region) or stale (an old copy, where one covers them)")
	f.UintSliceVar(&o.tiflash, "tiflash-stores", nil, "the `ids` of TiFlash stores: they cannot report")
	f.Uint64Var(&o.allocID, "alloc-id", 0, "an `id` above every one that PD has given out, where no PD directory says so")
	f.StringArrayVar(&o.winners, "winner", nil, "`region=store`: this replica is the one that stays; repeat for more")
	f.StringArrayVar(&o.tombstones, "tombstone", nil, "`region@store`: this replica goes; repeat for more")
	f.UintSliceVar(&o.recreate, "recreate", nil, "the `ids` of regions to replace by empty ones")
	f.StringArrayVar(&o.pd, "pd", nil, "PD's data `directory`; repeat for more members of the same PD")
	f.StringArrayVar(&o.force, "force", nil, "accept this `problem`; repeat for more")
}

func ids(list []uint) []uint64 {
	out := make([]uint64, 0, len(list))
	for _, x := range list {
		out = append(out, uint64(x))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// options turns the flags into what the planner takes. verb names the plan.
func (a *app) planOptions(verb string, o *planOptions) (plan.Options, []*plan.PDReport, error) {
	now := a.now().UTC()
	out := plan.Options{PlanID: fmt.Sprintf("%s-%s", verb, now.Format("20060102T150405Z")), Tool: version, Made: now.Format("2006-01-02T15:04:05Z"),
		FailedStores: ids(o.failed), TiFlashStores: ids(o.tiflash), Keep: o.keep, HoleFill: o.holeFill, AllocID: o.allocID, Recreate: ids(o.recreate), Winners: map[uint64]uint64{}}
	reports, evidence, err := a.pdReports(o.pd)
	if err != nil {
		return out, nil, err
	}
	switch {
	case o.keep != plan.KeepAll && o.keep != plan.KeepWinner:
		return out, nil, usagef("--keep is %s or %s, not %q", plan.KeepAll, plan.KeepWinner, o.keep)
	case o.holeFill != plan.HoleEmpty && o.holeFill != plan.HoleStale:
		return out, nil, usagef("--hole-fill is %s or %s, not %q", plan.HoleEmpty, plan.HoleStale, o.holeFill)
	}
	if o.toTS != "" {
		if out.ToTS, err = a.parseTWithPD("to-ts", o.toTS, evidence); err != nil {
			return out, nil, err
		}
	}
	if o.safePoint != "" {
		if out.SafePoint, err = mvcc.ParseTS(o.safePoint); err != nil {
			return out, nil, usagef("--safe-point: %v", err)
		}
	}
	for _, w := range o.winners {
		region, store, err := pair(w, "=")
		if err != nil {
			return out, nil, usagef("--winner %s: %v", w, err)
		}
		out.Winners[region] = store
	}
	for _, w := range o.tombstones {
		region, store, err := pair(w, "@")
		if err != nil {
			return out, nil, usagef("--tombstone %s: %v", w, err)
		}
		out.Tombstones = append(out.Tombstones, plan.RegionStore{Region: region, Store: store})
	}
	force, err := parseForce(o.force)
	if err != nil {
		return out, nil, err
	}
	for n := range force {
		out.Forced = append(out.Forced, n)
	}
	slices.Sort(out.Forced)
	return out, reports, nil
}

// pair reads two ids with a sign between them.
func pair(text, sign string) (region, store uint64, err error) {
	r, s, ok := strings.Cut(text, sign)
	if !ok {
		return 0, 0, fmt.Errorf("write region%sstore, such as 42%s7", sign, sign)
	}
	if region, err = strconv.ParseUint(r, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%q is no region id", r)
	}
	if store, err = strconv.ParseUint(s, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%q is no store id", s)
	}
	return region, store, nil
}

func (a *app) planCmd() *cobra.Command {
	var o planOptions
	var out string
	cmd := &cobra.Command{
		Use:   "plan REPORT… -o PLAN",
		Short: "Decide for all stores together what stays and what goes",
		Long: `plan reads the reports of all surviving stores (collect) and decides what becomes of every region: which replicas stay, with which peers, what
is tombstoned, which keys nobody holds any more. It writes the decisions with their reasons into PLAN, for apply on each store, and prints them.
Nothing is written to any store.

Regions that have their quorum stay as they are. Of a region that lost it the replica with the longest log wins; the others stay when they can be
made equal to it. With --to-ts every store is rewound to T in the same plan.

A plan may have questions: what a transaction did at a key, or log entries that a store lacks. Run collect --answer PLAN on the stores, and plan
again with the answers beside the reports.

Problems refuse a plan unless each is accepted by name with --force. The exit status is then 1, and no plan is written.`,
		Example: `  tikv-repair plan store1.report store2.report --failed-stores 3,4,5 -o plan.json
  tikv-repair plan *.report --failed-stores 1 --pd /data/pd --to-ts min-resolved-ts -o plan.json
  tikv-repair plan *.report *.answers --failed-stores 1 -o plan.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("which reports? Give the files that collect has written, of all surviving stores")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.plan(args, out, &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&out, "output", "o", "", "write the plan to this `file`; without it the plan is printed only")
	o.add(f)
	return cmd
}

func (a *app) plan(files []string, out string, o *planOptions) error {
	po, pd, err := a.planOptions("plan", o)
	if err != nil {
		return err
	}
	var in plan.Input
	for _, f := range files {
		if err := repair.ReadReport(a.fs, f, &in); err != nil {
			return err
		}
	}
	in.PD = append(in.PD, pd...)
	var p *plan.Plan
	err = a.compute("deciding for all regions", func() (err error) {
		p, err = repair.MakePlan(in, po)
		return err
	})
	if err != nil {
		return err
	}
	if a.c.json {
		if err := a.printJSON(p); err != nil {
			return err
		}
	} else if err := a.print(planText(p)); err != nil {
		return err
	}
	if bad := p.Blocking(); len(bad) > 0 {
		return &base.Error{Class: base.ErrProblems, Op: "plan", Offset: -1, Reason: fmt.Sprintf("%s: %s (%d problems refuse the plan); nothing was written", bad[0].Name, bad[0].What, len(bad)), Next: bad[0].Next}
	}
	if out == "" {
		return nil
	}
	if err := repair.WritePlan(a.fs, out, p); err != nil {
		return err
	}
	if p.Final {
		a.say("plan %s written to %s; next, on each store: tikv-repair apply --plan %s DIR", p.PlanID, out, out)
		return nil
	}
	a.say("plan %s written to %s; it has %d questions; next, on each store: tikv-repair collect --answer %s DIR -o ANSWERS, then plan again with the reports and the answers",
		p.PlanID, out, len(p.Questions), out)
	return nil
}
