package main

import (
	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) applyTailCmd() *cobra.Command {
	var o handOptions
	cmd := &cobra.Command{
		Use:   "apply-tail DIR",
		Short: "Apply committed log entries to the data",
		Long: `apply-tail does what TiKV would do at its next start: it applies the committed entries behind the applied index to the data, so that no committed
write is lost. An entry whose epoch does not fit the region's is a no-op. An admin command that changes the region stops it there, and is named.
Of a region whose only peer is on this store everything in its log is committed.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.hand(cmd, args[0], repair.ApplyTail, repair.HandArgs{}, &o)
		},
	}
	o.add(a, cmd, "these region `ids`; default: all with committed entries that are not applied")
	return cmd
}
