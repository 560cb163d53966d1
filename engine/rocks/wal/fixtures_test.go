package wal_test

import (
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// rocksDirs finds the RocksDB directories of an archive.
func rocksDirs(t *testing.T, fs base.FS, dir string) (dirs []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name == "CURRENT" && !strings.HasSuffix(dir, "titandb") {
			dirs = append(dirs, dir)
		}
		path := fs.PathJoin(dir, name)
		if st, err := fs.Stat(path); err == nil && st.IsDir() {
			dirs = append(dirs, rocksDirs(t, fs, path)...)
		}
	}
	return dirs
}

// The WALs of every store that TiKV left behind replay without a problem: sequences are contiguous, counts add up, tracked
// WALs have their size.
func TestFixtures(t *testing.T) {
	replayed := 0
	for _, name := range fixtures.Names() {
		if name == "single-encrypted" {
			continue // needs engine/crypt below the FS
		}
		fs := base.NewMem(fixtures.Mem(t, name))
		for _, dir := range rocksDirs(t, fs, "/") {
			if strings.Contains(dir, "/pd/") {
				continue
			}
			t.Run(name+dir, func(t *testing.T) {
				s, err := manifest.Load(fs, dir)
				if err != nil {
					t.Fatal(err)
				}
				in := wal.ReplayInput{Dir: dir, MinLog: s.MinLogs(), MinLogToKeep: s.MinLogToKeep, LastSequence: s.LastSeq, Tracked: s.WALs, HasSST: s.HasSST}
				var last, emitted uint64
				rep, err := wal.Replay(fs, in, func(r wal.Record) error {
					if r.Key.Seq <= last {
						t.Fatalf("sequence %d after %d", r.Key.Seq, last)
					}
					last = r.Key.Seq
					if s.CFByID(r.CF) == nil || r.Key.Kind == ikey.KindMerge {
						t.Fatalf("record %s of column family %d", r.Key, r.CF)
					}
					emitted++
					return nil
				})
				if err != nil || rep.Err() != nil {
					t.Fatal(err, rep.Err())
				}
				next := uint64(0)
				for _, l := range rep.Logs {
					if l.Skipped || l.Records == 0 {
						continue
					}
					replayed++
					if l.LastSeq-l.FirstSeq+1 != l.Records || next != 0 && l.FirstSeq != next {
						t.Errorf("WAL %d: sequences %d..%d, %d records, %d expected", l.Number, l.FirstSeq, l.LastSeq, l.Records, next)
					}
					next = l.LastSeq + 1
				}
				if emitted != rep.Emitted || rep.LastSequence < s.LastSeq || next > 0 && rep.LastSequence != next-1 {
					t.Errorf("emitted %d, report %d, last sequence %d, MANIFEST %d, next %d", emitted, rep.Emitted, rep.LastSequence, s.LastSeq, next)
				}
			})
		}
	}
	if replayed < 40 {
		t.Errorf("only %d WALs with records", replayed)
	}
}
