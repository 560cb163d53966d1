package sst

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Values of RocksDB's own tests (facebook/rocksdb util/hash_test.cc, Hash64SmallValueSchema).
func TestHash64Vectors(t *testing.T) {
	for in, want := range map[string]uint64{
		"": 5999572062939766020, "\x08": 583283813901344696, "\x4d\x76": 6859542833406258115, "\x30\x46\x0b": 11404699285340020889,
		"\x67\x53\x81\x1c": 9010661983527562386, "\xd0\x7a\x6e\xea\x56": 6384167718754869899, "\x5c\x5e\xe1\xa0\x73\x81": 17358142495308219330,
		"\x5c\xbe\x97\x75\x54\x9a\x52": 5716522398211028826, "\x31\x1b\x98\x75\x96\x22\xd3\x9a": 9844314944338447628,
		"\x1a\xb5\xd0\xfe\xab\xc3\x61\xb2\x99": 13253403748084181481, "\x22\x6f\x39\x1f\xf8\xdd\x4f\x52\x17\x94": 12883919702069153152,
	} {
		if got := hash64([]byte(in)); got != want {
			t.Errorf("hash of %X is %d, want %d", in, got, want)
		}
	}
}

// goldenKeys are of every length from 8 to 300 bytes, ascending.
func goldenKeys(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = binary.BigEndian.AppendUint64(nil, uint64(i))
		for j := range i % 293 {
			out[i] = append(out[i], byte(i*31+j*7))
		}
	}
	return out
}

// filterGolden are digests of the filter blocks of RocksDB 7.8.3 for goldenKeys; TestFilterGoldenAreRocksDBs makes them anew.
var filterGolden = []struct {
	policy    string
	version   uint32
	form      FilterForm
	millibits int
	keys      int
	digest    uint32
}{
	{"bloomfilter:10:false", 2, FormBloom, 10000, 1, 0xaacef763},
	{"bloomfilter:10:false", 4, FormBloom, 10000, 5000, 0xfae8d5dd},
	{"bloomfilter:15.5:false", 2, FormBloom, 15500, 5000, 0x18102964},
	{"bloomfilter:10:false", 5, FormBloom, 10000, 1, 0x78add02a},
	{"bloomfilter:10:false", 5, FormBloom, 10000, 5000, 0x5a0fd675},
	{"bloomfilter:9.9:false", 5, FormBloom, 9900, 5000, 0x8a2b8507},
	{"ribbonfilter:10:-1", 5, FormRibbon, 10000, 100, 0x905d51b0}, // falls back to Bloom
	{"ribbonfilter:10:-1", 5, FormRibbon, 10000, 800, 0x0587a4a2},
	{"ribbonfilter:10:-1", 2, FormRibbon, 10000, 5000, 0xd11e8750},
	{"ribbonfilter:15.5:-1", 5, FormRibbon, 15500, 40000, 0xab039cff},
	{"ribbonfilter:100:-1", 5, FormRibbon, 100000, 3000, 0x2827b4fc},
}

func TestFilterGolden(t *testing.T) {
	for _, g := range filterGolden {
		b := newFilterBuilder(&WriterOptions{Filter: FilterWholeKey, FormatVersion: g.version, FilterForm: g.form, FilterMillibits: g.millibits})
		for _, k := range goldenKeys(g.keys) {
			b.add(k)
		}
		if got := checksum(ChecksumXXH64, b.finish()); got != g.digest {
			t.Errorf("%s of %d keys, version %d: digest %#08x, not %#08x", g.policy, g.keys, g.version, got, g.digest)
		}
	}
}

// A key that a filter denies is lost for the reader. Every number of keys up to 1,500 passes all borders of lines, blocks, columns and the
// fall-back of Ribbon; every key is asked.
func TestNoFalseNegatives(t *testing.T) {
	seed := uint64(7)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	ask := func(form FilterForm, millibits, n int) FilterForm {
		hashes := make([]uint64, n)
		b := filterBuilder{kind: FilterWholeKey, form: form, millibits: millibits}
		var keys [][]byte
		for i := range n {
			hashes[i] = rng.Uint64()
			keys = append(keys, binary.LittleEndian.AppendUint64(nil, hashes[i]))
			b.add(keys[i])
		}
		f := parseFilter(b.finish())
		if f.always {
			t.Fatalf("%v, %d millibits, %d keys: the filter does not decode", form, millibits, n)
		}
		for _, k := range keys {
			if !f.MayHold(k) {
				t.Fatalf("%v, %d millibits, %d keys: %X is denied", form, millibits, n, k)
			}
		}
		return f.form
	}
	seen := map[FilterForm]int{}
	for _, form := range []FilterForm{FormLegacyBloom, FormFastBloom, FormRibbon} {
		for n := 1; n <= 1500; n++ {
			seen[ask(form, DefaultFilterMillibits, n)]++
		}
		for millibits := 1000; millibits <= 100_000; millibits += 500 {
			for _, n := range []int{1, 60, 700, 1300} {
				seen[ask(form, millibits, n)]++
			}
		}
		for _, n := range []int{4000, 65_536, 131_072, 200_001} {
			seen[ask(form, DefaultFilterMillibits, n)]++
		}
	}
	for _, f := range []FilterForm{FormLegacyBloom, FormFastBloom, FormRibbon} {
		if seen[f] < 1000 {
			t.Errorf("only %d filters in form %v", seen[f], f)
		}
	}
}

// A filter that answers "perhaps" to everything would pass the test above. RocksDB's rates at 10 bits a key are 1.14 % (legacy), 0.957 %
// (fast local) and, made to be equal, 0.95 % (Ribbon).
func TestFalsePositiveRates(t *testing.T) {
	for form, most := range map[FilterForm]float64{FormLegacyBloom: 0.0125, FormFastBloom: 0.0105, FormRibbon: 0.0105} {
		b := filterBuilder{kind: FilterWholeKey, form: form, millibits: DefaultFilterMillibits}
		const n, absent = 100_000, 200_000
		for i := range n {
			b.add(fmt.Appendf(nil, "present%08d", i))
		}
		f := parseFilter(b.finish())
		wrong := 0
		for i := range absent {
			if f.MayHold(fmt.Appendf(nil, "absent%08d", i)) {
				wrong++
			}
		}
		if rate := float64(wrong) / absent; rate > most || rate < 0.007 {
			t.Errorf("%v: %.3f %% false positives", form, 100*rate)
		}
	}
}

// What an extractor does to keys in and out of its domain.
func TestExtractors(t *testing.T) {
	for _, c := range []struct{ name, key, prefix string }{
		{"FixedSuffixSliceTransform", "row\x00\x00\x00\x00\x00\x00\x00\x01", "row"}, {"FixedSuffixSliceTransform", "12345678", ""},
		{"FixedSuffixSliceTransform", "1234567", "-"}, {"NoopSliceTransform", "abc", "abc"}, {"rocksdb.Noop", "", ""},
		{"rocksdb.FixedPrefix.3", "abcd", "abc"}, {"rocksdb.FixedPrefix.3", "ab", "-"},
		{"rocksdb.CappedPrefix.3", "abcd", "abc"}, {"rocksdb.CappedPrefix.3", "ab", "ab"},
	} {
		got, ok := extractorOf(c.name)([]byte(c.key))
		if want := c.prefix != "-"; ok != want || ok && string(got) != c.prefix {
			t.Errorf("%s of %q: %q, %v", c.name, c.key, got, ok)
		}
	}
	for _, name := range []string{"", "nullptr", "rocksdb.FixedPrefix", "rocksdb.FixedPrefix.x", "rocksdb.FixedPrefix.-1", "MySliceTransform"} {
		if HasPrefix(name) {
			t.Errorf("%q is known", name)
		}
	}
}

// RocksDB asks a filter for prefixes wherever the extractor that it is opened with has the name among the table's properties: the property
// prefix_filtering does not keep it from that. A filter without those prefixes would hide every row from a Seek, and, with whole_key_filtering
// off, every key from a Get.
func TestFilterHoldsThePrefixesOfTheNamedExtractor(t *testing.T) {
	records := []record{put("a", 1, ""), put("b2345678901", 1, ""), put("c2345678901234567", 1, "")}
	for _, name := range []string{"", "nullptr", extractorSuffix, extractorNoop, "rocksdb.Noop", "rocksdb.FixedPrefix.3", "rocksdb.CappedPrefix.3",
		"rocksdb.FixedPrefix", "MySliceTransform"} {
		for kind := FilterNone; kind <= FilterWholeKeyAndPrefix; kind++ {
			none := name == "" || name == "nullptr"
			wanted := kind != FilterNone && (HasPrefix(name) || none && kind.wholeKey())
			o := WriterOptions{Filter: kind, PrefixExtractor: name}
			for _, how := range []string{"as asked for", "like the one before"} {
				b, _ := write(t, o, records, nil)
				r, err := openBytes(t, b, ReaderOptions{})
				if err != nil {
					t.Fatal(err)
				}
				f, err := r.Filter()
				if err != nil {
					t.Fatal(err)
				}
				if (f != nil) != wanted {
					t.Errorf("%v with extractor %q, %s: a filter: %v, want %v", kind, name, how, f != nil, wanted)
				}
				if f == nil {
					continue
				}
				for _, p := range records {
					if f.WholeKeys && !f.MayHold(p.User) {
						t.Errorf("%v with extractor %q, %s: key %q is denied", kind, name, how, p.User)
					}
					if !HasPrefix(name) {
						continue
					}
					if prefix, ok := extractorOf(name)(p.User); ok && !f.MayHold(prefix) {
						t.Errorf("%v with extractor %q, %s: prefix %q is denied", kind, name, how, prefix)
					}
				}
				o = OptionsLike(r)
			}
		}
	}
}

// Tables of all format versions, checksums, forms and kinds read back whole, and their filters hold each of their keys.
func TestWriterVersions(t *testing.T) {
	points := manyRecords(2000)
	for version := uint32(0); version <= MaxWriterVersion; version++ {
		for sum := ChecksumNone; sum <= ChecksumXXH3; sum++ {
			for form := FormBloom; form <= FormLegacyBloom; form++ {
				for kind := FilterNone; kind <= FilterWholeKeyAndPrefix; kind++ {
					o := WriterOptions{FormatVersion: version, Checksum: sum, FilterForm: form, Filter: kind, PrefixExtractor: extractorSuffix, Compression: CompressionLZ4, BlockSize: 4 << 10}
					name := fmt.Sprintf("version %d, %v, %v, %v", version, sum, form, kind)
					if version == 1 {
						continue
					}
					b, _ := write(t, o, points, nil)
					r, err := openBytes(t, b, ReaderOptions{})
					if err != nil {
						t.Fatal(name, err)
					}
					if want := max(version, 2); r.Version() != want || sum != ChecksumNone && r.Checksum() != sum || r.Checksum() == ChecksumNone {
						t.Errorf("%s: footer says version %d, %v", name, r.Version(), r.Checksum())
					}
					if err := r.VerifyChecksums(); err != nil {
						t.Error(name, err)
					}
					got, _, err := content(r)
					if err != nil {
						t.Fatal(name, err)
					}
					if err := sameRecords(got, points); err != nil {
						t.Error(name, err)
					}
					f, err := r.Filter()
					if err != nil {
						t.Fatal(name, err)
					}
					if kind == FilterNone {
						if f != nil {
							t.Errorf("%s: there is a filter", name)
						}
						continue
					}
					if f.WholeKeys != kind.wholeKey() || !f.Prefixes {
						t.Errorf("%s: whole keys %v, prefixes %v", name, f.WholeKeys, f.Prefixes)
					}
					absent := 0
					for _, p := range points {
						if !f.MayHoldKey(p.User) {
							t.Fatalf("%s: %v is denied", name, p.Key)
						}
						if f.MayHoldKey(append([]byte("y"), p.User...)) {
							absent++
						}
					}
					if absent > len(points)/10 {
						t.Errorf("%s: %d of %d absent keys pass", name, absent, len(points))
					}
				}
			}
		}
	}
	for _, o := range []WriterOptions{{FormatVersion: 1}, {FormatVersion: 6}, {Checksum: 5}} {
		if err := NewWriter(nil, o).Add(ikey.Key{User: []byte("a"), Kind: ikey.KindPut}, nil); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// FuzzFilter asks any bytes for any key: no panic, and what is not a filter holds everything.
func FuzzFilter(f *testing.F) {
	for _, form := range []FilterForm{FormLegacyBloom, FormFastBloom, FormRibbon} {
		for _, n := range []int{1, 700} {
			b := filterBuilder{kind: FilterWholeKey, form: form, millibits: DefaultFilterMillibits}
			for _, k := range goldenKeys(n) {
				b.add(k)
			}
			f.Add(b.finish(), goldenKeys(n)[n-1])
		}
	}
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, markRibbon, 7, 255, 255, 255}, []byte("k"))
	f.Add(append(make([]byte, 64), 6, 1, 0, 0, 0), []byte("k"))
	f.Add(append(make([]byte, 64), 6, 64, 0, 0, 0), []byte("k"))
	f.Fuzz(func(t *testing.T, b, key []byte) {
		p := parseFilter(b)
		got := p.MayHold(key)
		if p.always && got == (len(b) <= filterTail) {
			t.Errorf("%d bytes that are no filter: %v", len(b), got)
		}
	})
}

// BenchmarkFilter is the price of a table's filter: hashing while the keys come, and the block at the end.
func BenchmarkFilter(b *testing.B) {
	const n = 200_000
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "zt\x80\x00\x00\x00\x00\x00\x00\x41_r\x80%012d12345678", i)
	}
	for _, form := range []FilterForm{FormLegacyBloom, FormFastBloom, FormRibbon} {
		b.Run(form.String(), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				f := filterBuilder{kind: FilterWholeKey, form: form, millibits: DefaultFilterMillibits}
				for _, k := range keys {
					f.add(k)
				}
				f.finish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
		})
	}
}
