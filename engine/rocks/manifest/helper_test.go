package manifest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func frame(t testing.TB, records ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := record.NewWriter(&b)
	for _, r := range records {
		rec, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rec.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// table is file number n of keys [from, to] with sequences lo..hi.
func table(n uint64, from, to string, lo, hi uint64) *FileMeta {
	return &FileMeta{Number: n, Size: 1000 + n, Smallest: ikey.Key{User: []byte(from), Seq: hi, Kind: ikey.KindPut},
		Largest: ikey.Key{User: []byte(to), Seq: lo, Kind: ikey.KindDelete}, SmallestSeq: lo, LargestSeq: hi,
		ChecksumFunc: ChecksumFuncNone, OldestAncesterTime: 1700000000, FileCreationTime: 1700000001}
}

// counters are what every MANIFEST must have.
func counters(next, last uint64) *Edit {
	return &Edit{LogNumber: Ptr(uint64(3)), PrevLogNumber: Ptr(uint64(0)), NextFileNumber: Ptr(next), LastSequence: Ptr(last)}
}

func encode(edits ...*Edit) (records [][]byte) {
	for _, e := range edits {
		records = append(records, e.Encode())
	}
	return records
}

// store makes a directory /db whose MANIFEST-000005 has these records.
func store(t testing.TB, records ...[]byte) base.FS {
	t.Helper()
	return storeBytes(t, frame(t, records...))
}

func storeBytes(t testing.TB, content []byte) base.FS {
	t.Helper()
	fs := base.NewMem(vfs.NewMem())
	if err := fs.MkdirAll("/db", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"CURRENT": []byte("MANIFEST-000005\n"), "MANIFEST-000005": content} {
		if err := base.WriteFileSync(fs, "/db/"+name, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// describe prints a state as one line per column family and one of counters.
func describe(s *State) string {
	var b strings.Builder
	for _, cf := range s.CFs {
		fmt.Fprintf(&b, "%d:%s log=%d", cf.ID, cf.Name, cf.LogNumber)
		for l, files := range cf.Levels {
			for _, f := range files {
				fmt.Fprintf(&b, " L%d/%d[%s..%s]", l, f.Number, text(f.Smallest.User), text(f.Largest.User))
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "next=%d last=%d prev=%d min=%d maxcf=%d wals=%d torn=%v", s.NextFile, s.LastSeq, s.PrevLog, s.MinLogToKeep, s.MaxCF, s.WALs, s.TornTail)
	return b.String()
}

// text is a key as it is when it can be read, else in hex.
func text(key []byte) string {
	for _, c := range key {
		if c < ' ' || c > '~' {
			return fmt.Sprintf("%X", key)
		}
	}
	return string(key)
}
