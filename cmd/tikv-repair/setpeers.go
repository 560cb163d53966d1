package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) setPeersCmd() *cobra.Command {
	var o handOptions
	var list []string
	cmd := &cobra.Command{
		Use:   "set-peers --regions ID --peer ID@STORE… DIR",
		Short: "Replace the peer list of a region",
		Long: `set-peers replaces the peer list of one region on this store and lifts its conf_ver by 100, so that conf changes waiting in the log become no-ops and
a peer that returns with the old list is recognised as stale. Every replica that stays must get the same list: peers on other stores are the problem
multi-store.`,
		Example: `  tikv-repair set-peers --regions 42 --peer 101@1 /data/tikv
  tikv-repair set-peers --regions 42 --peer 101@1 --peer 102@2:learner --force=multi-store /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.regions) != 1 {
				return usagef("one region at a time: --regions ID")
			}
			peers, err := parsePeers(list)
			if err != nil {
				return err
			}
			return a.hand(cmd, args[0], repair.SetPeers, repair.HandArgs{Peers: peers}, &o)
		},
	}
	o.add(a, cmd, "the region `id`")
	cmd.Flags().StringArrayVar(&list, "peer", nil, "a `peer`, as PEER_ID@STORE_ID, with :learner behind it when it is one; repeat for each")
	return cmd
}

func parsePeers(list []string) ([]raftstate.Peer, error) {
	if len(list) == 0 {
		return nil, usagef("which peers? Name each with --peer PEER_ID@STORE_ID")
	}
	var out []raftstate.Peer
	for _, text := range list {
		ids, role, _ := strings.Cut(text, ":")
		id, store, ok := strings.Cut(ids, "@")
		p := raftstate.Peer{}
		var err1, err2 error
		p.ID, err1 = strconv.ParseUint(id, 10, 64)
		p.StoreID, err2 = strconv.ParseUint(store, 10, 64)
		switch role {
		case "", "voter":
		case "learner":
			p.Role = raftstate.Learner
		default:
			ok = false
		}
		if !ok || err1 != nil || err2 != nil {
			return nil, usagef("--peer %q is not PEER_ID@STORE_ID or PEER_ID@STORE_ID:learner", text)
		}
		out = append(out, p)
	}
	return out, nil
}
