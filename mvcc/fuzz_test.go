package mvcc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func appendI64(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
}

// What decodes encodes to a record that says the same, and that form is stable.
func FuzzParseWrite(f *testing.F) {
	for _, r := range realRecords(f, "testdata/write_records.txt") {
		f.Add(r.value)
	}
	f.Add([]byte("L\x07RF\x00\x00\x00\x00\x00\x00\x00\x09l\x00\x00\x00\x00\x00\x00\x00\x05\x02S\x01?tail"))
	f.Fuzz(func(t *testing.T, b []byte) {
		comparePeek(t, b)
		w, err := ParseWrite(b)
		if err != nil {
			return
		}
		enc := w.Append(nil)
		again, err := ParseWrite(enc)
		if err != nil {
			t.Fatalf("%X: encoded again %X: %v", b, enc, err)
		}
		if d := cmp.Diff(w, again); d != "" {
			t.Fatalf("%X: %s", b, d)
		}
		if !bytes.Equal(again.Append(nil), enc) {
			t.Fatalf("%X: %X is not stable", b, enc)
		}
		d, err := Rewind(10, 5, b)
		if err != nil {
			t.Fatal(err)
		}
		if d.Action == ClearFence {
			c, err := ParseWrite(d.Value)
			w.GCFence = 0
			if err != nil || cmp.Diff(w, c) != "" {
				t.Fatalf("%X: clearing the fence gives %X: %v %s", b, d.Value, err, cmp.Diff(w, c))
			}
		}
	})
}

func FuzzParseLock(f *testing.F) {
	for _, r := range realRecords(f, "testdata/lock_records.txt") {
		f.Add(r.value)
	}
	inner := Lock{Type: LockLock, Primary: []byte("p"), StartTS: 10, TTL: 1}.Append(nil)
	f.Add(appendCompact(appendCompact([]byte("Hi\x01h\x02"), inner), inner))
	f.Add([]byte("Hh\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ls, shared, err := ParseLocks(b)
		if err != nil {
			return
		}
		for _, l := range ls {
			enc := l.Append(nil)
			again, err := ParseLock(enc)
			if err != nil {
				t.Fatalf("%X: encoded again %X: %v", b, enc, err)
			}
			if !bytes.Equal(again.Append(nil), enc) {
				t.Fatalf("%X: %X is not stable", b, enc)
			}
			if d := cmp.Diff(l, again, cmpEmpty); d != "" {
				t.Fatalf("%X: %s", b, d)
			}
		}
		if !shared {
			return
		}
		out, left, err := RemoveShared(b, func(l Lock) bool { return l.StartTS%2 == 0 })
		if err != nil {
			t.Fatal(err)
		}
		kept, _, err := ParseLocks(out)
		if err != nil || len(kept) != left {
			t.Fatalf("%X: %d locks left, %d said, %v", b, len(kept), left, err)
		}
		for _, l := range kept {
			if l.StartTS%2 == 0 {
				t.Fatalf("%X: lock %s is still there", b, l.StartTS)
			}
		}
	})
}

// cmpEmpty: a list of no elements reads back as nil.
var cmpEmpty = cmp.FilterValues(func(a, b []TS) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())

func FuzzDecodeBytes(f *testing.F) {
	for _, s := range []string{"", "a", "12345678", "123456789", "\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		f.Add(EncodeBytes(nil, []byte(s)))
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, rest, err := DecodeBytes(b)
		used := len(b) - len(rest)
		if err == nil && !bytes.Equal(EncodeBytes(nil, raw), b[:used]) {
			t.Fatalf("%X decodes to %X, which encodes differently", b, raw)
		}
		if isEncoded(b) != (err == nil && len(rest) == 0) {
			t.Fatalf("%X: isEncoded is %v, DecodeBytes says %v and %d bytes after", b, isEncoded(b), err, len(rest))
		}
		back, rest, err := DecodeBytes(append(EncodeBytes(nil, b), "tail"...))
		if err != nil || !bytes.Equal(back, b) || string(rest) != "tail" {
			t.Fatalf("%X: encoded and decoded gives %X, %q, %v", b, back, rest, err)
		}
		prefix, ts, ok := SplitKey(b)
		if ok {
			user, err := UserKey(prefix)
			if err != nil || !bytes.Equal(DataKey(user, ts), b) {
				t.Fatalf("%X splits but does not come together again: %v", b, err)
			}
		}
	})
}

// A row with an integer handle, an index entry and a keyspace prefix can be built again from what was decoded.
func FuzzDescribeUserKey(f *testing.F) {
	for _, r := range realRecords(f, "testdata/write_records.txt")[:40] {
		prefix, _, _ := SplitKey(r.key)
		user, err := UserKey(prefix)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(user)
		f.Add(append([]byte("x\x00\x01\x02"), user...))
	}
	f.Add([]byte("m" + string(EncodeBytes(nil, []byte("DB:1"))) + "\x00\x00\x00\x00\x00\x00\x00h" + string(EncodeBytes(nil, []byte("Table:70")))))
	f.Add([]byte("r\x00\x00\x01raw"))
	f.Fuzz(func(t *testing.T, user []byte) {
		k := DescribeUserKey(user)
		if k.String() == "" {
			t.Fatalf("%X has no text", user)
		}
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		var back KeyInfo
		if err := json.Unmarshal(b, &back); err != nil || cmp.Diff(k, back) != "" {
			t.Fatalf("%s: %v %s", b, err, cmp.Diff(k, back))
		}
		var out []byte
		if k.KeyspaceID != nil {
			id := *k.KeyspaceID
			prefix := byte('x')
			if k.Kind == KeyRaw {
				prefix = 'r'
			}
			out = append(out, prefix, byte(id>>16), byte(id>>8), byte(id))
		}
		switch k.Kind {
		case KeyRow:
			out = append(appendI64(append(out, 't'), k.TableID), "_r"...)
			if k.Handle != nil {
				out = appendI64(out, *k.Handle)
			} else {
				out = append(out, unhex(t, k.CommonHandle)...)
			}
		case KeyIndex:
			out = append(appendI64(append(out, 't'), k.TableID), "_i"...)
			out = append(appendI64(out, k.IndexID), unhex(t, k.IndexValues)...)
		case KeyTable:
			out = append(appendI64(append(out, 't'), k.TableID), unhex(t, k.Rest)...)
		case KeyMeta:
			return // printable names are not meant to be read back
		default:
			out = append(out, unhex(t, k.Rest)...)
		}
		if !bytes.Equal(out, user) {
			t.Fatalf("%X: built again %X", user, out)
		}
	})
}

// Raw values round-trip, and collectors take any entry without panicking.
func FuzzRawValuesAndCollectors(f *testing.F) {
	f.Add([]byte("zkey\x00\x00\x00\x00\x00\x00\x00\x01"), byte(1), AppendRawV2(nil, []byte("v"), 77, false))
	f.Add([]byte("z"), byte(0x11), []byte{1, 7, 0, 100})
	f.Add([]byte(""), byte(0), []byte("P\x01"))
	f.Fuzz(func(t *testing.T, key []byte, kind byte, value []byte) {
		if val, expire, deleted, err := ParseRawV2(value); err == nil && (expire != 0 || value[len(value)-1]&rawFlagExpire == 0) {
			if got := AppendRawV2(nil, val, expire, deleted); !bytes.Equal(got, value) {
				t.Fatalf("%X: encoded again %X", value, got)
			}
		}
		props := make(map[string]string)
		for _, c := range []Collector{
			NewMVCCCollector(MVCCOptions{StaleTS: true}), NewRangeCollector(RangeOptions{}), NewTTLCollector(),
			NewRawMVCCCollector(RawMVCCOptions{}),
		} {
			c.Add(key, kind, value)
			c.Add(key, kind, value)
			c.Finish(props)
		}
		if lo, hi, trust := PropTS(props, 0); trust && lo > hi {
			t.Fatalf("trusted %s..%s", lo, hi)
		}
		PropTS(map[string]string{PropMinTS: string(value), PropMaxTS: string(key), PropBlobSize: string(value)}, 0)
	})
}
