package repair

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// maxIngest bounds, in bytes, a file whose records are applied one by one: they are held in memory until the edit writes them.
const maxIngest = 64 << 20

// ingestedRecords reads the file that an ingest command names, as TiKV would ingest it: it lies in import/, belongs to this region at this
// epoch, and its keys are database keys of the region. The second result says why it cannot be applied; "" when it can.
//
//	import/<uuid, hyphenated>_<region>_<conf_ver>_<version>_<cf>[_…].sst
//
// Source: tikv/tikv components/sst_importer/src/import_file.rs (sst_meta_to_path), components/raftstore/src/store/fsm/apply.rs
// (handle_ingest_sst, check_sst_for_ingestion).
func ingestedRecords(r scan.Region, q raftstate.Request, find func(uuid []byte) (base.FS, string, string)) ([]tailRecord, string) {
	if q.SST == nil {
		return nil, "it ingests a file without a description"
	}
	if q.SST.CF != scan.CFDefault && q.SST.CF != scan.CFWrite {
		return nil, fmt.Sprintf("it ingests a file into column family %q", q.SST.CF)
	}
	if q.SST.RegionID != r.ID || q.SST.Epoch != r.State.Region.Epoch {
		return nil, "it ingests a file of another region or epoch"
	}
	fs, path, reason := find(q.SST.UUID)
	if reason != "" {
		return nil, reason
	}
	if q.SST.Length > maxIngest {
		return nil, fmt.Sprintf("it ingests a file of %d bytes, more than the %d that are applied offline", q.SST.Length, maxIngest)
	}
	// An ingest that a crash interrupted may have left a sequence number in the file: its own property counts.
	t, err := sst.Open(fs, path, sst.ReaderOptions{CF: q.SST.CF, Size: int64(q.SST.Length), LargestSeq: ikey.MaxSeq})
	if err != nil {
		return nil, fmt.Sprintf("the file that it ingests does not read: %v", err)
	}
	defer t.Close()
	if dels, err := t.RangeDels(); err != nil || len(dels) > 0 {
		return nil, "the file that it ingests holds range tombstones"
	}
	lower, upper := r.Bounds()
	var out []tailRecord
	it := t.NewIter()
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if k.Kind != ikey.KindPut && k.Kind != ikey.KindDelete {
			return nil, "the file that it ingests holds a " + k.Kind.String()
		}
		if bytes.Compare(k.User, lower) < 0 || bytes.Compare(k.User, upper) >= 0 {
			return nil, "the file that it ingests reaches beyond the region"
		}
		out = append(out, tailRecord{cf: q.SST.CF, kind: k.Kind, user: bytes.Clone(k.User), rest: bytes.Clone(it.Value())})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Sprintf("the file that it ingests does not read: %v", err)
	}
	return out, ""
}

// importFile finds a file of import/ by its uuid.
func importFile(s *scan.Store, uuid []byte) (path, reason string) {
	if len(uuid) != 16 {
		return "", "it ingests a file without a uuid"
	}
	h := hex.EncodeToString(uuid)
	prefix := strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-") + "_"
	names, err := listNames(s.FS, s.Layout.ImportDir)
	if err != nil {
		return "", err.Error()
	}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) && strings.HasSuffix(n, ".sst") {
			return s.FS.PathJoin(s.Layout.ImportDir, n), ""
		}
	}
	return "", "it ingests a file that is not in import/ (" + prefix + "….sst)"
}
