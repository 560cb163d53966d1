package repair

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// openSources opens the other stores that apply-tail may take entries from, for reading. Each must be another stopped store of the same
// cluster that no repair has left half done.
func (h *hand) openSources() (closeAll func(), err error) {
	var open []*scan.Store
	closeAll = func() {
		for _, s := range open {
			s.Close() // read only
		}
	}
	usage := func(dir, reason, next string) error {
		return &base.Error{Class: base.ErrUsage, Op: "take log entries from", Path: dir, Offset: -1, Reason: reason, Next: next}
	}
	if h.o.Args.To != 0 && len(h.o.Args.Regions) != 1 {
		return closeAll, usage(h.s.Layout.Dir, "an index belongs to one region", "name one region with --regions, or leave --to-index away")
	}
	for _, dir := range h.o.Args.From {
		if h.s.FS.PathJoin(dir) == h.s.FS.PathJoin(h.s.Layout.Dir) {
			return closeAll, usage(dir, "this is the store that is to be changed", "give the directory of another store of the cluster to --from")
		}
		s, err := scan.Open(h.s.FS, dir, scan.Options{Mode: base.LockShared})
		if err != nil {
			return closeAll, err
		}
		open = append(open, s)
		switch {
		case s.Ident.ClusterID != h.s.Ident.ClusterID:
			return closeAll, usage(dir, fmt.Sprintf("it belongs to cluster %d, not %d", s.Ident.ClusterID, h.s.Ident.ClusterID), "give a store of the same cluster to --from")
		case s.Ident.StoreID == h.s.Ident.StoreID:
			return closeAll, usage(dir, fmt.Sprintf("it is store %d, too: a copy of the one that is to be changed", s.Ident.StoreID), "give the directory of another store of the cluster to --from")
		case s.Fenced():
			return closeAll, usage(dir, "a repair of it is not finished", "tikv-repair status "+dir)
		}
		h.problems = append(h.problems, s.RaftLogDamage(s.Ident.StoreID)...)
		for _, p := range s.DB.Log.Problems {
			h.problems = append(h.problems, &plan.WALDamage{Store: s.Ident.StoreID, Path: p.Path, Offset: p.Offset, Reason: p.Reason})
		}
		h.sources = append(h.sources, StoreSource(s))
	}
	return closeAll, h.absent()
}

// absent refuses a region that was named and that no source has: nothing could come of it.
func (h *hand) absent() error {
	for _, id := range h.o.Args.Regions {
		var why string
		for _, src := range h.sources {
			_, absent, err := src.Log(id)
			if err != nil {
				return err
			}
			if absent == "" {
				why = ""
				break
			}
			why = src.Name() + ": " + absent
		}
		if why != "" {
			return &base.Error{Class: base.ErrUsage, Op: "take log entries", Path: h.s.Layout.Dir, Offset: -1, Region: id, Reason: why,
				Next: "tikv-repair region " + h.sources[0].Name()}
		}
	}
	return nil
}
