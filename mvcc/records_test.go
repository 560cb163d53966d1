package mvcc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

type realRecord struct {
	source     string
	key, value []byte
	decoded    string
}

// realRecords reads a golden file of records that TiKV wrote.
func realRecords(tb testing.TB, path string) []realRecord {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	if len(lines)%4 != 0 || len(lines) == 0 {
		tb.Fatalf("%s: %d lines, want groups of four", path, len(lines))
	}
	var out []realRecord
	for ; len(lines) > 0; lines = lines[4:] {
		out = append(out, realRecord{lines[0], unhex(tb, lines[1]), unhex(tb, lines[2]), lines[3]})
	}
	return out
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatalf("hex %q: %v", s, err)
	}
	return b
}

func hexOrDash(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return upperHex(b)
}

// wordsOfWrite and wordsOfLock print the fields in the notation of the golden files.
func wordsOfWrite(w Write) string {
	s := fmt.Sprintf("%c start=%s", w.Type, w.StartTS)
	if w.HasShortValue {
		s += " v=" + hexOrDash(w.ShortValue)
	}
	if w.OverlappedRollback {
		s += " overlapped"
	}
	if w.HasGCFence {
		s += fmt.Sprintf(" fence=%s", w.GCFence)
	}
	return s + wordsOfRest(w.LastChange, w.TxnSource, w.Tail)
}

func wordsOfRest(l LastChange, source uint64, tail []byte) string {
	var s string
	if l.Known() {
		s += fmt.Sprintf(" last=%s/%d", l.TS, l.Versions)
	}
	if source != 0 {
		s += fmt.Sprintf(" source=%d", source)
	}
	if len(tail) > 0 {
		s += " tail=" + upperHex(tail)
	}
	return s
}

func wordsOfLock(l Lock) string {
	s := fmt.Sprintf("%c primary=%s start=%s ttl=%d", l.Type, hexOrDash(l.Primary), l.StartTS, l.TTL)
	if l.HasShortValue {
		s += " v=" + hexOrDash(l.ShortValue)
	}
	for _, f := range []struct {
		name string
		v    uint64
	}{{"for_update", uint64(l.ForUpdateTS)}, {"size", l.TxnSize}, {"min_commit", uint64(l.MinCommitTS)}} {
		if f.v != 0 {
			s += fmt.Sprintf(" %s=%d", f.name, f.v)
		}
	}
	if l.AsyncCommit {
		keys := make([]string, 0, len(l.Secondaries))
		for _, k := range l.Secondaries {
			keys = append(keys, hexOrDash(k))
		}
		s += " async=" + strings.Join(keys, ",")
	}
	return s + wordsOfRest(l.LastChange, l.TxnSource, l.Tail)
}

func TestRealWriteRecords(t *testing.T) {
	types := map[byte]int{}
	for _, r := range realRecords(t, "testdata/write_records.txt") {
		w, err := ParseWrite(r.value)
		if err != nil {
			t.Fatalf("%s %X: %v", r.source, r.value, err)
		}
		types[w.Type]++
		if got := wordsOfWrite(w); got != r.decoded {
			t.Errorf("%s %X\n got %s\nwant %s", r.source, r.value, got, r.decoded)
		}
		if got := w.Append(nil); !bytes.Equal(got, r.value) {
			t.Errorf("%s: encoded again %X, want %X", r.source, got, r.value)
		}
		prefix, commit, ok := SplitKey(r.key)
		if !ok {
			t.Fatalf("%s: key %X does not split", r.source, r.key)
		}
		user, err := UserKey(prefix)
		if err != nil {
			t.Fatalf("%s: key %X: %v", r.source, r.key, err)
		}
		if got := DataKey(user, commit); !bytes.Equal(got, r.key) {
			t.Errorf("%s: key encoded again %X, want %X", r.source, got, r.key)
		}
		if (w.Type == WriteRollback) != (commit == w.StartTS) || commit < w.StartTS {
			t.Errorf("%s: type %c, start_ts %s, at %s", r.source, w.Type, w.StartTS, commit)
		}
		if w.HasGCFence && w.GCFence <= commit {
			t.Errorf("%s: gc_fence %s is not above commit_ts %s", r.source, w.GCFence, commit)
		}
		comparePeek(t, r.value)
	}
	for _, typ := range []byte("PDLR") {
		if types[typ] == 0 {
			t.Errorf("no record of type %c", typ)
		}
	}
}

func TestRealLockRecords(t *testing.T) {
	async := 0
	for _, r := range realRecords(t, "testdata/lock_records.txt") {
		l, err := ParseLock(r.value)
		if err != nil {
			t.Fatalf("%s %X: %v", r.source, r.value, err)
		}
		if got := wordsOfLock(l); got != r.decoded {
			t.Errorf("%s %X\n got %s\nwant %s", r.source, r.value, got, r.decoded)
		}
		if got := l.Append(nil); !bytes.Equal(got, r.value) {
			t.Errorf("%s: encoded again %X, want %X", r.source, got, r.value)
		}
		user, err := UserKey(r.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := LockKey(user); !bytes.Equal(got, r.key) {
			t.Errorf("%s: key encoded again %X, want %X", r.source, got, r.key)
		}
		if l.AsyncCommit {
			async++
			if isPrimary := bytes.Equal(user, l.Primary); isPrimary != (len(l.Secondaries) > 0) {
				t.Errorf("%s: %d secondaries, primary %v", r.source, len(l.Secondaries), isPrimary)
			}
		}
		ls, shared, err := ParseLocks(r.value)
		if err != nil || shared || len(ls) != 1 {
			t.Errorf("%s: ParseLocks gives %d locks, shared %v, %v", r.source, len(ls), shared, err)
		}
	}
	if async == 0 {
		t.Error("no async-commit lock")
	}
}

// comparePeek checks that PeekWrite and ParseWrite accept the same bytes and say the same.
func comparePeek(tb testing.TB, b []byte) {
	tb.Helper()
	w, err := ParseWrite(b)
	p, perr := PeekWrite(b)
	if (err == nil) != (perr == nil) {
		tb.Fatalf("%X: ParseWrite %v, PeekWrite %v", b, err, perr)
	}
	if err != nil {
		return
	}
	if p.Type != w.Type || p.StartTS != w.StartTS || p.HasShortValue != w.HasShortValue || p.Overlapped != w.OverlappedRollback ||
		p.Fence != w.GCFence || (p.FenceAt != 0) != w.HasGCFence || p.NeedsDefault() != w.NeedsDefault() {
		tb.Fatalf("%X: ParseWrite %+v, PeekWrite %+v", b, w, p)
	}
}

func TestPeekDoesNotAllocate(t *testing.T) {
	rec := realRecords(t, "testdata/write_records.txt")
	n := testing.AllocsPerRun(10, func() {
		for _, r := range rec {
			if _, err := PeekWrite(r.value); err != nil {
				t.Fatal(err)
			}
			if _, _, ok := SplitKey(r.key); !ok {
				t.Fatal("key does not split")
			}
			if _, err := Rewind(MaxTS, 0, r.value); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d records", n, len(rec))
	}
}

// Records with fields that the test directories do not have, byte by byte.
func TestWriteFieldsByHand(t *testing.T) {
	for _, c := range []struct {
		name, hex, words string
	}{
		{"txn source", "50 01 76 01 41 53 8001", "P start=1 v=41 source=128"},
		{"empty short value", "50 01 76 00", "P start=1 v=-"},
		{"fence 0: no newer version when it was rewritten", "50 01 52 46 0000000000000000", "P start=1 overlapped fence=0"},
		{"all fields", "4C 07 52 46 0000000000000009 6C 0000000000000005 02 53 01", "L start=7 overlapped fence=9 last=5/2 source=1"},
		{"overlapped rollback on a delete", "44 07 52 46 0000000000000009", "D start=7 overlapped fence=9"},
		{"an unknown field ends the record", "50 01 76 01 41 7A 52 46 00", "P start=1 v=41 tail=7A524600"},
		{"protected rollback", "52 05 76 01 70", "R start=5 v=70"},
	} {
		b := unhex(t, strings.ReplaceAll(c.hex, " ", ""))
		w, err := ParseWrite(b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := wordsOfWrite(w); got != c.words {
			t.Errorf("%s: got %q, want %q", c.name, got, c.words)
		}
		if got := w.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded again %X, want %X", c.name, got, b)
		}
		if w.Protected() != (c.name == "protected rollback") {
			t.Errorf("%s: Protected is %v", c.name, w.Protected())
		}
	}
}

func TestBadRecords(t *testing.T) {
	for _, c := range []struct {
		name, hex, want string
	}{
		{"empty write", "", "offset 0: type is missing"},
		{"unknown type", "51 01", "offset 0: unknown type 0x51"},
		{"no start_ts", "50", "offset 1: start_ts is not a varint"},
		{"start_ts does not end", "50 FFFFFFFFFFFFFFFFFFFFFF", "offset 1: start_ts is not a varint"},
		{"short value cut off", "50 01 76 05 4142", "offset 4: short value needs 5 bytes, 2 left"},
		{"fence cut off", "50 01 46 0000", "offset 3: gc_fence needs 8 bytes, 2 left"},
		{"last change without versions", "4C 01 6C 0000000000000005 00", "last_change_ts 5 with 0 versions"},
	} {
		b := unhex(t, strings.ReplaceAll(c.hex, " ", ""))
		_, err := ParseWrite(b)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		comparePeek(t, b)
		if _, err := Rewind(1, 1, b); err == nil {
			t.Errorf("%s: Rewind accepts it", c.name)
		}
	}
	for _, c := range []struct {
		name, hex, want string
	}{
		{"empty lock", "", "offset 0: type is missing"},
		{"unknown type", "51 00 01", "unknown type 0x51"},
		{"primary longer than the record", "50 7E 41", "primary needs 63 bytes, 1 left"},
		{"negative length", "50 01 41", "length of primary is not a varint"},
		{"a billion secondaries", "50 02 41 01 01 61 8094EBDC03", "number of secondaries is 1000000000, only 0 bytes left"},
		{"a shared lock alone", "48 68 00", "a shared lock where a single one is expected"},
	} {
		if _, err := ParseLock(unhex(t, strings.ReplaceAll(c.hex, " ", ""))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestLockFieldsByHand(t *testing.T) {
	full := Lock{
		Type: LockPessimistic, Primary: []byte("pk"), StartTS: 300, TTL: 20000, ShortValue: []byte{}, HasShortValue: true,
		ForUpdateTS: 310, TxnSize: 3, MinCommitTS: 311, AsyncCommit: true, Secondaries: [][]byte{[]byte("a"), {}},
		RollbackTS: []TS{305, 320}, LastChange: LastChange{TS: 200, Versions: 2}, TxnSource: 1, LockedWithConflict: true,
		Generation: 9, Tail: []byte("Txyz"),
	}
	b := full.Append(nil)
	want := "53 04706B AC02 A09C01 7600 660000000000000136 740000000000000003 630000000000000137 6102026100" +
		" 720200000000000001310000000000000140 6C00000000000000C802 7301 46 670000000000000009 5478797A"
	if got := upperHex(b); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, strings.ReplaceAll(want, " ", ""))
	}
	l, err := ParseLock(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("encoded again %X, want %X", got, b)
	}
	if l.RollbackTS[1] != 320 || !l.LockedWithConflict || l.Generation != 9 || len(l.Secondaries) != 2 || string(l.Tail) != "Txyz" {
		t.Errorf("decoded %+v", l)
	}
	old := unhex(t, "5002410A") // ends after start_ts, as very old records do
	if l, err = ParseLock(old); err != nil || !l.NoTTL || !bytes.Equal(l.Append(nil), old) {
		t.Errorf("record without ttl: %+v, %v", l, err)
	}
}

func TestSharedLock(t *testing.T) {
	a := Lock{Type: LockLock, Primary: []byte("p1"), StartTS: 10, TTL: 1, Tail: []byte("?future")}.Append(nil)
	b := Lock{Type: LockPessimistic, Primary: []byte("p2"), StartTS: 20, TTL: 1, ForUpdateTS: 21}.Append(nil)
	for _, head := range []string{"48 68", "48 69 01 68"} {
		rec := unhex(t, strings.ReplaceAll(head, " ", ""))
		n := len(rec)
		rec = appendCompact(appendCompact(append(rec, 2), a), b)
		rec = append(rec, "*new"...)
		ls, shared, err := ParseLocks(rec)
		if err != nil || !shared || len(ls) != 2 || ls[0].StartTS != 10 || ls[1].StartTS != 20 {
			t.Fatalf("%s: %v, shared %v, %+v", head, err, shared, ls)
		}
		same, left, err := RemoveShared(rec, func(Lock) bool { return false })
		if err != nil || left != 2 || !bytes.Equal(same, rec) {
			t.Errorf("%s: keeping all gives %X, want %X", head, same, rec)
		}
		out, left, err := RemoveShared(rec, func(l Lock) bool { return l.StartTS == 10 })
		want := append(appendCompact(append(append([]byte(nil), rec[:n]...), 1), b), "*new"...)
		if err != nil || left != 1 || !bytes.Equal(out, want) {
			t.Errorf("%s: without the first %X, want %X", head, out, want)
		}
		if _, left, err = RemoveShared(rec, func(Lock) bool { return true }); err != nil || left != 0 {
			t.Errorf("%s: %d left, %v", head, left, err)
		}
	}
	put := Lock{Type: LockPut, Primary: []byte("p"), StartTS: 1}.Append(nil)
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"unknown flag", unhex(t, "48690268"+"00"), "unknown flags 0x2"},
		{"a Put inside", appendCompact(unhex(t, "486801"), put), "has type 'P'"},
		{"count beyond the record", unhex(t, "4868FF01"), "number of locks is 255"},
		{"no count", unhex(t, "48"), "tag is missing"},
	} {
		if _, _, err := ParseLocks(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCommitRecord(t *testing.T) {
	l := Lock{Type: LockPut, StartTS: 10, ShortValue: []byte("v"), HasShortValue: true, RollbackTS: []TS{15, 20}, TxnSource: 3}
	for _, c := range []struct {
		lock   Lock
		commit TS
		want   string
	}{
		{l, 18, "P start=10 v=76 source=3"},
		{l, 20, "P start=10 v=76 overlapped source=3"},
		{Lock{Type: LockPut, StartTS: 10}, 18, "P start=10"},
		{Lock{Type: LockDelete, StartTS: 10}, 18, "D start=10"},
		{Lock{Type: LockLock, StartTS: 10, LastChange: LastChange{TS: 5, Versions: 2}}, 18, "L start=10 last=5/2"},
		{Lock{Type: LockLock, StartTS: 10, LastChange: LastChange{Versions: 1}}, 18, "L start=10 last=0/1"},
		{Lock{Type: LockLock, StartTS: 10, LastChange: LastChange{TS: 18, Versions: 2}}, 18, "L start=10"},
	} {
		if got := wordsOfWrite(c.lock.CommitRecord(c.commit)); got != c.want {
			t.Errorf("committed at %s: got %q, want %q", c.commit, got, c.want)
		}
	}
}

// uvarintTS is binary.Uvarint, whatever the bytes are: each single bit of a number, its neighbours, cut anywhere.
func TestUvarintTS(t *testing.T) {
	for bit := range 64 {
		for _, v := range []uint64{1 << bit, 1<<bit - 1, 1<<bit + 1, ^uint64(0) >> bit, 0x5555555555555555 >> bit} {
			b := append(binary.AppendUvarint(nil, v), 'v', 0x81)
			for n := range len(b) + 1 {
				want, wantN := binary.Uvarint(b[:n])
				if got, gotN := uvarintTS(b[:n]); got != want || gotN != wantN {
					t.Fatalf("%X: %d, %d bytes; want %d, %d", b[:n], got, gotN, want, wantN)
				}
			}
		}
	}
}
