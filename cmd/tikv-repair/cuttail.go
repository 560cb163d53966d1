package main

import (
	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) cutTailCmd() *cobra.Command {
	var o handOptions
	var keep bool
	cmd := &cobra.Command{
		Use:   "cut-tail --regions IDS|--all DIR",
		Short: "Drop log entries that are not applied",
		Long: `cut-tail makes the log of a region end at its applied index, in the raft store and in the apply state. What the dropped entries would have written
is lost; with committed data among it that is the problem raft-tail. On one replica of several it is the problem multi-store: the others keep theirs.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.all == (len(o.regions) > 0) {
				return usagef("name the regions with --regions, or say --all")
			}
			return a.hand(cmd, args[0], repair.CutTail, repair.HandArgs{KeepHistory: keep}, &o)
		},
	}
	o.add(a, cmd, "these region `ids`")
	cmd.Flags().BoolVar(&o.all, "all", false, "every region with a tail")
	cmd.Flags().BoolVar(&keep, "keep-history", false, "keep the applied entries, so that other replicas can catch up from them")
	return cmd
}
