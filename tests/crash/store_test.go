package crash

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const (
	fixture = "single-lz4-ranges"
	dataDir = "/data"
)

// derive makes the store on which the crash tests run, in memory and durable, from a directory that TiKV wrote.
//
// single-lz4-ranges has two tables in the write column family: one on L6 with 2/3 of its history and one on L0 whose records are
// all above T1, so that a rewind to T1 rewrites one and drops the other. What lies on which level is the engine's choice as long as
// the newer record of a key lies above the older one, and a row's versions are different keys there. So the L6 table is cut
// on row borders into four: the first, the second and the last stay on L6, with the epoch of the table that they come from; the
// third moves up into the L0 table, which keeps its own epoch. Sequence numbers stay. All records of all column families are the
// same as before, and the eleven write-ahead logs, which every family still needs from another log on, are not touched.
//
// A table that waits in import/ holds something above T: it has to be set aside with the rest.
//
// raft-engine preallocates its file with zeros, which say nothing; they are cut off.
func derive(tb testing.TB) *vfs.MemFS {
	tb.Helper()
	mem := fixtures.CrashMem(tb, fixture)
	fs := base.NewMem(mem)
	db, err := rocks.Open(fs, dataDir+"/db", rocks.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	cf := db.CF(scan.CFWrite)
	var upper, lower rocks.LevelFile
	for _, f := range cf.Files() {
		if f.Level == 0 {
			upper = f
		} else {
			lower = f
		}
	}
	if len(cf.Files()) != 2 || upper.FileMeta == nil || lower.FileMeta == nil {
		tb.Fatalf("the write column family of %s has %d tables", fixture, len(cf.Files()))
	}
	quarters := rowQuarters(tb, cf, lower)
	next, err := db.FreeNumber()
	if err != nil {
		tb.Fatal(err)
	}
	edit := &manifest.Edit{CF: cf.Meta.ID, PrevLogNumber: manifest.Ptr(uint64(0)), LastSequence: manifest.Ptr(db.LastSeq),
		DeletedFiles: []manifest.DeletedFile{{Level: upper.Level, Number: upper.Number}, {Level: lower.Level, Number: lower.Number}}}
	add := func(level int, like rocks.LevelFile, it ikey.Iter) {
		number := next
		next++
		edit.NewFiles = append(edit.NewFiles, manifest.NewFile{Level: level, File: writeTable(tb, db, number, like, it)})
	}
	for i, q := range quarters {
		if i != 2 {
			add(lower.Level, lower, q.Iter())
		}
	}
	old, done, err := cf.Table(upper.FileMeta)
	if err != nil {
		tb.Fatal(err)
	}
	add(upper.Level, upper, rocks.Merge(old.NewIter(), quarters[2].Iter()))
	if err := done(); err != nil {
		tb.Fatal(err)
	}
	edit.NextFileNumber = manifest.Ptr(next)
	records, err := manifest.BuildRecords(db.State, []*manifest.Edit{edit}, 0)
	if err != nil {
		tb.Fatal(err)
	}
	name := manifest.ManifestName(next)
	must(tb, manifest.Write(fs, path.Join(db.Dir, name), append(slices.Clone(db.State.Records), records...), ""))
	must(tb, base.WriteFileSync(fs, path.Join(db.Dir, "CURRENT"), []byte(name+"\n"), ""))
	waiting, err := base.ReadFile(fs, db.TablePath(lower.Number))
	must(tb, err)
	must(tb, mem.MkdirAll(path.Join(dataDir, "import"), 0o755))
	must(tb, base.WriteFileSync(fs, path.Join(dataDir, "import", "waiting_write.sst"), waiting, ""))
	must(tb, base.SyncDir(fs, path.Join(dataDir, "import")))
	must(tb, base.SyncDir(fs, dataDir))
	for _, p := range []string{db.TablePath(upper.Number), db.TablePath(lower.Number), db.State.Path} {
		must(tb, mem.Remove(p))
	}
	cutZeros(tb, fs, dataDir+"/raft-engine/0000000000000001.raftlog")
	must(tb, base.SyncDir(fs, db.Dir))
	must(tb, base.SyncDir(fs, dataDir+"/raft-engine"))
	return mem
}

// rowQuarters cuts a table into four runs of about the same size on row borders.
func rowQuarters(tb testing.TB, cf *rocks.CF, f rocks.LevelFile) [4]*rocks.Run {
	tb.Helper()
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		tb.Fatal(err)
	}
	total := 0
	it := r.NewIter()
	for ok := it.First(); ok; ok = it.Next() {
		total++
	}
	var out [4]*rocks.Run
	for i := range out {
		out[i] = &rocks.Run{}
	}
	n, q := 0, 0
	var row []byte
	for ok := it.First(); ok; ok = it.Next() {
		prefix, _, txn := mvcc.SplitKey(it.Key().User)
		if !txn {
			tb.Fatalf("%X is no transactional key", it.Key().User)
		}
		if !bytes.Equal(prefix, row) {
			row = append(row[:0], prefix...)
			q = min(n*4/total, 3)
		}
		out[q].Add(it.Key(), it.Value())
		n++
	}
	if err := it.Err(); err != nil {
		tb.Fatal(err)
	}
	must(tb, it.Close())
	must(tb, done())
	for _, o := range out {
		o.Sort()
		if o.Len() == 0 {
			tb.Fatal("the table has too few rows")
		}
	}
	return out
}

// writeTable writes records in the profile of another table, with TiKV's and Titan's collectors.
func writeTable(tb testing.TB, db *rocks.DB, number uint64, like rocks.LevelFile, it ikey.Iter) *manifest.FileMeta {
	tb.Helper()
	r, done, err := db.CF(scan.CFWrite).Table(like.FileMeta)
	if err != nil {
		tb.Fatal(err)
	}
	o := sst.OptionsLike(r)
	must(tb, done())
	o.FileNumber = number
	o.Collectors = []sst.Collector{mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: true}),
		mvcc.NewRangeCollector(mvcc.RangeOptions{SizeDistance: 4 << 20, KeysDistance: 40 << 10}), sst.NewBlobCollector()}
	f, err := db.FS.Create(db.TablePath(number), base.DiskWriteCategory)
	if err != nil {
		tb.Fatal(err)
	}
	w := sst.NewWriter(f, o)
	for ok := it.First(); ok; ok = it.Next() {
		must(tb, w.Add(it.Key(), it.Value()))
	}
	must(tb, it.Err())
	must(tb, it.Close())
	meta, err := w.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	must(tb, f.Sync())
	must(tb, f.Close())
	m := rocks.MetaOf(number, meta, like.FileMeta, now)
	m.FileCreationTime = like.FileCreationTime
	return m
}

func cutZeros(tb testing.TB, fs base.FS, name string) {
	tb.Helper()
	b, err := base.ReadFile(fs, name)
	if err != nil {
		tb.Fatal(err)
	}
	must(tb, base.WriteFileSync(fs, name, append(bytes.TrimRight(b, "\x00"), make([]byte, 64)...), ""))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// tree has the content of every file below a directory, directories too (with a slash at the end), by path relative to it.
func tree(fs vfs.FS, dir string) (map[string]string, error) {
	out := map[string]string{}
	var walk func(rel string) error
	walk = func(rel string) error {
		names, err := fs.List(path.Join(dir, rel))
		if err != nil {
			return err
		}
		for _, n := range names {
			p := path.Join(rel, n)
			st, err := fs.Stat(path.Join(dir, p))
			if err != nil {
				return err
			}
			if st.IsDir() {
				out[p+"/"] = ""
				if err := walk(p); err != nil {
					return err
				}
				continue
			}
			b, err := content(fs, path.Join(dir, p))
			if err != nil {
				return err
			}
			out[p] = string(b)
		}
		return nil
	}
	return out, walk("")
}

// content reads a file; of one in memory nobody else writes it meanwhile.
func content(fs vfs.FS, name string) ([]byte, error) {
	if mem, ok := fs.(*vfs.MemFS); ok {
		return mem.UnsafeGetFileDataBuffer(name)
	}
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// withoutBackups is what TiKV sees of a tree.
func withoutBackups(t map[string]string) map[string]string {
	out := map[string]string{}
	for p, b := range t {
		if !strings.HasPrefix(p, "tikv-repair/") {
			out[p] = b
		}
	}
	return out
}

// differ names the first difference of two trees; "" when they are equal.
func differ(got, want map[string]string) string {
	for _, p := range sorted(want) {
		g, ok := got[p]
		if !ok {
			return p + " is missing"
		}
		if g != want[p] {
			return fmt.Sprintf("%s has other content (%d bytes, want %d)", p, len(g), len(want[p]))
		}
	}
	for _, p := range sorted(got) {
		if _, ok := want[p]; !ok {
			return p + " is left over"
		}
	}
	return ""
}

func sorted(m map[string]string) []string {
	var out []string
	for p := range m {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// hashTree identifies a whole file system: states that are the same are examined once.
func hashTree(t map[string]string) string {
	h := xxhash.New()
	for _, p := range sorted(t) {
		fmt.Fprintf(h, "%d %s %d ", len(p), p, len(t[p]))
		h.WriteString(t[p])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// digest sums up what a TiKV that ignores the fence would see: every visible record of every column family, the identity, the
// region records (they are in the raft family), and, behind a slash, the raft state and the log of each region.
func digest(fs vfs.FS) (string, error) { return digestAt(base.NewMem(fs), dataDir) }

func digestAt(fs base.FS, dir string) (string, error) {
	s, err := scan.Open(fs, dir, scan.Options{})
	if err != nil {
		return "", err
	}
	defer s.Close()
	for _, p := range s.DB.Log.Problems {
		return "", p
	}
	for _, f := range s.DB.SelfCheck(nil) {
		return "", fmt.Errorf("%s", f)
	}
	h := xxhash.New()
	for _, name := range s.DB.Names() {
		v, err := s.DB.CF(name).NewVisible(nil, nil, nil)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "cf %s\n", name)
		for ok := v.First(); ok; ok = v.Next() {
			fmt.Fprintf(h, "%d %d %d ", v.Kind(), len(v.User()), len(v.Value()))
			h.Write(v.User())
			h.Write(v.Value())
		}
		if err := v.Err(); err != nil {
			return "", err
		}
		v.Close()
	}
	kv := hex.EncodeToString(h.Sum(nil))
	h.Reset()
	ids, err := s.Raft.Regions()
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		raw, ok, err := s.Raft.RaftState(id)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "region %d %v %X\n", id, ok, raw)
		if err := s.Raft.Entries(id, 0, ^uint64(0), func(e raftstate.Entry) error { h.Write(e.Raw); return nil }); err != nil {
			return "", err
		}
	}
	return kv + "/" + hex.EncodeToString(h.Sum(nil)), nil
}

// kvOf and raftOf are the two parts of a digest.
func kvOf(sum string) string   { return sum[:strings.IndexByte(sum, '/')] }
func raftOf(sum string) string { return sum[strings.IndexByte(sum, '/')+1:] }

// settle copies a live file system as it is, synced or not: what is left when the process is killed and the machine goes on.
func settle(tb testing.TB, fs vfs.FS) *vfs.MemFS {
	tb.Helper()
	t, err := tree(fs, dataDir)
	if err != nil {
		tb.Fatal(err)
	}
	out := vfs.NewCrashableMem()
	must(tb, out.MkdirAll(dataDir, 0o755))
	dirs := []string{"/", dataDir}
	for _, p := range sorted(t) {
		full := path.Join(dataDir, p)
		if strings.HasSuffix(p, "/") {
			must(tb, out.MkdirAll(full, 0o755))
			dirs = append(dirs, full)
		}
	}
	for _, p := range sorted(t) {
		if !strings.HasSuffix(p, "/") {
			must(tb, base.WriteFileSync(base.NewMem(out), path.Join(dataDir, p), []byte(t[p]), ""))
		}
	}
	syncDirs(tb, out, dirs)
	return out
}

// syncDirs makes directories durable, the deepest first.
func syncDirs(tb testing.TB, fs vfs.FS, dirs []string) {
	tb.Helper()
	slices.SortFunc(dirs, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	for _, d := range dirs {
		must(tb, base.SyncDir(base.NewMem(fs), d))
	}
}
