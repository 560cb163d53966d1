package repair

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

func sortedKeys[K interface{ ~uint64 }](m map[K]bool) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// storeProblems are what stands in the way of a rewind before any data is looked at.
func storeProblems(s *scan.Store, o RewindOptions) ([]plan.Problem, error) {
	var ps []plan.Problem
	switch {
	case o.SafePoint == nil:
		ps = append(ps, &plan.UnknownSafePoint{})
	case *o.SafePoint > o.T:
		ps = append(ps, &plan.SafePointAboveT{T: o.T, SafePoint: *o.SafePoint})
	}
	if s.Layout.HasPanicMark && !s.Fenced() {
		ps = append(ps, &plan.PanicMark{Store: s.Ident.StoreID, Path: s.FS.PathJoin(s.Layout.Dir, "panic_mark_file"), Text: string(s.Layout.PanicMark)})
	}
	if s.Layout.Migrating != "" {
		ps = append(ps, &plan.Unsupported{Store: s.Ident.StoreID, Feature: "MIGRATING-RAFT",
			Reason: "TiKV was changing its raft store; let it finish (start and stop it once) before the store is repaired"})
	}
	for _, d := range s.Layout.Foreign {
		ps = append(ps, &plan.Unsupported{Store: s.Ident.StoreID, Feature: "directory outside the data directory",
			Reason: d + " is named by the configuration of another place and may belong to another store; name it with --wal-dir, --raft-dir, --raft-wal-dir or --titan-dir"})
	}
	ps = append(ps, s.RaftLogDamage(s.Ident.StoreID)...)
	for _, p := range s.DB.Log.Problems {
		ps = append(ps, &plan.WALDamage{Store: s.Ident.StoreID, Path: p.Path, Offset: p.Offset, Reason: p.Reason})
	}
	raw, err := rawProblem(s)
	if err != nil {
		return nil, err
	}
	if raw != nil {
		ps = append(ps, raw)
	}
	return ps, nil
}

// droppedTails are ends of files that a kill leaves torn and that the engines drop as a matter of course.
func droppedTails(s *scan.Store) []string {
	var out []string
	if s.DB.State.TornTail {
		out = append(out, s.DB.State.Path+" ends in the middle of a record, which is dropped")
	}
	if s.DB.Log.TornTail {
		out = append(out, "the last write-ahead log ends in the middle of a record, which is dropped")
	}
	if s.RaftReport != nil {
		for _, f := range s.RaftReport.Files {
			if f.Tail == raftlog.TailOther { // zeros are preallocated space
				out = append(out, fmt.Sprintf("%s is readable up to offset %d of %d (%s); the rest is dropped", f.Path, f.Valid, f.Size, f.Stop))
			}
		}
	}
	return out
}

// rawProblem looks for data without versions: raw entries of API V1, with or without TTL, cannot be rewound, and a store that holds
// them cannot be told from garbage around transactional data. Looked at are the keys of the logs and the boundaries of every table of
// the default column family; API V2 tells its raw entries by their prefix.
func rawProblem(s *scan.Store) (plan.Problem, error) {
	if s.Ident.APIVersion == raftstate.APIV2 {
		return nil, nil
	}
	cf := s.DB.CF(scan.CFDefault)
	var odd uint64
	look := func(k ikey.Key) {
		// The ends of a range tombstone are keys of regions or tables, without a timestamp.
		if k.Kind != ikey.KindPut && k.Kind != ikey.KindBlobIndex || len(k.User) == 0 || k.User[0] != 'z' {
			return
		}
		if _, _, ok := mvcc.SplitKey(k.User); !ok {
			odd++
		}
	}
	it := cf.Log().Iter()
	for ok := it.First(); ok; ok = it.Next() {
		look(it.Key())
	}
	for _, f := range cf.Files() {
		look(f.Smallest)
		if !bytes.Equal(f.Largest.User, f.Smallest.User) {
			look(f.Largest)
		}
	}
	version := s.Ident.APIVersion.String()
	if s.Layout.Config != nil && s.Layout.Config.EnableTTL {
		version = raftstate.APIV1TTL.String()
	}
	if odd == 0 && version != raftstate.APIV1TTL.String() {
		return nil, nil
	}
	return &plan.RawData{Store: s.Ident.StoreID, APIVersion: version, Keys: odd}, nil
}
