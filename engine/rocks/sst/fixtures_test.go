package sst

import (
	"bytes"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// eachFixture runs f on every table below the archive's root.
func eachFixture(t *testing.T, f func(t *testing.T, fs base.FS, name string)) {
	for _, archive := range []string{"single-levels", "single-lz4-ranges", "single-titan", "tablets-v2"} {
		t.Run(archive, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, archive))
			found := 0
			var walk func(dir string)
			walk = func(dir string) {
				names, err := fs.List(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					p := path.Join(dir, n)
					st, err := fs.Stat(p)
					if err != nil {
						t.Fatal(err)
					}
					switch {
					case st.IsDir():
						walk(p)
					case strings.HasSuffix(n, ".sst"):
						found++
						t.Run(strings.TrimPrefix(p, "/"), func(t *testing.T) { f(t, fs, p) })
					}
				}
			}
			walk("/")
			if found == 0 {
				t.Fatal("archive has no table")
			}
		})
	}
}

// tally counts what the properties count.
type tally struct{ Entries, Deletions, RangeDels, RawKey, RawValue uint64 }

func count(points, dels []record, titan bool) tally {
	var c tally
	for _, r := range append(append([]record(nil), points...), dels...) {
		c.Entries++
		c.RawKey += uint64(len(r.User) + 8)
		if !titan || r.Kind != ikey.KindBlobIndex {
			c.RawValue += uint64(len(r.Value))
		}
		if r.Kind == ikey.KindDelete || r.Kind == ikey.KindSingleDelete || r.Kind == ikey.KindRangeDelete {
			c.Deletions++
		}
		if r.Kind == ikey.KindRangeDelete {
			c.RangeDels++
		}
	}
	return c
}

func counted(p *Properties) tally {
	return tally{p.NumEntries, p.NumDeletions, p.NumRangeDels, p.RawKeySize, p.RawValueSize}
}

func openFixture(t *testing.T, fs base.FS, name string) *Reader {
	t.Helper()
	r, err := Open(fs, name, ReaderOptions{LargestSeq: ikey.MaxSeq})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func isTitan(p *Properties) bool { return strings.Contains(p.Collectors, BlobCollectorName) }

// filterBlock gives the stored filter.
func filterBlock(t *testing.T, r *Reader) []byte {
	t.Helper()
	h, ok := r.filter()
	if !ok {
		t.Fatal("file has no full filter")
	}
	b, err := r.metaBlock(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadsTiKVFiles reads every table of four stores completely: all counts, sizes and checksums must come out as TiKV's
// RocksDB recorded them, and our Bloom builder must give its filter bit for bit.
func TestReadsTiKVFiles(t *testing.T) {
	seen := map[FilterForm]int{}
	eachFixture(t, func(t *testing.T, fs base.FS, name string) {
		r := openFixture(t, fs, name)
		points, dels, err := content(r)
		if err != nil {
			t.Fatal(err)
		}
		p := r.Props()
		if d := cmp.Diff(counted(p), count(points, dels, isTitan(p))); d != "" {
			t.Errorf("properties and content differ (-property +counted):\n%s", d)
		}
		var data uint64
		for _, b := range r.BlockBounds() {
			data += b.Size
		}
		if data != p.DataSize || uint64(len(r.index)) != p.NumDataBlocks {
			t.Errorf("data size %d in %d blocks, properties say %d in %d", data, len(r.index), p.DataSize, p.NumDataBlocks)
		}
		idx, err := r.metaBlock(r.foot.index)
		if err != nil {
			t.Fatal(err)
		}
		if n := uint64(len(idx)) + trailerSize; n != p.IndexSize {
			t.Errorf("index size %d, property says %d", n, p.IndexSize)
		}
		if err := r.VerifyChecksums(); err != nil {
			t.Error(err)
		}
		if !r.HasFilter() {
			return
		}
		o := OptionsLike(r)
		b := newFilterBuilder(&o)
		for _, rec := range points {
			b.add(rec.User)
		}
		seen[b.form]++
		if stored := filterBlock(t, r); !bytes.Equal(b.finish(), stored) {
			t.Errorf("%v filter in form %v of %d entries differs from ours of %d", b.kind, b.form, p.NumFilterEntries, b.entries())
		}
		if p.NumFilterEntries != uint64(b.entries()) {
			t.Errorf("filter entries %d, ours %d", p.NumFilterEntries, b.entries())
		}
	})
	if seen[FormLegacyBloom] == 0 || seen[FormFastBloom] == 0 {
		t.Errorf("files with filters by form: %v", seen)
	}
}

// named takes the place of TiKV's collectors: their properties are another package's.
type named string

func (n named) Name() string                 { return string(n) }
func (named) Add([]byte, byte, []byte)       {}
func (named) Finish(props map[string]string) {}

// TestRewritesTiKVFiles writes every table again in its own profile. The content stays, and so do all properties that do
// not name the writer or depend on the compressor; blocks are cut where TiKV's RocksDB cut them.
func TestRewritesTiKVFiles(t *testing.T) {
	eachFixture(t, func(t *testing.T, fs base.FS, name string) {
		r := openFixture(t, fs, name)
		points, dels, err := content(r)
		if err != nil {
			t.Fatal(err)
		}
		p := r.Props()
		o := OptionsLike(r)
		for _, c := range strings.Split(strings.Trim(p.Collectors, "[]"), ",") {
			switch c {
			case "":
			case BlobCollectorName:
				o.Collectors = append(o.Collectors, NewBlobCollector())
			default:
				o.Collectors = append(o.Collectors, named(c))
			}
		}
		o.FileNumber = p.OrigFileNumber
		b, _ := write(t, o, points, dels)
		again, err := openBytes(t, b, ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		points2, dels2, err := content(again)
		if err != nil {
			t.Fatal(err)
		}
		if err := sameRecords(points2, points); err != nil {
			t.Error(err)
		}
		if err := sameRecords(dels2, dels); err != nil {
			t.Error(err)
		}
		want, got := map[string]string{}, map[string]string{}
		for k, v := range p.All {
			switch {
			case strings.HasPrefix(k, "tikv."), strings.HasPrefix(k, "rocksdb.creating."), strings.HasPrefix(k, "rocksdb.sample_for"):
			case k == propTailStart, k == "rocksdb.user.defined.timestamps.persisted",
				k == "rocksdb.compression_options", k == "rocksdb.seqno.time.map", k == propIndexPartitions, k == propTopIndexSize:
			case k == propIndexSize: // shortened separators
			case k == propDataSize && p.Compression != "NoCompression":
			case k == propIndexUserKey, k == propIndexDelta:
			case k == propFilterEntries && v == "\x00":
			default:
				want[k] = v
			}
		}
		for k := range want {
			if v, ok := again.Props().All[k]; ok {
				got[k] = v
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("properties (-TiKV +ours):\n%s", d)
		}
		if r.HasFilter() != again.HasFilter() {
			t.Errorf("filter: TiKV %v, ours %v", r.HasFilter(), again.HasFilter())
		} else if r.HasFilter() {
			if !bytes.Equal(filterBlock(t, r), filterBlock(t, again)) {
				t.Error("filters differ")
			}
			f, err := again.Filter()
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range points {
				if !f.MayHoldKey(rec.User) {
					t.Fatalf("%v is not in the filter", rec.Key)
				}
			}
		}
	})
}
