package main

import (
	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) applyTailCmd() *cobra.Command {
	var o handOptions
	var from []string
	var to uint64
	cmd := &cobra.Command{
		Use:   "apply-tail DIR",
		Short: "Apply committed log entries to the data",
		Long: `apply-tail does what TiKV would do at its next start: it applies the committed entries behind the applied index to the data, so that no committed
write is lost. An entry whose epoch does not fit the region's is a no-op. An admin command that changes the region stops it there, and is named.
Of a region whose only peer is on this store everything in its log is committed.

With --from DIR2, another stopped store of the cluster, this replica catches up from that one: it learns what is committed, entries that are missing
here are appended to the raft log, and own entries that were never committed give way, as in a follower. DIR2 is only read. Where its log begins
too late the region needs a snapshot: that is said, and the region stays as it is.`,
		Example: `  tikv-repair apply-tail /data/tikv
  tikv-repair apply-tail --from /mnt/store7 --dry-run /data/tikv
  tikv-repair apply-tail --regions 109 --to-index 631 --from /mnt/store7 /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.hand(cmd, args[0], repair.ApplyTail, repair.HandArgs{From: from, To: to}, &o)
		},
	}
	o.add(a, cmd, "these region `ids`; default: all with committed entries that are not applied")
	cmd.Flags().StringArrayVar(&from, "from", nil, "another store's data `directory`, to take entries from; repeat for more")
	cmd.Flags().Uint64Var(&to, "to-index", 0, "apply up to this `index` (one region); beyond what is committed it is the problem not-committed")
	return cmd
}
