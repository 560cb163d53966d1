package sst

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

var profiles = []WriterOptions{
	{CFName: "lock", CFID: 1, RestartInterval: 1, BlockSize: 1, PrefixExtractor: "NoopSliceTransform", Filter: FilterWholeKey},
	{CFName: "default", Compression: CompressionLZ4, BlockSize: 4 << 10, Filter: FilterWholeKey, PrefixExtractor: "nullptr"},
	{CFName: "write", CFID: 2, Compression: CompressionZSTD, BlockSize: 1 << 10, PrefixExtractor: "FixedSuffixSliceTransform", Filter: FilterPrefix},
	{CFName: "write", CFID: 2, Compression: CompressionSnappy, PrefixExtractor: "FixedSuffixSliceTransform", Filter: FilterWholeKeyAndPrefix, FileNumber: 77, CreationTime: 5, OldestKeyTime: 4, FileCreationTime: 6},
	{CFName: "default", Compression: CompressionLZ4, BlockSize: 2 << 10, Filter: FilterWholeKey, FormatVersion: 5, Checksum: ChecksumXXH3, PrefixExtractor: "nullptr", FilterPolicy: "bloomfilter"},
	{CFName: "write", CFID: 2, Compression: CompressionZSTD, BlockSize: 1 << 10, PrefixExtractor: "FixedSuffixSliceTransform", Filter: FilterPrefix, FilterForm: FormRibbon, FormatVersion: 4, Checksum: ChecksumXXH64, FilterPolicy: "ribbonfilter"},
	{CFName: "default", Filter: FilterWholeKey, FormatVersion: 3, Checksum: ChecksumXXH32},
	{CFName: "raft", CFID: 3, Compression: CompressionLZ4HC, RestartInterval: 1000, Collectors: []Collector{NewBlobCollector()}},
}

func profileName(o WriterOptions) string {
	return fmt.Sprintf("%s %s %d/%d filter %v %v version %d %v", o.CFName, CompressionName(o.Compression), o.BlockSize, o.RestartInterval, o.Filter, o.FilterForm, o.FormatVersion, o.Checksum)
}

func TestWriteThenRead(t *testing.T) {
	points := manyRecords(2000)
	dels := []record{rangeDel("a", "b", 3), rangeDel("z000001", "z000009", 9), rangeDel("z000001", "z1", 8), rangeDel("zz", "zzz", 1<<50)}
	for _, o := range profiles {
		for _, content1 := range [][2][]record{{points, nil}, {points, dels}, {nil, dels}, {points[:1], nil}} {
			t.Run(fmt.Sprintf("%s %d+%d", profileName(o), len(content1[0]), len(content1[1])), func(t *testing.T) {
				if len(o.Collectors) > 0 {
					o.Collectors = []Collector{NewBlobCollector()}
				}
				b, m := write(t, o, content1[0], content1[1])
				r, err := openBytes(t, b, ReaderOptions{Size: int64(m.Size), LargestSeq: m.LargestSeq})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if err := r.VerifyChecksums(); err != nil {
					t.Fatal(err)
				}
				gotPoints, gotDels, err := content(r)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(sameRecords(gotPoints, content1[0]), sameRecords(gotDels, content1[1])); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(count(gotPoints, gotDels, len(o.Collectors) > 0), counted(r.Props())); d != "" {
					t.Errorf("properties (-content +property):\n%s", d)
				}
				if d := cmp.Diff(m.Props, r.Props()); d != "" {
					t.Errorf("Meta.Props is not what the file has:\n%s", d)
				}
				if want := o.Filter != FilterNone && len(content1[0]) > 0; r.HasFilter() != want {
					t.Errorf("HasFilter %v", r.HasFilter())
				}
				like := OptionsLike(r)
				if like.Compression != o.Compression || like.CFName != o.CFName || like.CFID != o.CFID || like.PrefixExtractor != o.PrefixExtractor || like.FilterPolicy != o.FilterPolicy || like.CreationTime != o.CreationTime || r.HasFilter() && like.Filter != o.Filter ||
					like.FormatVersion != max(o.FormatVersion, 2) || like.Checksum != max(o.Checksum, ChecksumCRC32C) {
					t.Errorf("OptionsLike gives %+v for %+v", like, o)
				}
			})
		}
	}
}

// The boundaries and the sequence range go into the MANIFEST: they must cover the range tombstones, whose ends are exclusive.
func TestMetaBoundaries(t *testing.T) {
	for _, c := range []struct {
		name              string
		points, dels      []record
		smallest, largest string
		lo, hi            uint64
	}{
		{"points only", []record{put("b", 7, ""), put("b", 5, ""), put("c", 6, "")}, nil, "62@7:put", "63@6:put", 5, 7},
		{"tombstone around the points", []record{put("b", 7, "")}, []record{rangeDel("a", "c", 9)}, "61@9:range-delete", "63@72057594037927935:range-delete", 7, 9},
		{"tombstone within the points", []record{put("a", 7, ""), put("d", 8, "")}, []record{rangeDel("b", "c", 2)}, "61@7:put", "64@8:put", 2, 8},
		{"tombstone that ends at the last point's key", []record{put("a", 7, ""), put("d", 8, "")}, []record{rangeDel("b", "d", 2)}, "61@7:put", "64@8:put", 2, 8},
		{"tombstone at the first point, older", []record{put("b", 7, "")}, []record{rangeDel("b", "b1", 6)}, "62@7:put", "6231@72057594037927935:range-delete", 6, 7},
		{"tombstone at the first point, newer", []record{put("b", 7, "")}, []record{rangeDel("b", "b1", 8)}, "62@8:range-delete", "6231@72057594037927935:range-delete", 7, 8},
		{"only tombstones", nil, []record{rangeDel("a", "m", 4), rangeDel("b", "c", 0)}, "61@4:range-delete", "6D@72057594037927935:range-delete", 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, m := write(t, WriterOptions{}, c.points, c.dels)
			if m.Smallest.String() != c.smallest || m.Largest.String() != c.largest || m.SmallestSeq != c.lo || m.LargestSeq != c.hi {
				t.Errorf("%v to %v, sequences %d to %d; want %s to %s, %d to %d", m.Smallest, m.Largest, m.SmallestSeq, m.LargestSeq, c.smallest, c.largest, c.lo, c.hi)
			}
			if m.Entries != uint64(len(c.points)+len(c.dels)) || m.RangeDels != uint64(len(c.dels)) || m.Deletions != uint64(len(c.dels)) {
				t.Errorf("counts: %d entries, %d deletions, %d range tombstones", m.Entries, m.Deletions, m.RangeDels)
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		o    WriterOptions
		do   func(w *Writer) error
		want string
	}{
		{"the same key twice", WriterOptions{}, func(w *Writer) error {
			return errors.Join(w.Add(put("a", 1, "").Key, nil), w.Add(put("a", 1, "").Key, nil))
		}, "does not come after"},
		{"an older record first", WriterOptions{}, func(w *Writer) error {
			return errors.Join(w.Add(put("a", 1, "").Key, nil), w.Add(put("a", 2, "").Key, nil))
		}, "does not come after"},
		{"a merge operand", WriterOptions{}, func(w *Writer) error { return w.Add(ikey.Key{User: []byte("a"), Kind: ikey.KindMerge}, nil) }, "no table may hold"},
		{"a range tombstone as a point", WriterOptions{}, func(w *Writer) error { return w.Add(rangeDel("a", "b", 1).Key, nil) }, "no table may hold"},
		{"an empty range", WriterOptions{}, func(w *Writer) error { return w.AddRangeDel(ikey.RangeDel{Start: []byte("b"), End: []byte("b")}) }, "is empty"},
		{"a sequence above 2^56-1", WriterOptions{}, func(w *Writer) error { return w.Add(put("a", 1<<56, "").Key, nil) }, "above 2^56-1"},
		{"zlib", WriterOptions{Compression: CompressionZlib}, func(w *Writer) error { return w.Add(put("a", 1, "").Key, nil) }, "Zlib blocks are not supported"},
		{"nothing", WriterOptions{}, func(w *Writer) error { _, err := w.Finish(); return err }, ErrEmpty.Error()},
		{"a record after the end", WriterOptions{}, func(w *Writer) error {
			if err := w.Add(put("a", 1, "").Key, nil); err != nil {
				return err
			}
			if _, err := w.Finish(); err != nil {
				return err
			}
			return w.Add(put("b", 1, "").Key, nil)
		}, "already finished"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := vfs.NewMem().Create(testFile, base.DiskWriteCategory)
			if err != nil {
				t.Fatal(err)
			}
			w := NewWriter(f, c.o)
			if err := c.do(w); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if _, err := w.Finish(); err == nil {
				t.Error("a dead writer finishes a table")
			}
		})
	}
}

// thief names a property that is not a collector's to write.
type thief struct{}

func (thief) Name() string                   { return "thief" }
func (thief) Add([]byte, byte, []byte)       {}
func (thief) Finish(props map[string]string) { props[propComparator] = "mine" }

func TestCollectorMayNotTakeRocksDBNames(t *testing.T) {
	f, err := vfs.NewMem().Create(testFile, base.DiskWriteCategory)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(f, WriterOptions{Collectors: []Collector{thief{}}})
	if err := w.Add(put("a", 1, "").Key, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil || !strings.Contains(err.Error(), "takes a name of RocksDB") {
		t.Fatalf("got %v", err)
	}
}

// recorder notes what a collector is shown.
type recorder struct{ seen []string }

func (*recorder) Name() string { return "recorder" }
func (r *recorder) Add(user []byte, kind byte, value []byte) {
	r.seen = append(r.seen, fmt.Sprintf("%s %02x %s", user, kind, value))
}
func (r *recorder) Finish(props map[string]string) { props["n"] = fmt.Sprint(len(r.seen)) }

func TestCollectorsSeePointsThenTombstones(t *testing.T) {
	rec := &recorder{}
	b, m := write(t, WriterOptions{Collectors: []Collector{rec, NewBlobCollector()}},
		[]record{put("b", 1, "x"), kind(ikey.KindDelete, put("c", 1, "")), kind(ikey.KindBlobIndex, put("d", 1, "\x01\x07\x00\x64"))},
		[]record{rangeDel("a", "z", 1), rangeDel("c", "d", 1)})
	if d := cmp.Diff([]string{"b 01 x", "c 00 ", "d 11 \x01\x07\x00\x64", "a 0f z", "c 0f d"}, rec.seen); d != "" {
		t.Error(d)
	}
	r, err := openBytes(t, b, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := map[string]string{"n": "5", PropBlobDiscardableSize: "\x01\x07\x64"}
	if d := cmp.Diff(want, r.Props().User); d != "" {
		t.Error(d)
	}
	if m.Props.Collectors != "[recorder,BlobFileSizeCollector]" {
		t.Errorf("collectors %s", m.Props.Collectors)
	}
	if m.Props.RawValueSize != uint64(len("x")+len("z")+len("d")) {
		t.Errorf("raw value size %d counts the blob index", m.Props.RawValueSize)
	}
}

// TestSeekAndRanges compares seeks and bounded iterators with the sorted list, at each key, between keys and beyond both ends.
func TestSeekAndRanges(t *testing.T) {
	points := manyRecords(300)
	for _, o := range profiles[:3] {
		o.BlockSize = 200
		b, _ := write(t, o, points, nil)
		r, err := openBytes(t, b, ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		from := func(user []byte) int {
			for i, p := range points {
				if bytes.Compare(p.User, user) >= 0 {
					return i
				}
			}
			return len(points)
		}
		targets := [][]byte{{}, []byte("a"), []byte("zz")}
		for _, p := range points {
			targets = append(targets, p.User, append(p.Clone().User, 0), p.User[:len(p.User)-1])
		}
		for _, b := range r.BlockBounds() {
			targets = append(targets, b.Separator)
		}
		it := r.NewIter()
		for _, user := range targets {
			i := from(user)
			if ok := it.SeekGE(user); ok != (i < len(points)) {
				t.Fatalf("SeekGE(%X) is %v: %v", user, ok, it.Err())
			} else if ok && (ikey.Compare(it.Key(), points[i].Key) != 0 || string(it.Value()) != points[i].Value) {
				t.Fatalf("SeekGE(%X) is at %v, want %v", user, it.Key(), points[i].Key)
			} else if ok && it.Next() != (i+1 < len(points)) {
				t.Fatalf("Next after SeekGE(%X): %v", user, it.Err())
			} else if ok && i+1 < len(points) && ikey.Compare(it.Key(), points[i+1].Key) != 0 {
				t.Fatalf("Next after SeekGE(%X) is at %v, want %v", user, it.Key(), points[i+1].Key)
			}
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(targets); i += 7 {
			for j := 0; j < len(targets); j += 31 {
				lower, upper := targets[i], targets[j]
				var want []record
				if a, b := from(lower), from(upper); a < b {
					want = points[a:b]
				}
				got, err := drain(r.NewIterRange(lower, upper))
				if err != nil {
					t.Fatal(err)
				}
				if err := sameRecords(got, want); err != nil {
					t.Fatalf("[%X, %X): %v", lower, upper, err)
				}
			}
		}
		// Shards cut on block bounds give everything once.
		var all []record
		var lower []byte
		for _, b := range append(r.BlockBounds(), Block{}) {
			part, err := drain(r.NewIterRange(lower, b.Separator))
			if err != nil {
				t.Fatal(err)
			}
			all, lower = append(all, part...), b.Separator
		}
		if err := sameRecords(all, points); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The hot loop must not allocate per record.
func TestIterationDoesNotAllocate(t *testing.T) {
	const n = 20000
	b, _ := write(t, WriterOptions{Compression: CompressionLZ4}, manyRecords(n), nil)
	r, err := openBytes(t, b, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	allocs := testing.AllocsPerRun(5, func() {
		it := r.NewIter()
		for ok := it.First(); ok; ok = it.Next() {
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > n/100 {
		t.Errorf("%v allocations for %d records", allocs, n)
	}
}

// Shards of one table are read by several goroutines through one Reader.
func TestParallelShards(t *testing.T) {
	points := manyRecords(3000)
	b, _ := write(t, WriterOptions{Compression: CompressionZSTD, BlockSize: 2 << 10}, points, nil)
	r, err := openBytes(t, b, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	bounds := append(r.BlockBounds(), Block{})
	parts := make([][]record, len(bounds))
	var g errgroup.Group
	for i := range bounds {
		var lower []byte
		if i > 0 {
			lower = bounds[i-1].Separator
		}
		g.Go(func() error {
			var err error
			parts[i], err = drain(r.NewIterRange(lower, bounds[i].Separator))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := sameRecords(slices.Concat(parts...), points); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkIterate(b *testing.B) {
	for _, code := range []byte{CompressionNone, CompressionLZ4, CompressionZSTD} {
		b.Run(CompressionName(code), func(b *testing.B) {
			table, m := write(b, WriterOptions{Compression: code}, manyRecords(100000), nil)
			r, err := openBytes(b, table, ReaderOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			b.SetBytes(int64(m.Props.RawKeySize + m.Props.RawValueSize))
			b.ReportAllocs()
			for b.Loop() {
				it := r.NewIter()
				for ok := it.First(); ok; ok = it.Next() {
				}
				if err := it.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
