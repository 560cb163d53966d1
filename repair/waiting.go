package repair

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// waitingFiles finds received snapshots in snap/ and files to be ingested in import/ that hold, or may hold, something above T: TiKV could
// bring it back with them. A snapshot goes as a whole. A peer that is in the middle of applying one is a problem of its own, and keeps it.
//
//	snap/    rev_<region>_<term>_<index>.meta, rev_<region>_<term>_<index>_<cf>[_<n>].sst; the lock family's file is no table
//	import/  <uuid>_..._<cf>.sst
//
// Source: tikv/tikv components/raftstore/src/store/snap.rs, components/sst_importer/src/import_file.rs.
func waitingFiles(s *scan.Store, t mvcc.TS) ([]string, []plan.Problem, error) {
	applying := map[string]bool{}
	for _, r := range s.Regions {
		if r.State.State.String() == "Applying" {
			applying[fmt.Sprint(r.ID)] = true
		}
	}
	var out []string
	snaps, err := listNames(s.FS, s.Layout.SnapDir)
	if err != nil {
		return nil, nil, err
	}
	groups := map[string][]string{}
	for _, n := range snaps {
		parts := strings.Split(strings.TrimSuffix(n, ".meta"), "_")
		if parts[0] != "rev" || len(parts) < 4 || applying[parts[1]] {
			continue
		}
		group := strings.Join(parts[:4], "_")
		groups[group] = append(groups[group], n)
	}
	for _, names := range groups {
		above := false
		for _, n := range names {
			above = above || mayHoldAbove(s.FS, s.FS.PathJoin(s.Layout.SnapDir, n), t)
		}
		if !above {
			continue
		}
		for _, n := range names {
			out = append(out, s.FS.PathJoin(s.Layout.SnapDir, n))
		}
	}
	imports, err := listNames(s.FS, s.Layout.ImportDir)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range imports {
		if p := s.FS.PathJoin(s.Layout.ImportDir, n); strings.HasSuffix(n, ".sst") && mayHoldAbove(s.FS, p, t) {
			out = append(out, p)
		}
	}
	// A file that was not read because the run is to end is no finding.
	if err := base.Refused(s.FS); err != nil {
		return nil, nil, err
	}
	sort.Strings(out)
	var ps []plan.Problem
	for _, p := range out {
		ps = append(ps, &plan.PendingFile{Store: s.Ident.StoreID, Path: p})
	}
	return out, ps, nil
}

func listNames(fs base.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	sort.Strings(names)
	return names, base.IO("list", dir, err)
}

// mayHoldAbove looks into one waiting file. What is no table and not empty, or does not read, may hold anything; a table of the default
// column family comes with one of the write family that says more.
func mayHoldAbove(fs base.FS, path string, t mvcc.TS) bool {
	if strings.HasSuffix(path, ".meta") {
		return false
	}
	if st, err := fs.Stat(path); err == nil && st.Size() == 0 {
		return false
	}
	r, err := sst.Open(fs, path, sst.ReaderOptions{LargestSeq: ikey.MaxSeq})
	if err != nil {
		return true
	}
	defer r.Close()
	it := r.NewIter()
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if _, ts, txn := mvcc.SplitKey(it.Key().User); !txn || ts > t {
			return true
		}
	}
	return it.Err() != nil
}
