package regionmeta_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/encryptionpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/regionmeta"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

var withPD = []string{"multi3-dr-autosync", "multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3"}

// apiRegions are the regions of PD's /regions, as descriptors.
func apiRegions(t *testing.T, name string) []raftstate.Region {
	t.Helper()
	var doc struct {
		Regions []struct {
			ID       uint64          `json:"id"`
			StartKey raftstate.Key   `json:"start_key"`
			EndKey   raftstate.Key   `json:"end_key"`
			Epoch    raftstate.Epoch `json:"epoch"`
			Peers    []struct {
				ID    uint64 `json:"id"`
				Store uint64 `json:"store_id"`
				Role  string `json:"role_name"`
			} `json:"peers"`
		} `json:"regions"`
	}
	if err := json.Unmarshal(fixtures.File(t, name, "regions.json"), &doc); err != nil {
		t.Fatal(err)
	}
	var out []raftstate.Region
	for _, r := range doc.Regions {
		d := raftstate.Region{ID: r.ID, StartKey: r.StartKey, EndKey: r.EndKey, Epoch: r.Epoch}
		for _, p := range r.Peers {
			role := raftstate.Voter
			if p.Role == "Learner" {
				role = raftstate.Learner
			} else if p.Role != "Voter" {
				t.Fatalf("role %s", p.Role)
			}
			d.Peers = append(d.Peers, raftstate.Peer{ID: p.ID, StoreID: p.Store, Role: role})
		}
		out = append(out, normal(d))
	}
	slices.SortFunc(out, byID)
	return out
}

func byID(a, b raftstate.Region) int { return cmp.Compare(a.ID, b.ID) }

// normal makes descriptors comparable: the order of peers does not matter, nor whether no key is nil.
func normal(r raftstate.Region) raftstate.Region {
	r.Peers = slices.SortedFunc(slices.Values(r.Peers), func(a, b raftstate.Peer) int { return cmp.Compare(a.ID, b.ID) })
	r.StartKey, r.EndKey = append(raftstate.Key{}, r.StartKey...), append(raftstate.Key{}, r.EndKey...)
	return r
}

func live(m *regionmeta.Meta) []raftstate.Region {
	var out []raftstate.Region
	for _, r := range m.Tile(regionmeta.FamilyShort).Live {
		out = append(out, normal(r))
	}
	slices.SortFunc(out, byID)
	return out
}

// What PD answered to /regions shortly before it was killed is what its cache holds: same ids, ranges, epochs, peers, roles.
func TestAgainstPDsAnswers(t *testing.T) {
	for _, name := range withPD {
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name, fixtures.WithPD()))
			before, err := fs.List("/pd/region-meta")
			if err != nil {
				t.Fatal(err)
			}
			m, err := regionmeta.Read(fs, "/pd")
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Damage) > 0 || len(m.Unknown) > 0 {
				t.Errorf("damage %v, unknown %v", m.Damage, m.Unknown)
			}
			tiling := m.Tile(regionmeta.FamilyShort)
			if len(tiling.Holes) > 0 || !slices.Equal(m.Families(), []regionmeta.Family{regionmeta.FamilyShort}) {
				t.Errorf("holes %v, families %v", tiling.Holes, m.Families())
			}
			got, want := live(m), apiRegions(t, name)
			t.Logf("%d regions, %d superseded; PD answered %d", len(got), len(tiling.Superseded), len(want))
			for id := range maps.Keys(union(got, want)) {
				if d := gocmp.Diff(find(want, id), find(got, id)); d != "" {
					t.Errorf("region %d differs, PD's answer (-), region-meta (+):\n%s", id, d)
				}
			}
			after, err := fs.List("/pd/region-meta")
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(before)), slices.Sorted(slices.Values(after))) {
				t.Errorf("files before %v, after %v, %v", before, after, err)
			}
		})
	}
}

func find(rs []raftstate.Region, id uint64) []raftstate.Region {
	return slices.DeleteFunc(slices.Clone(rs), func(r raftstate.Region) bool { return r.ID != id })
}

func union(a, b []raftstate.Region) map[uint64]bool {
	out := map[uint64]bool{}
	for _, r := range append(slices.Clone(a), b...) {
		out[r.ID] = true
	}
	return out
}

func key(id uint64) []byte { return fmt.Appendf(nil, "raft/r/%020d", id) }

func descriptor(id, version uint64, start, end string) *metapb.Region {
	return &metapb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end), RegionEpoch: &metapb.RegionEpoch{ConfVer: 5, Version: version},
		Peers: []*metapb.Peer{{Id: id + 1, StoreId: 1}}}
}

func put(t *testing.T, db *leveldb.DB, key []byte, r *metapb.Region) {
	t.Helper()
	b, err := r.Marshal()
	if err == nil {
		err = db.Put(key, b, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// written makes a region-meta with goleveldb, as PD does, and closes it.
func written(t *testing.T, o *opt.Options, f func(*leveldb.DB)) (pdDir string) {
	t.Helper()
	pdDir = t.TempDir()
	db, err := leveldb.OpenFile(filepath.Join(pdDir, "region-meta"), o)
	if err != nil {
		t.Fatal(err)
	}
	f(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return pdDir
}

// Tables on several levels, compressed, with overwritten and deleted records: every record is what goleveldb itself reads.
func TestAgainstGoleveldb(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := written(t, &opt.Options{WriteBuffer: 16 << 10, CompactionTableSize: 8 << 10}, func(db *leveldb.DB) {
		for i := range 3000 {
			id := rng.Uint64N(700) + 1
			if rng.IntN(5) == 0 {
				if err := db.Delete(key(id), nil); err != nil {
					t.Fatal(err)
				}
				continue
			}
			put(t, db, key(id), descriptor(id, uint64(i), fmt.Sprintf("k%06d", id), fmt.Sprintf("k%06d", id+1)))
		}
	})
	m, err := regionmeta.Read(base.NewOS(), dir)
	if err != nil || len(m.Damage) > 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "region-meta", "*.ldb"))
	if err != nil || len(tables) < 3 {
		t.Fatalf("only %d tables: %v", len(tables), err)
	}
	db, err := leveldb.OpenFile(filepath.Join(dir, "region-meta"), &opt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	n := 0
	for it.Next() {
		if n >= len(m.Records) || string(key(m.Records[n].Region.ID)) != string(it.Key()) {
			t.Fatalf("record %d: want %s", n, it.Key())
		}
		want, err := raftstate.ParseRegion(it.Value())
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(want, m.Records[n].Region); d != "" {
			t.Fatalf("record %d: %s", n, d)
		}
		n++
	}
	if n != len(m.Records) || n < 300 {
		t.Errorf("%d records, want %d", len(m.Records), n)
	}
}

// Both families, the history index, and keys that nobody knows, in one directory: section 9 of docs/formats/pd-data.md.
func TestFamilies(t *testing.T) {
	dir := written(t, nil, func(db *leveldb.DB) {
		put(t, db, key(2), descriptor(2, 7, "", "m"))
		put(t, db, fmt.Appendf(nil, "/pd/77/raft/r/%020d", 2), descriptor(2, 9, "", "m"))
		put(t, db, fmt.Appendf(nil, "/pd/77/raft/r/%020d", 3), descriptor(3, 9, "m", ""))
		for k, v := range map[string]string{"historyIndex": "4200", "who/knows": "x"} {
			if err := db.Put([]byte(k), []byte(v), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
	m, err := regionmeta.Read(base.NewOS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range m.Records {
		got = append(got, fmt.Sprintf("%s %d: %d v%d", r.Family, r.ClusterID, r.Region.ID, r.Region.Epoch.Version))
	}
	want := []string{"/pd/<cluster-id>/raft/r/ 77: 2 v9", "/pd/<cluster-id>/raft/r/ 77: 3 v9", "raft/r/ 0: 2 v7"}
	if !slices.Equal(got, want) || m.HistoryIndex != 4200 || !slices.Equal(m.Unknown, []string{`"who/knows"`}) {
		t.Errorf("%q, history %d, unknown %q", got, m.HistoryIndex, m.Unknown)
	}
	short := m.Tile(regionmeta.FamilyShort)
	if len(short.Live) != 1 || len(short.Holes) != 1 || string(short.Holes[0].Start) != "m" || len(short.Holes[0].End) != 0 {
		t.Errorf("short family: %+v", short)
	}
	if long := m.Tile(regionmeta.FamilyLong); len(long.Live) != 2 || len(long.Holes) != 0 {
		t.Errorf("long family: %+v", long)
	}
}

// What a crash of PD leaves: a table that reads as a story. Each region is id, version, start, end.
func TestTiling(t *testing.T) {
	type r struct {
		id, version uint64
		start, end  string
	}
	for _, c := range []struct {
		what                    string
		in                      []r
		live, superseded, holes string
	}{
		{"a clean tiling", []r{{1, 1, "", "m"}, {2, 1, "m", ""}}, "1 2", "", ""},
		{"nothing at all", nil, "", "", ""},
		{"the old region is deleted, its halves were not flushed", []r{{1, 3, "", "c"}, {4, 3, "t", ""}}, "1 4", "", "63-74"},
		{"a region and the halves that it was split into", []r{{5, 9, "a", "z"}, {6, 10, "a", "m"}, {7, 10, "m", "z"}}, "6 7", "5", "-61 7A-"},
		{"the same, the old one has the highest id", []r{{6, 10, "", "m"}, {7, 10, "m", ""}, {8, 9, "", ""}}, "6 7", "8", ""},
		{"equal versions: the one that is loaded later", []r{{1, 4, "", "m"}, {2, 4, "c", ""}}, "2", "1", "-63"},
		{"unsafe recovery made it anew: taken although older", []r{{1, 8, "", ""}, {9, 1, "c", "m"}}, "9", "1", "-63 6D-"},
		{"a chain of overlaps", []r{{1, 1, "a", "d"}, {2, 2, "c", "g"}, {3, 3, "f", "k"}, {4, 1, "k", "z"}}, "3 4", "1 2", "-66 7A-"},
	} {
		m := &regionmeta.Meta{}
		for _, x := range c.in {
			e := raftstate.Epoch{ConfVer: 5, Version: x.version}
			if x.version == 1 && strings.Contains(c.what, "anew") {
				e.ConfVer = 1
			}
			m.Records = append(m.Records, regionmeta.Record{Family: regionmeta.FamilyShort,
				Region: raftstate.Region{ID: x.id, StartKey: raftstate.Key(x.start), EndKey: raftstate.Key(x.end), Epoch: e}})
		}
		tl := m.Tile(regionmeta.FamilyShort)
		ids := func(rs []raftstate.Region) string {
			var out []string
			for _, x := range slices.SortedFunc(slices.Values(rs), byID) {
				out = append(out, fmt.Sprint(x.ID))
			}
			return strings.Join(out, " ")
		}
		var holes []string
		for _, h := range tl.Holes {
			holes = append(holes, h.Start.String()+"-"+h.End.String())
		}
		if ids(tl.Live) != c.live || ids(tl.Superseded) != c.superseded || strings.Join(holes, " ") != c.holes {
			t.Errorf("%s: live %s, superseded %s, holes %v; want %s, %s, %s", c.what, ids(tl.Live), ids(tl.Superseded), holes, c.live, c.superseded, c.holes)
		}
	}
}

// An encrypted range is no range: refused by name.
func TestEncrypted(t *testing.T) {
	dir := written(t, nil, func(db *leveldb.DB) {
		r := descriptor(2, 7, "cipher", "text")
		r.EncryptionMeta = &encryptionpb.EncryptionMeta{KeyId: 12, Iv: make([]byte, 16)}
		put(t, db, key(2), r)
	})
	_, err := regionmeta.Read(base.NewOS(), dir)
	if !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), "encrypted (data key 12)") || base.Next(err) == "" {
		t.Error(err)
	}
}

func TestNoRegionMeta(t *testing.T) {
	if m, err := regionmeta.Read(base.NewOS(), t.TempDir()); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
}

// copied gives a file system in memory with the files of region-meta below /pd.
func copied(t *testing.T, files map[string][]byte) base.FS {
	t.Helper()
	fs := base.NewMem(vfs.NewMem())
	if err := fs.MkdirAll("/pd/region-meta", 0o755); err != nil {
		t.Fatal(err)
	}
	for n, b := range files {
		if err := base.WriteFileSync(fs, "/pd/region-meta/"+n, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = b
	}
	return out
}

// damaged is what may come of a damaged database: a typed error, or records together with a sentence about the loss, or everything.
func damaged(t *testing.T, what string, whole *regionmeta.Meta, fs base.FS) (said bool) {
	t.Helper()
	m, err := regionmeta.Read(fs, "/pd")
	if err != nil {
		if !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("%s: %v is no typed error", what, err)
		}
		return true
	}
	if len(m.Damage) == 0 && gocmp.Diff(whole.Records, m.Records) != "" {
		t.Errorf("%s: %d of %d records, and nothing is said", what, len(m.Records), len(whole.Records))
	}
	return len(m.Damage) > 0
}

// samples are databases of all kinds of files.
func samples(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	tables := written(t, &opt.Options{WriteBuffer: 4 << 10, CompactionTableSize: 2 << 10}, func(db *leveldb.DB) {
		for i := range uint64(90) {
			put(t, db, key(i%60), descriptor(i%60, i, fmt.Sprintf("k%06d", i%60), fmt.Sprintf("k%06d", i%60+1)))
		}
	})
	killed := fixtures.Dir(t, "multi5-lost3", fixtures.WithPD())
	return map[string]map[string][]byte{
		"tables":    files(t, filepath.Join(tables, "region-meta")),
		"killed PD": files(t, filepath.Join(killed, "pd", "region-meta")),
	}
}

// Any flipped bit is a typed error, a named loss, or has no effect.
func TestFlippedBits(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for name, fs := range samples(t) {
		whole, err := regionmeta.Read(copied(t, fs), "/pd")
		if err != nil {
			t.Fatal(err)
		}
		said, tried := 0, 0
		for _, file := range slices.Sorted(maps.Keys(fs)) {
			if len(fs[file]) == 0 || file == "LOG" || strings.HasPrefix(file, "LOG.") {
				continue
			}
			for range 60 {
				at, bit := rng.IntN(len(fs[file])), rng.IntN(8)
				bad := maps.Clone(fs)
				bad[file] = slices.Clone(fs[file])
				bad[file][at] ^= 1 << bit
				tried++
				if damaged(t, fmt.Sprintf("%s, bit %d of byte %d of %s", name, bit, at, file), whole, copied(t, bad)) {
					said++
				}
			}
		}
		if said == 0 {
			t.Errorf("%s: none of %d flips was noticed", name, tried)
		}
		t.Logf("%s: %d of %d flips were noticed", name, said, tried)
	}
}

// A log that is cut: what is before the cut is read, and the cut is named, but for one on the border of a record.
func TestTornLog(t *testing.T) {
	fs := samples(t)["killed PD"]
	const log = "000001.log"
	whole, err := regionmeta.Read(copied(t, fs), "/pd")
	if err != nil {
		t.Fatal(err)
	}
	silent := 0
	for at := range len(fs[log]) {
		bad := maps.Clone(fs)
		bad[log] = fs[log][:at]
		m, err := regionmeta.Read(copied(t, bad), "/pd")
		if err != nil {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if len(m.Records) > len(whole.Records) {
			t.Errorf("cut at %d: %d records of %d", at, len(m.Records), len(whole.Records))
		}
		if len(m.Damage) == 0 {
			silent++
		}
	}
	// The log is a handful of batches: as many borders, and no more, are invisible.
	if borders := batches(t, fs[log]); silent != borders {
		t.Errorf("%d cuts are not named; the log has %d records", silent, borders)
	}
	without := maps.Clone(fs)
	delete(without, "CURRENT")
	if _, err := regionmeta.Read(copied(t, without), "/pd"); !errors.Is(err, base.ErrCorrupt) || base.Next(err) == "" {
		t.Errorf("without CURRENT: %v", err)
	}
}

// batches counts the records of a log that is one block long: crc (4), length (2, little endian), type (1), data.
func batches(t *testing.T, log []byte) (n int) {
	t.Helper()
	if len(log) > 32<<10 {
		t.Fatal("the log is longer than a block")
	}
	for at := 0; at < len(log); n++ {
		at += 7 + int(log[at+4]) + int(log[at+5])<<8
	}
	return n
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"raft/r/00000000000000000012", "/pd/7710484004129510206/raft/r/00000000000000000012", "raft/r/12", "/pd//raft/r/", "historyIndex", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		family, cluster, id, ok := regionmeta.ParseKey(s)
		if !ok {
			return
		}
		back := fmt.Sprintf("raft/r/%020d", id)
		if family == regionmeta.FamilyLong {
			back = fmt.Sprintf("/pd/%d/%s", cluster, back)
		}
		if back != s && !strings.Contains(s, "/0") { // a cluster id may be written with zeros before it
			t.Errorf("%q reads as %q", s, back)
		}
	})
}
