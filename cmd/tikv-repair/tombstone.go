package main

import (
	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) tombstoneCmd() *cobra.Command {
	var o handOptions
	cmd := &cobra.Command{
		Use:   "tombstone --regions IDS DIR",
		Short: "Mark peers of this store as destroyed",
		Long: `tombstone marks this store's peer of a region as destroyed. At its next start TiKV deletes the peer's log, and the tables that lie between the
regions that are left: the tables that hold the region's data are kept in the backup. The only peer of a region is the problem last-replica.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.regions) == 0 {
				return usagef("which regions? Name them with --regions")
			}
			return a.hand(cmd, args[0], repair.Tombstone, repair.HandArgs{}, &o)
		},
	}
	o.add(a, cmd, "these region `ids`")
	return cmd
}
