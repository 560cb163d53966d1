//go:build rocksdb

package manifest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// The judge is stock RocksDB 7.8.3. Unlike TiKV's 8.10 line it knows no epoch numbers (skipped as an ignorable custom
// field) and no PersistUserDefinedTimestamps; TailSize and CompensatedRangeDeletion are skipped as well.

var families = []string{"default", "lock", "write"}

type rocks struct {
	db  *grocksdb.DB
	cfs []*grocksdb.ColumnFamilyHandle
	opt *grocksdb.Options
}

func openRocks(t *testing.T, dir string, tracked bool) (*rocks, error) {
	t.Helper()
	o, err := grocksdb.GetOptionsFromString(nil, fmt.Sprintf(
		"create_if_missing=true;create_missing_column_families=true;track_and_verify_wals_in_manifest=%v;disable_auto_compactions=true", tracked))
	if err != nil {
		t.Fatal(err)
	}
	o.SetInfoLogLevel(grocksdb.FatalInfoLogLevel)
	db, cfs, err := grocksdb.OpenDbColumnFamilies(o, dir, families, []*grocksdb.Options{o, o, o})
	if err != nil {
		o.Destroy()
		return nil, err
	}
	return &rocks{db, cfs, o}, nil
}

func (r *rocks) close() {
	for _, cf := range r.cfs {
		cf.Destroy()
	}
	r.db.Close()
	r.opt.Destroy()
}

// scan is family/key to value.
func (r *rocks) scan() map[string]string {
	m := map[string]string{}
	ro := grocksdb.NewDefaultReadOptions()
	defer ro.Destroy()
	for i, cf := range r.cfs {
		it := r.db.NewIteratorCF(ro, cf)
		for it.SeekToFirst(); it.Valid(); it.Next() {
			m[families[i]+"/"+string(it.Key().Data())] = string(it.Value().Data())
		}
		it.Close()
	}
	return m
}

func copyDir(t *testing.T, src, dst string) {
	t.Helper()
	if err := os.MkdirAll(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == "LOCK" || strings.HasPrefix(e.Name(), "LOG") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(src, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dst, e.Name()), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// liveStore has two L0 files in each family, "a"="old" and "b"="new". "c" of lock and write is in a WAL only, which the
// MANIFEST tracks; that of default is flushed with "d". It is a copy of an open database.
func liveStore(t *testing.T) (dir string, files []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "db")
	r, err := openRocks(t, dir+"-open", true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	wo, fo := grocksdb.NewDefaultWriteOptions(), grocksdb.NewDefaultFlushOptions()
	defer wo.Destroy()
	defer fo.Destroy()
	for _, kv := range []string{"a=old", "b=new", "c=wal"} {
		for _, cf := range r.cfs {
			if err := r.db.PutCF(wo, cf, []byte(kv[:1]), []byte(kv[2:])); err != nil {
				t.Fatal(err)
			}
			if kv[0] == 'c' {
				continue
			}
			if err := r.db.FlushCF(cf, fo); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The flush of one family closes, syncs and records the WAL that the others still need.
	if err := r.db.PutCF(wo, r.cfs[0], []byte("d"), []byte("flushed")); err != nil {
		t.Fatal(err)
	}
	if err := r.db.FlushCF(r.cfs[0], fo); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.db.GetLiveFilesMetaData() {
		files = append(files, fmt.Sprintf("%s L%d %s %d [%s..%s]", f.ColumnFamilyName, f.Level, f.Name, f.Size, f.SmallestKey, f.LargestKey))
	}
	copyDir(t, dir+"-open", dir)
	return dir, files
}

func listFiles(s *State) (files []string) {
	for _, cf := range s.CFs {
		for l, level := range cf.Levels {
			for _, f := range level {
				files = append(files, fmt.Sprintf("%s L%d /%s %d [%s..%s]", cf.Name, l, TableName(f.Number), f.Size, f.Smallest.User, f.Largest.User))
			}
		}
	}
	return files
}

// publish writes records as the next MANIFEST and points CURRENT at it.
func publish(t *testing.T, dir string, s *State, records [][]byte) {
	t.Helper()
	fs := base.NewOS()
	n := s.NextFile + 50
	if err := Write(fs, filepath.Join(dir, ManifestName(n)), records, s.Path); err != nil {
		t.Fatal(err)
	}
	if err := base.WriteFileSync(fs, filepath.Join(dir, "CURRENT"), []byte(ManifestName(n)+"\n"), s.Path); err != nil {
		t.Fatal(err)
	}
}

func TestOracle(t *testing.T) {
	dir, files := liveStore(t)
	fs := base.NewOS()
	s, err := Load(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	got := listFiles(s)
	slices.Sort(got)
	slices.Sort(files)
	if d := cmp.Diff(files, got); d != "" {
		t.Errorf("live files, RocksDB against ours: %s", d)
	}
	if len(s.WALs) == 0 {
		t.Error("no tracked WAL: the test does not test them")
	}
	rep, err := wal.Replay(fs, wal.ReplayInput{Dir: dir, MinLog: s.MinLogs(), MinLogToKeep: s.MinLogToKeep, LastSequence: s.LastSeq, Tracked: s.WALs, HasSST: s.HasSST},
		func(wal.Record) error { return nil })
	if err != nil || rep.Err() != nil {
		t.Fatal(err, rep.Err())
	}
	all := map[string]string{}
	for _, cf := range families {
		maps.Copy(all, map[string]string{cf + "/a": "old", cf + "/b": "new", cf + "/c": "wal"})
	}
	all["default/d"] = "flushed"
	// edits makes one edit per family with everything that a fold of the WALs sets; f adds to each.
	next := s.NextFile + 100
	edits := func(f func(cf *CF, e *Edit)) (out []*Edit) {
		for _, cf := range s.CFs {
			e := &Edit{CF: cf.ID, PrevLogNumber: Ptr(uint64(0)), NextFileNumber: Ptr(next), LastSequence: Ptr(rep.LastSequence)}
			f(cf, e)
			out = append(out, e)
		}
		return out
	}
	oldest := func(cf *CF) *FileMeta { return cf.Levels[0][len(cf.Levels[0])-1] }
	without := func(keys ...string) map[string]string {
		m := maps.Clone(all)
		maps.DeleteFunc(m, func(k, _ string) bool { return slices.Contains(keys, k) })
		return m
	}
	for _, tc := range []struct {
		name    string
		edits   []*Edit
		retire  bool // the WALs
		tamper  func(d string)
		want    map[string]string
		refused string
	}{
		{name: "written again, no change", want: all},
		{name: "a file dropped from each family", want: without("default/a", "lock/a", "write/a"),
			edits: edits(func(cf *CF, e *Edit) { e.DeletedFiles = []DeletedFile{{0, oldest(cf).Number}} })},
		{name: "the oldest file moved to the bottom, with every attribute", want: all, edits: edits(func(cf *CF, e *Edit) {
			f := *oldest(cf)
			f.Epoch, f.TailSize = 3, 100
			e.DeletedFiles, e.NewFiles = []DeletedFile{{0, f.Number}}, []NewFile{{6, &f}}
		})},
		{name: "WALs retired: what was only there is gone, the tracked ones may be missing", retire: true, want: without("lock/c", "write/c"),
			edits: edits(func(cf *CF, e *Edit) {
				e.LogNumber = Ptr(rep.MaxLog + 1)
				if cf.ID == 0 {
					e.MinLogNumberToKeep = e.LogNumber
				}
			}),
			tamper: func(d string) {
				logs, _ := filepath.Glob(filepath.Join(d, "*.log"))
				for _, l := range logs {
					if err := os.Remove(l); err != nil {
						t.Fatal(err)
					}
				}
			}},
		{name: "a tracked WAL is missing", refused: "Missing WAL", tamper: func(d string) {
			for n := range s.WALs {
				if err := os.Remove(filepath.Join(d, fmt.Sprintf("%06d.log", n))); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "db")
			copyDir(t, dir, d)
			cutoff := uint64(0)
			if tc.retire {
				cutoff = rep.MaxLog + 1
			}
			records, err := BuildRecords(s, tc.edits, cutoff)
			if err != nil {
				t.Fatal(err)
			}
			publish(t, d, s, append(slices.Clone(s.Records), records...))
			if tc.tamper != nil {
				tc.tamper(d)
			}
			if tc.refused != "" {
				if r, err := openRocks(t, d, true); err == nil || !strings.Contains(err.Error(), tc.refused) {
					t.Errorf("RocksDB says %v", err)
					if err == nil {
						r.close()
					}
				}
				return
			}
			for range 2 {
				r, err := openRocks(t, d, true)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tc.want, r.scan()); d != "" {
					t.Error(d)
				}
				r.close()
			}
			after, err := Load(fs, d)
			if err != nil {
				t.Fatal(err)
			}
			if tc.retire && after.CF("write").LogNumber <= rep.MaxLog {
				t.Errorf("log number %d", after.CF("write").LogNumber)
			}
		})
	}
}
