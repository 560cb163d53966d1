package repair

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// An ingest command that waits in the log: the records of its file count as written when the file is the one that TiKV would take, and
// the reason is named when it is not.
func TestIngestedRecords(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-levels"))
	s := openStore(t, fs, "/data")
	defer s.Close()
	r, want := regionWithRecords(t, s)
	if err := fs.MkdirAll("/data/import", 0o755); err != nil {
		t.Fatal(err)
	}
	uuid := []byte("0123456789abcdef")
	const name = "/data/import/30313233-3435-3637-3839-616263646566_2_1_1_write.sst"
	size := writeImport(t, fs, name, want)
	good := raftstate.SST{UUID: uuid, CF: scan.CFWrite, Length: size, RegionID: r.ID, Epoch: r.State.Region.Epoch}
	for _, c := range []struct {
		name   string
		change func(*raftstate.SST)
		reason string
	}{
		{"the file is there", func(*raftstate.SST) {}, ""},
		{"another file", func(m *raftstate.SST) { m.UUID = []byte("fedcba9876543210") }, "not in import/"},
		{"no uuid", func(m *raftstate.SST) { m.UUID = nil }, "without a uuid"},
		{"epoch of before a split", func(m *raftstate.SST) { m.Epoch.Version-- }, "another region or epoch"},
		{"another length", func(m *raftstate.SST) { m.Length++ }, "does not read"},
		{"too long for memory", func(m *raftstate.SST) { m.Length = maxIngest + 1 }, "more than the"},
		{"into the lock family", func(m *raftstate.SST) { m.CF = scan.CFLock }, `column family "lock"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := good
			c.change(&m)
			got, reason := ingestedRecords(r, raftstate.Request{Op: raftstate.OpIngest, SST: &m}, ownLog(s, r.ID).importFile)
			if c.reason != "" {
				if !strings.Contains(reason, c.reason) || got != nil {
					t.Errorf("%d records, reason %q, want %q", len(got), reason, c.reason)
				}
				return
			}
			if reason != "" || len(got) != len(want) {
				t.Fatalf("%d records of %d, %s", len(got), len(want), reason)
			}
			for i, rec := range got {
				if rec.cf != scan.CFWrite || rec.kind != ikey.KindPut || !bytes.Equal(rec.user, want[i].user) || !bytes.Equal(rec.rest, want[i].rest) {
					t.Errorf("record %d: %+v, want %+v", i, rec, want[i])
				}
			}
		})
	}
	other := r
	other.State.Region.EndKey = append(bytes.Clone(other.State.Region.StartKey), 0)
	if _, reason := ingestedRecords(other, raftstate.Request{Op: raftstate.OpIngest, SST: &good}, ownLog(s, r.ID).importFile); !strings.Contains(reason, "beyond the region") {
		t.Errorf("a file beyond the region: %q", reason)
	}
}

// regionWithRecords finds a region with write records and gives some of them.
func regionWithRecords(t *testing.T, s *scan.Store) (scan.Region, []tailRecord) {
	t.Helper()
	for _, r := range s.Regions {
		lower, upper := r.Bounds()
		v, err := s.DB.CF(scan.CFWrite).NewVisible(lower, upper, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out []tailRecord
		for ok := v.First(); ok && len(out) < 50; ok = v.Next() {
			out = append(out, tailRecord{cf: scan.CFWrite, kind: ikey.KindPut, user: bytes.Clone(v.User()), rest: bytes.Clone(v.Value())})
		}
		v.Close()
		if len(out) == 50 {
			return r, out
		}
	}
	t.Fatal("no region with 50 write records")
	return scan.Region{}, nil
}

func writeImport(t *testing.T, fs base.FS, name string, recs []tailRecord) uint64 {
	t.Helper()
	f, err := fs.Create(name, base.DiskWriteCategory)
	if err != nil {
		t.Fatal(err)
	}
	w := sst.NewWriter(f, sst.WriterOptions{CFID: 2, CFName: scan.CFWrite})
	for _, rec := range recs {
		if err := w.Add(ikey.Key{User: rec.user, Kind: rec.kind}, rec.rest); err != nil {
			t.Fatal(err)
		}
	}
	m, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return m.Size
}
