package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

type regionOptions struct {
	ids           []uint
	key           string
	encoded       string
	db            string
	all           bool
	skipTombstone bool
}

func (a *app) regionCmd() *cobra.Command {
	var o regionOptions
	cmd := &cobra.Command{
		Use:   "region DIR…",
		Short: "Show the regions of a store and whether TiKV would start them",
		Long: `region shows regions as the stores' own records have them: state, epoch, peers, range, the indexes of the raft log, and whether a
TiKV that is started on the directory would take the region. One region that it does not take keeps the whole store down.
Nothing is written.

A key can be given as it is, as region boundaries have it, or as the database has it.

Without --region and a key all regions are shown. With --json the output of one directory has the shape of
"tikv-ctl raft region --all-regions", with derived numbers, flags and the verdict added; several directories are a list of such objects.

In the table, peers are id@store, the own one with a star. tail is committed and not applied + not committed. The exit status is 1
when TiKV would not start a region that is shown.`,
		Example: `  tikv-repair region /data/tikv
  tikv-repair region --region 14 --region 18 --json /data/tikv-1 /data/tikv-2
  tikv-repair region --key 7480000000000000465F728000000000000064 /data/tikv
  tikv-repair region --encoded-key 7480000000000000FF465F728000000000FF0000640000000000FA /data/tikv`,
		Args: dirArgs(true),
		RunE: func(_ *cobra.Command, args []string) error { return a.region(args, &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.UintSliceVar(&o.ids, "region", nil, "only this region `id`; may be repeated")
	f.StringVar(&o.key, "key", "", "only the live region that holds this user `key`, in hex")
	f.StringVar(&o.encoded, "encoded-key", "", "the same by the encoded `key`, in hex, as PD and this verb print region boundaries")
	f.StringVar(&o.db, "db-key", "", "the same by the database `key` in hex, or escaped (zt\\200\\000…) as in tikv-ctl's output")
	f.BoolVar(&o.all, "all", false, "all regions, which is the default")
	f.BoolVar(&o.skipTombstone, "skip-tombstone", false, "leave out tombstones")
	a.storeFlags(f)
	return cmd
}

// storeRegions is the object of one store.
type storeRegions struct {
	Dir       string           `json:"dir"`
	ClusterID uint64           `json:"cluster_id"`
	StoreID   uint64           `json:"store_id"`
	Regions   scan.RegionInfos `json:"region_infos"`
}

func (a *app) region(dirs []string, o *regionOptions) error {
	if len(dirs) > 1 && a.c.overridden() {
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(dirs))
	}
	keys := 0
	for _, k := range []string{o.key, o.encoded, o.db} {
		if k != "" {
			keys++
		}
	}
	switch {
	case o.all && (len(o.ids) > 0 || keys > 0):
		return usagef("--all goes with neither --region nor a key")
	case keys > 1:
		return usagef("give one of --key, --encoded-key and --db-key")
	}
	q := scan.RegionQuery{SkipTombstone: o.skipTombstone}
	for _, id := range o.ids {
		q.IDs = append(q.IDs, uint64(id))
	}
	var err error
	if q.Key, err = userKey("key", o.key); err != nil {
		return err
	}
	if q.DBKey, err = dbKey("db-key", o.db); err != nil {
		return err
	}
	if o.encoded != "" {
		b, err := scan.ParseHex(o.encoded)
		if err != nil {
			return usagef("--encoded-key: %v", err)
		}
		q.DBKey = append([]byte{mvcc.DataPrefix}, b...)
	}
	if len(q.DBKey) > 0 && q.DBKey[0] != mvcc.DataPrefix {
		return usagef("--db-key: a key of the database begins with 7A ('z'); without it, it is an --encoded-key")
	}
	var out []storeRegions
	var raftErr error
	found, stopped := 0, 0
	for _, dir := range dirs {
		one, err := a.regionsOf(dir, q, &raftErr)
		if err != nil {
			return err
		}
		found += len(one.Regions)
		for _, r := range one.Regions {
			if r.Verdict.Starts == scan.StartsNo {
				stopped++
			}
		}
		out = append(out, one)
	}
	switch {
	case !a.c.json:
		for _, one := range out {
			if err := a.print(regionsText(one, len(out) > 1)); err != nil {
				return err
			}
		}
	case len(out) == 1:
		err = a.printJSON(out[0])
	default:
		err = a.printJSON(struct {
			Stores []storeRegions `json:"stores"`
		}{out})
	}
	switch {
	case err != nil:
		return err
	case raftErr != nil:
		return raftErr
	case found == 0 && (len(q.IDs) > 0 || keys > 0):
		return &base.Error{Class: base.ErrUsage, Op: "region", Offset: -1, Reason: "no store given here has such a region",
			Next: "tikv-repair region " + strings.Join(dirs, " ")}
	case stopped > 0:
		return &base.Error{Class: base.ErrProblems, Op: "region", Offset: -1, Reason: fmt.Sprintf("TiKV would not start because of %d of %d regions", stopped, found),
			Next: "tikv-repair check " + strings.Join(dirs, " ")}
	}
	return nil
}

// regionsOf reads one store; when its raft store is what is damaged, the key-value database still tells half of it.
func (a *app) regionsOf(dir string, q scan.RegionQuery, raftErr *error) (storeRegions, error) {
	s, err := a.openStore(dir, a.scanOptions())
	if errors.Is(err, base.ErrCorrupt) {
		first := err
		if s, err = a.openStore(dir, a.readOptions()); err != nil {
			return storeRegions{}, first
		}
		*raftErr = orErr(*raftErr, first)
	}
	if err != nil {
		return storeRegions{}, err
	}
	defer s.Close()
	infos, err := s.RegionInfos(q)
	return storeRegions{dir, s.Ident.ClusterID, s.Ident.StoreID, infos}, err
}

func regionsText(one storeRegions, titled bool) string {
	var b strings.Builder
	if titled {
		fmt.Fprintf(&b, "%s: store %d\n", one.Dir, one.StoreID)
	}
	var t table
	t.add("region", "state", "conf_ver", "version", "peers", "start", "end", "applied", "commit", "last", "truncated", "term", "tail", "starts", "flags")
	for _, r := range one.Regions {
		g := r.Local.Region
		row := []any{r.RegionID, r.Local.State, g.Epoch.ConfVer, g.Epoch.Version, r.PeersText(),
			scan.BoundText(g.StartKey, r.Start, false), scan.BoundText(g.EndKey, r.End, true)}
		if d := r.Derived; d != nil {
			row = append(row, d.Applied, d.Commit, d.Last, d.Truncated.Index, d.Term, fmt.Sprintf("%d+%d", d.Unapplied, d.Uncommitted))
		} else {
			row = append(row, "-", "-", "-", "-", "-", "-")
		}
		flags := slices.Clone(r.Flags)
		t.add(append(row, r.Verdict.Starts, strings.Join(flags, " "))...)
	}
	b.WriteString(t.String())
	for _, r := range one.Regions {
		if len(r.Verdict.Violations) > 0 {
			fmt.Fprintf(&b, "region %d: %s\n", r.RegionID, r.Verdict.Text)
		}
	}
	return b.String()
}
