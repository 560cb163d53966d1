package raftstate

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/pingcap/kvproto/pkg/raft_serverpb"
)

// snapshotCFs are the column families of a region snapshot, in the order in which its metadata names them
// (tikv/tikv components/raftstore/src/store/snap.rs, SNAPSHOT_CFS).
var snapshotCFs = [...]string{"default", "lock", "write"}

// SnapshotKey names a snapshot: the region, and the entry up to which the snapshot holds the region's data.
type SnapshotKey struct {
	Region uint64 `json:"region_id"`
	Term   uint64 `json:"term"`
	Index  uint64 `json:"index"`
}

// String gives the form in file names: <region>_<term>_<index>.
func (k SnapshotKey) String() string { return fmt.Sprintf("%d_%d_%d", k.Region, k.Term, k.Index) }

// AppliedSnapshot is the key of the snapshot that a region in state Applying needs: its apply state was moved there before the
// data is taken in, so that the truncated entry is the last one of the snapshot (worker/region.rs, apply_snap). A region without a record of
// that state is looked up with the initial one.
func AppliedSnapshot(region uint64, apply *RaftApplyState) SnapshotKey {
	a := InitialApplyState()
	if apply != nil {
		a = *apply
	}
	return SnapshotKey{region, a.TruncatedState.Term, a.TruncatedState.Index}
}

// SnapshotFile is one data file of a snapshot. The lock family's file is a plain stream of keys and values, the others are tables.
type SnapshotFile struct {
	CF   string `json:"cf"`
	Part int    `json:"part"` // 0 first; more than one per family since 6.1
	Size uint64 `json:"size"` // bytes; 0: the family is empty here and there is no file
	// Checksum is the CRC-32 (IEEE) of the whole file. RocksDB may have written a global sequence number into a table that it began to ingest;
	// TiKV takes that number out again before it compares.
	Checksum uint32 `json:"checksum"`
}

// SnapshotMeta is the content of a snapshot's .meta file, a bare protobuf message:
//
//	1 cf_files               repeated {1 cf string, 2 size u64, 3 checksum u32}; families in the order default, lock, write, each at least once
//	2 for_balance            bool
//	3 for_witness            bool, since 6.5
//	4 start                  u64, seconds since 1970, since 6.5
//	5 generate_duration_sec  u64
//	6 tablet_snap_path       string, since 7.1: sent by a store of partitioned-raft-kv
//	7 commit_index_hint      u64, since 7.5
//
// Source: pingcap/kvproto proto/raft_serverpb.proto (SnapshotMeta, SnapshotCFFile); tikv/tikv components/raftstore/src/store/snap.rs
// (gen_snapshot_meta, set_snapshot_meta).
type SnapshotMeta struct {
	Files           []SnapshotFile `json:"cf_files"`
	ForBalance      bool           `json:"for_balance,omitempty"`
	ForWitness      bool           `json:"for_witness,omitempty"`
	Start           uint64         `json:"start,omitempty"` // seconds since 1970
	DurationSec     uint64         `json:"generate_duration_sec,omitempty"`
	TabletSnapPath  string         `json:"tablet_snap_path,omitempty"`
	CommitIndexHint uint64         `json:"commit_index_hint,omitempty"`
	Raw             []byte         `json:"-"` // the message's bytes, unknown fields included
}

// ParseSnapshotMeta decodes a SnapshotMeta. Errors are of class ErrCorrupt; families in another number or order, which TiKV refuses, are
// one of them. The result does not share b.
func ParseSnapshotMeta(b []byte) (SnapshotMeta, error) {
	var m raft_serverpb.SnapshotMeta
	if err := m.Unmarshal(b); err != nil {
		return SnapshotMeta{}, &DecodeError{What: "SnapshotMeta", Err: err}
	}
	s := SnapshotMeta{ForBalance: m.ForBalance, ForWitness: m.ForWitness, Start: m.Start, DurationSec: m.GenerateDurationSec,
		TabletSnapPath: m.TabletSnapPath, CommitIndexHint: m.CommitIndexHint, Raw: bytes.Clone(b)}
	at, part := -1, 0
	for i, f := range m.CfFiles {
		if at >= 0 && f.Cf == snapshotCFs[at] {
			part++
		} else {
			at, part = at+1, 0
		}
		if at >= len(snapshotCFs) || f.Cf != snapshotCFs[at] {
			return SnapshotMeta{}, corruptf("SnapshotMeta", "file %d is of column family %q; the families must be %s, in this order", i, f.Cf, strings.Join(snapshotCFs[:], ", "))
		}
		s.Files = append(s.Files, SnapshotFile{CF: snapshotCFs[at], Part: part, Size: f.Size_, Checksum: f.Checksum})
	}
	if at != len(snapshotCFs)-1 {
		return SnapshotMeta{}, corruptf("SnapshotMeta", "it names files of %d column families, not of %s", at+1, strings.Join(snapshotCFs[:], ", "))
	}
	return s, nil
}

// Size is the sum of the files' sizes in bytes.
func (m SnapshotMeta) Size() (n uint64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// SnapshotName is the name of a file in snap/.
//
//	(gen|rev) _ region _ term _ index  .meta
//	(gen|rev) _ region _ term _ index  _ (default|lock|write) [_ part, four digits] .sst
//
// followed by nothing, by .tmp (being written: removed when TiKV starts) or by .clone (a hard link that is being ingested). gen: made here
// for another store; rev: received. Numbers are decimal.
// Source: tikv/tikv components/raftstore/src/store/snap.rs (Snap::new, CfFile::gen_file_name).
type SnapshotName struct {
	Key      SnapshotKey
	Received bool
	CF       string // "": the metadata
	Part     int
	Suffix   string // "", ".tmp", ".clone"
}

// String gives the file name.
func (n SnapshotName) String() string {
	s := "gen_"
	if n.Received {
		s = "rev_"
	}
	s += n.Key.String()
	switch {
	case n.CF == "":
		s += ".meta"
	case n.Part == 0:
		s += "_" + n.CF + ".sst"
	default:
		s += fmt.Sprintf("_%s_%04d.sst", n.CF, n.Part)
	}
	return s + n.Suffix
}

// ParseSnapshotName reads a file name of snap/; ok is false for one that is not of this form, to the letter.
func ParseSnapshotName(name string) (n SnapshotName, ok bool) {
	rest := name
	for _, suffix := range []string{".tmp", ".clone"} {
		if r, cut := strings.CutSuffix(rest, suffix); cut {
			rest, n.Suffix = r, suffix
			break
		}
	}
	stem, meta := strings.CutSuffix(rest, ".meta")
	if !meta {
		if stem, ok = strings.CutSuffix(rest, ".sst"); !ok {
			return SnapshotName{}, false
		}
	}
	parts := strings.Split(stem, "_")
	if len(parts) < 4 || meta != (len(parts) == 4) || len(parts) > 6 {
		return SnapshotName{}, false
	}
	n.Received = parts[0] == "rev"
	for i, to := range []*uint64{&n.Key.Region, &n.Key.Term, &n.Key.Index} {
		var err error
		if *to, err = strconv.ParseUint(parts[1+i], 10, 64); err != nil {
			return SnapshotName{}, false
		}
	}
	if len(parts) > 4 {
		n.CF = parts[4]
	}
	if len(parts) > 5 {
		part, err := strconv.ParseUint(parts[5], 10, 31)
		if err != nil || part == 0 {
			return SnapshotName{}, false
		}
		n.Part = int(part)
	}
	known := meta
	for _, cf := range snapshotCFs {
		known = known || n.CF == cf
	}
	if !known || n.String() != name {
		return SnapshotName{}, false
	}
	return n, true
}
