package mvcc

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// propText prints properties: numbers in decimal, indexes as key:a/b points.
func propText(props map[string]string) []string {
	var out []string
	for name, v := range props {
		switch {
		case name == PropRowsIndex || name == PropRangeIndex:
			out = append(out, name+"="+strings.Join(points(v), " "))
		case len(v) == 8:
			n := binary.BigEndian.Uint64([]byte(v))
			text := fmt.Sprint(n)
			if n == uint64(MaxTS) {
				text = "max"
			}
			out = append(out, strings.TrimPrefix(name, "tikv.")+"="+text)
		default:
			out = append(out, fmt.Sprintf("%s=%X", name, v))
		}
	}
	slices.Sort(out)
	return out
}

func points(v string) []string {
	var out []string
	for b := []byte(v); len(b) > 0; {
		n := binary.BigEndian.Uint64(b)
		key := b[8 : 8+n]
		b = b[8+n:]
		out = append(out, fmt.Sprintf("%s:%d/%d", key, binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])))
		b = b[16:]
	}
	return out
}

func collect(c Collector, add func(c Collector)) []string {
	add(c)
	props := make(map[string]string)
	c.Finish(props)
	return propText(props)
}

func expectProps(t *testing.T, got []string, want string) {
	t.Helper()
	if d := cmp.Diff(strings.Fields(want), strings.Fields(strings.Join(got, " "))); d != "" {
		t.Error(d)
	}
}

// shortKey is a key too short to be a real one: the collectors only cut off eight bytes.
func shortKey(row string, ts TS) []byte { return AppendTS([]byte(row), ts) }

func TestMVCCCollector(t *testing.T) {
	got := collect(NewMVCCCollector(MVCCOptions{StaleTS: true}), func(c Collector) {
		c.Add(shortKey("za", 40), KindPut, []byte("P\x01"))
		c.Add(shortKey("za", 30), KindPut, []byte("D\x01"))
		c.Add(shortKey("za", 20), KindPut, []byte("R\x01"))
		c.Add(shortKey("zb", 50), KindDelete, nil)               // a tombstone: only its timestamp counts
		c.Add(shortKey("zb", 35), KindPut, []byte("D\x01"))      // newest version of zb in this file
		c.Add(shortKey("zc", 10), KindBlobIndex, []byte("\x01")) // counts as a Put
		c.Add(shortKey("zc", 9), KindPut, []byte("L\x01"))
		c.Add(shortKey("zd", 5), KindPut, []byte("?"))  // its timestamp and version count, it is no row of the index
		c.Add(shortKey("ze", 4), KindPut, nil)          // likewise; but the last point has the last key
		c.Add([]byte("\x01\x01"), KindPut, []byte("P")) // no timestamp: an error and nothing else
		c.Add([]byte("ylongenough"), KindPut, []byte("P"))
		c.Add([]byte("zshort"), KindDelete, nil)
		c.Add(shortKey("zf", 99), KindSingleDelete, nil)
		c.Add(shortKey("zf", 99), KindRangeDelete, nil)
	})
	expectProps(t, got, `max_row_versions=3 max_ts=50 min_ts=4 newest_delete_ts=35 newest_stale_version_ts=30
		num_deletes=2 num_errors=5 num_puts=2 num_rows=5 num_versions=8 oldest_delete_ts=30 oldest_stale_version_ts=9
		tikv.rows_index=za:1/1 ze:2/3`)
}

func TestMVCCCollectorOfNothing(t *testing.T) {
	nothing := func(Collector) {}
	expectProps(t, collect(NewMVCCCollector(MVCCOptions{}), nothing), `max_row_versions=0 max_ts=0 min_ts=max num_deletes=0
		num_errors=0 num_puts=0 num_rows=0 num_versions=0 tikv.rows_index=`)
	expectProps(t, collect(NewMVCCCollector(MVCCOptions{StaleTS: true}), nothing), `max_row_versions=0 max_ts=0 min_ts=max
		newest_delete_ts=0 newest_stale_version_ts=0 num_deletes=0 num_errors=0 num_puts=0 num_rows=0 num_versions=0
		oldest_delete_ts=max oldest_stale_version_ts=max tikv.rows_index=`)
}

// A point at the first row, then at the 10000th after the last point, and at the end.
func TestRowsIndex(t *testing.T) {
	for _, c := range []struct {
		rows int
		want string
	}{
		{1, "z000001:1/1"},
		{2, "z000001:1/1 z000002:1/2"},
		{10000, "z000001:1/1 z010000:9999/10000"},
		{10001, "z000001:1/1 z010001:10000/10001"},
		{10002, "z000001:1/1 z010001:10000/10001 z010002:1/10002"},
		{25000, "z000001:1/1 z010001:10000/10001 z020001:10000/20001 z025000:4999/25000"},
	} {
		m := NewMVCCCollector(MVCCOptions{})
		for i := 1; i <= c.rows; i++ {
			row := fmt.Sprintf("z%06d", i)
			m.Add(shortKey(row, 20), KindPut, []byte("P\x01"))
			m.Add(shortKey(row, 10), KindPut, []byte("P\x01")) // older versions are no rows
		}
		props := make(map[string]string)
		m.Finish(props)
		if got := strings.Join(points(props[PropRowsIndex]), " "); got != c.want {
			t.Errorf("%d rows: %s, want %s", c.rows, got, c.want)
		}
	}
}

// The numbers of TiKV's own test_range_properties, with its default distances: 4 MiB and 40960 keys.
func TestRangeCollector(t *testing.T) {
	const size, keys = 4 << 20, 40 << 10
	got := collect(NewRangeCollector(RangeOptions{}), func(c Collector) {
		for _, e := range []struct {
			key    string
			length int
			count  int
		}{
			{"a", 0, 1}, {"b", size / 8, 1}, {"c", size / 4, 1}, {"d", size / 2, 1}, {"e", size / 8, 1},
			{"f", size / 4, 1}, {"g", size / 2, 1}, {"h", size / 8, 1}, {"i", size / 4, 1},
			{"j", size / 2, 1}, {"k", size / 2, 1},
			{"l", 0, keys / 2}, {"m", 0, keys / 2},
			{"n", 1, keys},
			{"o", 1, 1},
		} {
			value := make([]byte, e.length)
			for range e.count {
				c.Add([]byte(e.key), KindPut, value)
			}
			for range 100 {
				c.Add([]byte(e.key), KindDelete, value) // tombstones do not count
			}
		}
	})
	expectProps(t, got, fmt.Sprintf("tikv.range_index=a:1/1 e:%d/5 i:%d/9 k:%d/11 m:%d/%d n:%d/%d o:%d/%d",
		size+5, size/8*17+9, size/8*25+11, size/8*25+11+keys, 11+keys, size/8*25+11+3*keys, 11+2*keys, size/8*25+11+3*keys+2, 12+2*keys))
}

func TestRangeCollectorCountsBlobs(t *testing.T) {
	blob := []byte{1, 7, 0, 100} // file 7, offset 0, size 100
	got := collect(NewRangeCollector(RangeOptions{SizeDistance: 105, KeysDistance: 3}), func(c Collector) {
		c.Add([]byte("zz"), KindDelete, nil)
		c.Add([]byte("a"), KindBlobIndex, blob)         // 105: the first point
		c.Add([]byte("b"), KindBlobIndex, blob)         // 210: a point by size
		c.Add([]byte("c"), KindPut, nil)                // 211
		c.Add([]byte("d"), KindBlobIndex, []byte{2, 7}) // does not decode: ignored
		c.Add([]byte("e"), KindPut, nil)                // 212
		c.Add([]byte("f"), KindPut, nil)                // 213: a point by keys
		c.Add([]byte("g"), KindSingleDelete, nil)
	})
	expectProps(t, got, "tikv.range_index=a:105/1 b:210/2 f:213/5")
	expectProps(t, collect(NewRangeCollector(RangeOptions{}), func(c Collector) { c.Add([]byte("a"), KindDelete, nil) }), "tikv.range_index=")
}

func TestTTLCollector(t *testing.T) {
	value := func(expire uint64) []byte { return binary.BigEndian.AppendUint64([]byte("v"), expire) }
	got := collect(NewTTLCollector(), func(c Collector) {
		c.Add([]byte("za"), KindPut, value(0)) // never expires: does not count
		c.Add([]byte("zb"), KindPut, value(70))
		c.Add([]byte("zc"), KindPut, value(50))
		c.Add([]byte("zd"), KindPut, value(90))
		c.Add([]byte("ze"), KindDelete, value(10))
		c.Add([]byte("\x01\x01"), KindPut, value(20))
		c.Add([]byte("zf"), KindPut, []byte("short"))
	})
	expectProps(t, got, "max_expire_ts=90 min_expire_ts=50")
	expectProps(t, collect(NewTTLCollector(), func(c Collector) { c.Add([]byte("za"), KindPut, value(0)) }), "")
}

func TestRawMVCCCollector(t *testing.T) {
	key := func(k string, ts TS) []byte { return DataKey([]byte("r\x00\x00\x00"+k), ts) }
	got := collect(NewRawMVCCCollector(RawMVCCOptions{MVCCOptions: MVCCOptions{StaleTS: true}, Now: 100}), func(c Collector) {
		c.Add(key("a", 30), KindPut, AppendRawV2(nil, []byte("v"), 0, false))
		c.Add(key("a", 20), KindPut, AppendRawV2(nil, []byte("v"), 100, false)) // expired at this second
		c.Add(key("a", 10), KindPut, AppendRawV2(nil, nil, 0, true))
		c.Add(key("b", 25), KindPut, AppendRawV2(nil, []byte("v"), 101, false))
		c.Add(key("c", 40), KindDelete, nil)
		c.Add(key("d", 5), KindPut, []byte{0x80})
		c.Add([]byte("\x01\x01"), KindPut, []byte("x"))
	})
	expectProps(t, got, `max_expire_ts=101 max_row_versions=3 max_ts=40 min_expire_ts=100 min_ts=5 newest_delete_ts=0
		newest_stale_version_ts=20 num_deletes=2 num_errors=2 num_puts=2 num_rows=3 num_versions=5 oldest_delete_ts=max oldest_stale_version_ts=10`)
}

func TestCollectorNames(t *testing.T) {
	for want, c := range map[string]Collector{
		"tikv.mvcc-properties-collector":       NewMVCCCollector(MVCCOptions{}),
		"tikv.range-properties-collector":      NewRangeCollector(RangeOptions{}),
		"tikv.ttl-properties-collector":        NewTTLCollector(),
		"tikv.rawkv-mvcc-properties-collector": NewRawMVCCCollector(RawMVCCOptions{}),
	} {
		if c.Name() != want {
			t.Errorf("%s, want %s", c.Name(), want)
		}
	}
}

func TestPropTS(t *testing.T) {
	good := func() map[string]string {
		return map[string]string{PropMinTS: u64Prop(10), PropMaxTS: u64Prop(20), PropNumErrors: u64Prop(0), PropNumDeletes: u64Prop(3)}
	}
	with := func(name, value string) map[string]string { p := good(); p[name] = value; return p }
	without := func(name string) map[string]string { p := good(); delete(p, name); return p }
	old := func(deleted string) map[string]string {
		p := without(PropNumDeletes)
		p["rocksdb.deleted.keys"] = deleted
		return p
	}
	for _, c := range []struct {
		name      string
		props     map[string]string
		rangeDels uint64
		trust     bool
	}{
		{"as TiKV writes it", good(), 0, true},
		{"a range tombstone", good(), 1, false},
		{"no max_ts", without(PropMaxTS), 0, false},
		{"no min_ts", without(PropMinTS), 0, false},
		{"max_ts of 7 bytes", with(PropMaxTS, "1234567"), 0, false},
		{"no num_errors", without(PropNumErrors), 0, false},
		{"an error", with(PropNumErrors, u64Prop(1)), 0, false},
		{"num_errors of 9 bytes", with(PropNumErrors, "123456789"), 0, false},
		{"nothing was looked at", map[string]string{PropMinTS: u64Prop(uint64(MaxTS)), PropMaxTS: u64Prop(0), PropNumErrors: u64Prop(0), PropNumDeletes: u64Prop(0)}, 0, false},
		{"blob indexes", with(PropBlobSize, "\x01\x07\x64"), 0, false},
		{"Titan without blobs", with(PropBlobSize, "\x00"), 0, true},
		{"blob property cut off", with(PropBlobSize, ""), 0, false},
		{"before 5.0", without(PropNumDeletes), 0, false},
		{"before 5.0, no tombstones", old("\x00"), 0, true},
		{"before 5.0, tombstones", old("\x02"), 0, false},
		{"no properties", nil, 0, false},
	} {
		lo, hi, trust := PropTS(c.props, c.rangeDels)
		if trust != c.trust {
			t.Errorf("%s: trust %v", c.name, trust)
		}
		if trust && (lo != 10 || hi != 20) {
			t.Errorf("%s: %s..%s", c.name, lo, hi)
		}
	}
}

// Whatever the collector saw, PropTS of its properties bounds every entry or is not trusted.
func TestPropTSBoundsWhatWasCollected(t *testing.T) {
	const seed = 20260203
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	trusted := 0
	for range 3000 {
		c := NewMVCCCollector(MVCCOptions{})
		lo, hi, sawAll := MaxTS, TS(0), true
		for range rnd.IntN(6) {
			ts := TS(rnd.IntN(100))
			kind := []byte{KindPut, KindDelete, KindBlobIndex}[rnd.IntN(3)]
			key := shortKey("zrow", ts)
			if rnd.IntN(20) == 0 {
				key, sawAll = []byte("nope"), false
			}
			lo, hi = min(lo, ts), max(hi, ts)
			c.Add(key, kind, []byte("P\x01"))
		}
		props := make(map[string]string)
		c.Finish(props)
		gotLo, gotHi, trust := PropTS(props, 0)
		if !trust {
			continue
		}
		trusted++
		if !sawAll || gotLo != lo || gotHi != hi {
			t.Fatalf("trusted %s..%s, entries %s..%s", gotLo, gotHi, lo, hi)
		}
	}
	if trusted == 0 {
		t.Error("never trusted")
	}
}
