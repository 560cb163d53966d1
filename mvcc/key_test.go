package mvcc

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestTS(t *testing.T) {
	ts := TS(470610466230763527)
	if got := ts.Time().Format(time.RFC3339Nano); ts.Physical() != 1795236458705 || ts.Logical() != 7 || got != "2026-11-21T04:47:38.705Z" {
		t.Errorf("physical %d, logical %d, %s", ts.Physical(), ts.Logical(), got)
	}
	if FromTime(ts.Time(), false) != ts-7 || FromTime(ts.Time(), true) != ts-7+1<<18-1 {
		t.Error("FromTime is not the inverse of Time")
	}
	if FromTime(time.Unix(-1, 0), true) != 0 || FromTime(time.Unix(1<<40, 0), false) != MaxTS {
		t.Error("FromTime does not saturate")
	}
	b, err := json.Marshal(map[string]TS{"to_ts": ts})
	if err != nil || string(b) != `{"to_ts":"470610466230763527"}` {
		t.Errorf("JSON %s, %v", b, err)
	}
	var back map[string]TS
	if err := json.Unmarshal(b, &back); err != nil || back["to_ts"] != ts {
		t.Errorf("JSON back %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"to_ts":"12x"}`), &back); err == nil {
		t.Error("a bad timestamp is accepted from JSON")
	}
}

func TestParseTS(t *testing.T) {
	ms := TS(time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC).UnixMilli())
	whole := ms<<18 | 0x3FFFF
	for in, want := range map[string]TS{
		"0":                              0,
		" 470610466230763527\n":          470610466230763527,
		"18446744073709551615":           MaxTS,
		"2026-02-03T04:05:06.789Z":       whole,
		"2026-02-03T05:05:06.789+01:00":  whole,
		"2026-02-03 05:05:06.789+01:00":  whole,
		"2026-02-03T04:05:06.789999999Z": whole,
		"1970-01-01T00:00:00Z":           0x3FFFF,
	} {
		if got, err := ParseTS(in); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                        "empty timestamp",
		"18446744073709551616":    "does not fit",
		"-5":                      "neither",
		"yesterday":               "neither",
		"2026-02-03T04:05:06":     "has no zone: add Z for UTC or an offset, for example 2026-02-03T04:05:06Z",
		"2026-02-03 04:05:06.789": "for example 2026-02-03T04:05:06.789Z or 2026-02-03T04:05:06.789+01:00",
		"2026-02-03":              "2026-02-03T00:00:00Z",
		"2026-02-03 04:05":        "2026-02-03T04:05:00Z",
		"1969-12-31T23:59:59Z":    "must lie between 1970 and 4199",
		"9999-01-01T00:00:00Z":    "must lie between 1970 and 4199",
		"2026-02-30T04:05:06Z":    "neither",
		"2026-02-03T04:05:06 PST": "neither",
	} {
		if got, err := ParseTS(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v, want %q", in, got, err, want)
		}
	}
}

func TestEncodeBytes(t *testing.T) {
	for _, c := range []struct{ raw, enc string }{
		{"", "0000000000000000F7"},
		{"61", "6100000000000000F8"},
		{"61626364656667", "61626364656667" + "00" + "FE"},
		{"6162636465666768", "6162636465666768FF" + "0000000000000000F7"},
		{"616263646566676869", "6162636465666768FF" + "6900000000000000F8"},
		{"00", "0000000000000000F8"},
		{"FFFFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFFFF" + "FF00000000000000F8"},
	} {
		raw, enc := unhex(t, c.raw), unhex(t, c.enc)
		if got := EncodeBytes(nil, raw); !bytes.Equal(got, enc) {
			t.Errorf("%s: encoded %X, want %X", c.raw, got, enc)
		}
		got, rest, err := DecodeBytes(append(enc, "rest"...))
		if err != nil || !bytes.Equal(got, raw) || string(rest) != "rest" {
			t.Errorf("%s: decoded %X, rest %q, %v", c.enc, got, rest, err)
		}
		if !isEncoded(enc) {
			t.Errorf("%s: isEncoded says no", c.enc)
		}
	}
	for enc, want := range map[string]string{
		"":                                       "offset 0: the last group is missing",
		"00000000000000F7":                       "offset 0: the last group is missing",
		"6162636465666768FF":                     "offset 9: the last group is missing",
		"6162636465666768FF00000000000000":       "offset 9: the last group is missing",
		"0000000000000000F6":                     "offset 8: marker 0xf6 is below 0xf7",
		"6100000000000001F8":                     "offset 7: padding is 0x1 instead of 0",
		"6162636465666768FF6100000000000000F700": "offset 9: padding is 0x61 instead of 0",
	} {
		b := unhex(t, enc)
		if _, _, err := DecodeBytes(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", enc, err, want)
		}
		if isEncoded(b) {
			t.Errorf("%s: isEncoded says yes", enc)
		}
	}
}

func TestSplitKeyIsStrict(t *testing.T) {
	good := DataKey([]byte("user key of 20 bytes"), 77)
	prefix, ts, ok := SplitKey(good)
	if !ok || ts != 77 || !bytes.Equal(prefix, LockKey([]byte("user key of 20 bytes"))) {
		t.Fatalf("prefix %X, ts %s, ok %v", prefix, ts, ok)
	}
	if grown := append(prefix, 'x'); &grown[0] == &good[0] {
		t.Error("appending to the prefix writes into the key")
	}
	bad := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	for name, b := range map[string][]byte{
		"empty":            nil,
		"local key":        {1, 1},
		"without ts":       LockKey([]byte("user key of 20 bytes")),
		"one byte more":    append(bytes.Clone(good), 0),
		"only a ts":        {'z', 1, 2, 3, 4, 5, 6, 7, 8},
		"other first byte": bad(func(b []byte) []byte { b[0] = 'y'; return b }),
		"bad marker":       bad(func(b []byte) []byte { b[9] = 0xFE; return b }),
		"bad last marker":  bad(func(b []byte) []byte { b[27] = 0xFF; return b }),
		"bad padding":      bad(func(b []byte) []byte { b[26] = 1; return b }),
		"raw V1 key":       []byte("zsome raw key of v1 store"),
	} {
		if _, _, ok := SplitKey(b); ok {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "no z": []byte("yyyyyyyyyy"), "with ts": good} {
		if _, err := UserKey(b); err == nil {
			t.Errorf("UserKey %s: accepted", name)
		}
	}
}

func TestDescribeUserKey(t *testing.T) {
	i64 := func(v int64) string { return string(appendI64(nil, v)) }
	for _, c := range []struct{ key, text, json string }{
		{"t" + i64(70) + "_r" + i64(100), "table 70 row 100", `{"kind":"row","table_id":70,"handle":100}`},
		{"t" + i64(70) + "_r" + i64(-1), "table 70 row -1", `{"kind":"row","table_id":70,"handle":-1}`},
		{"t" + i64(70) + "_r" + i64(0), "table 70 row 0", `{"kind":"row","table_id":70,"handle":0}`},
		{"t" + i64(70) + "_r\x01abcdefgh\xff", "table 70 row 016162636465666768FF", `{"kind":"row","table_id":70,"common_handle":"016162636465666768FF"}`},
		{"t" + i64(70) + "_i" + i64(2) + "\x03xy", "table 70 index 2 037879", `{"kind":"index","table_id":70,"index_id":2,"index_values":"037879"}`},
		{"t" + i64(70), "table 70", `{"kind":"table","table_id":70}`},
		{"t" + i64(70) + "_r", "table 70 5F72", `{"kind":"table","table_id":70,"rest":"5F72"}`},
		{"tshort", "other 7473686F7274", `{"kind":"other","rest":"7473686F7274"}`},
		{"", "other", `{"kind":"other"}`},
		{"m" + string(EncodeBytes(nil, []byte("DB:1"))) + "\x00\x00\x00\x00\x00\x00\x00h" + string(EncodeBytes(nil, []byte("Table:70"))),
			"meta DB:1 Table:70", `{"kind":"meta","meta_key":"DB:1","meta_type":"h","meta_field":"Table:70"}`},
		{"m" + string(EncodeBytes(nil, []byte("NextGlobalID"))) + "\x00\x00\x00\x00\x00\x00\x00s",
			"meta NextGlobalID", `{"kind":"meta","meta_key":"NextGlobalID","meta_type":"s"}`},
		{"mDDLJob00", "other 6D44444C4A6F623030", `{"kind":"other","rest":"6D44444C4A6F623030"}`},
		{"x\x00\x01\x02t" + i64(70) + "_r" + i64(5), "keyspace 258 table 70 row 5", `{"kind":"row","keyspace_id":258,"table_id":70,"handle":5}`},
		{"x\x00\x00\x00abc", "keyspace 0 txn 616263", `{"kind":"txn","keyspace_id":0,"rest":"616263"}`},
		{"r\x00\x00\x01abc", "keyspace 1 raw 616263", `{"kind":"raw","keyspace_id":1,"rest":"616263"}`},
	} {
		k := DescribeUserKey([]byte(c.key))
		if got := k.String(); got != c.text {
			t.Errorf("%q: %q, want %q", c.key, got, c.text)
		}
		if got, err := json.Marshal(k); err != nil || string(got) != c.json {
			t.Errorf("%q: %s, want %s (%v)", c.key, got, c.json, err)
		}
	}
}

func TestRawValues(t *testing.T) {
	for _, c := range []struct {
		hex, val string
		expire   uint64
		deleted  bool
	}{
		{"00", "", 0, false},
		{"616200", "ab", 0, false},
		{"6162" + "000000000000000A" + "01", "ab", 10, false},
		{"02", "", 0, true},
	} {
		b := unhex(t, c.hex)
		val, expire, deleted, err := ParseRawV2(b)
		if err != nil || string(val) != c.val || expire != c.expire || deleted != c.deleted {
			t.Errorf("%s: %q, %d, %v, %v", c.hex, val, expire, deleted, err)
		}
		if got := AppendRawV2(nil, val, expire, deleted); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded again %X", c.hex, got)
		}
	}
	for _, bad := range []string{"", "04", "6180", "0000000A01"} {
		if _, _, _, err := ParseRawV2(unhex(t, bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if val, expire, err := ParseRawV1TTL(unhex(t, "61000000000000000A")); err != nil || string(val) != "a" || expire != 10 {
		t.Errorf("V1TTL: %q, %d, %v", val, expire, err)
	}
	if _, _, err := ParseRawV1TTL(make([]byte, 7)); err == nil {
		t.Error("V1TTL: 7 bytes are accepted")
	}
	if !IsRawV2Key([]byte("r\x00\x00\x00")) || IsRawV2Key([]byte("r\x00\x00")) || IsRawV2Key([]byte("t\x00\x00\x00")) || !IsTxnV2Key([]byte("x\x00\x00\x00k")) {
		t.Error("API V2 key prefixes")
	}
}

// The undecoded test for raw keys agrees with the decoded one at every length around the group borders.
func TestIsRawV2PrefixAgrees(t *testing.T) {
	for _, first := range []byte("rtxm\x00\xff") {
		for n := range 20 {
			user := append([]byte{first}, make([]byte, n)...)
			for _, u := range [][]byte{user, user[:n], bytes.Repeat([]byte{first}, n)} {
				if got, want := IsRawV2Prefix(LockKey(u)), IsRawV2Key(u); got != want {
					t.Errorf("%X: %v for the prefix, %v for the key", u, got, want)
				}
			}
		}
	}
	if IsRawV2Prefix(nil) || IsRawV2Prefix([]byte("zr")) {
		t.Error("a cut-off prefix is accepted")
	}
}

// No border parts the keys of a row: rows of all lengths around the groups, one a prefix of the other, with the smallest and largest bytes,
// and every string that stands between two of their keys or is a prefix of one, shortened as RocksDB shortens separators.
func TestRowBorder(t *testing.T) {
	rows := []string{""}
	for n := range 18 {
		for _, b := range []byte{0, 1, 0xF7, 0xFE, 0xFF} {
			rows = append(rows, strings.Repeat(string([]byte{b}), n+1), strings.Repeat("\xff", n)+string([]byte{b}), strings.Repeat("\x00", n)+string([]byte{b}))
		}
	}
	stamps := []TS{0, 1, 0xFF, 1 << 32, ^TS(0) >> 8, ^TS(0) - 1, ^TS(0)}
	var keys, cuts [][]byte
	for _, r := range rows {
		keys = append(keys, LockKey([]byte(r)))
		for _, ts := range stamps {
			keys = append(keys, DataKey([]byte(r), ts))
		}
	}
	for _, k := range keys {
		for n := 1; n <= len(k); n++ {
			cuts = append(cuts, k[:n], append(bytes.Clone(k[:n-1]), k[n-1]+1), append(bytes.Clone(k[:n]), 0), append(bytes.Clone(k[:n]), 0xFF))
		}
	}
	moved := 0
	for _, c := range cuts {
		b, ok := RowBorder(c)
		if ok != (c[0] == DataPrefix) {
			t.Fatalf("%X: %v", c, ok)
		}
		if !ok {
			continue
		}
		if bytes.Compare(b, c) > 0 {
			t.Fatalf("%X moves up to %X", c, b)
		}
		if len(b) < len(c) {
			moved++
		}
		for i := 0; i < len(keys); i += 1 + len(stamps) {
			row := keys[i : i+1+len(stamps)]
			first, last := row[0], row[1] // the lock key, and the version with timestamp 0
			if (bytes.Compare(first, b) < 0) != (bytes.Compare(last, b) < 0) {
				t.Fatalf("%X, from %X, parts the row %X", b, c, first)
			}
		}
	}
	if moved == 0 {
		t.Error("no string had to be moved")
	}
	if _, ok := RowBorder(nil); ok {
		t.Error("the empty string is a border")
	}
}
