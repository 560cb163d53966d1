package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

// withPDSteps gives inspect the flag --pd-steps.
func (a *app) withPDSteps(cmd *cobra.Command) *cobra.Command {
	var steps bool
	cmd.Flags().BoolVar(&steps, "pd-steps", false, "print what PD needs before TiKV is started, computed from all directories given")
	cmd.Long += `

With --pd-steps it computes from the directories of all PD members and all stores that are left what PD needs before TiKV is started, above all after
a lost majority: how PD comes back and from which member, ids and timestamps above all that were ever given out, schedulers to stop, stores to
give up. The steps are printed as commands to paste, each number with its source. Without a PD directory they make a new PD.`
	cmd.Example += `
  tikv-repair inspect --pd-steps /data/pd /data/tikv-1 /data/tikv-2`
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !steps {
			return run(cmd, args)
		}
		if len(args) > 1 && a.c.overridden() {
			return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(args))
		}
		s, err := repair.PDSteps(a.fs, args, a.scanOptions())
		if err != nil {
			return err
		}
		if a.c.json {
			return a.printJSON(s)
		}
		return a.print(pdStepsText(s))
	}
	return cmd
}

func pdStepsText(s *plan.PDSteps) string {
	var b strings.Builder
	var t table
	for _, n := range s.Numbers {
		value := n.Value
		if n.Time != "" {
			value += " = " + n.Time
		}
		t.add(n.Name, value, n.Source)
	}
	b.WriteString(t.String())
	for i, p := range s.Steps {
		fmt.Fprintf(&b, "\n%d. %s\n", i+1, p.What)
		if p.Why != "" {
			fmt.Fprintf(&b, "   why: %s\n", p.Why)
		}
		for _, c := range p.Commands {
			fmt.Fprintf(&b, "   $ %s\n", c)
		}
		for _, w := range p.Warnings {
			fmt.Fprintf(&b, "   careful: %s\n", w)
		}
	}
	return b.String()
}
