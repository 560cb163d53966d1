package sst

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// record is one record, or one range tombstone with its end as value.
type record struct {
	ikey.Key
	Value string
}

func (r record) String() string { return fmt.Sprintf("%v=%X", r.Key, r.Value) }

// drain reads an iterator to its end.
func drain(it ikey.Iter) ([]record, error) {
	var out []record
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, record{it.Key().Clone(), string(it.Value())})
	}
	return out, it.Close()
}

// content gives all point records and all range tombstones.
func content(r *Reader) (points, dels []record, err error) {
	if points, err = drain(r.NewIter()); err != nil {
		return nil, nil, err
	}
	ds, err := r.RangeDels()
	for _, d := range ds {
		dels = append(dels, record{ikey.Key{User: d.Start, Seq: d.Seq, Kind: ikey.KindRangeDelete}, string(d.End)})
	}
	return points, dels, err
}

// sameRecords compares in order.
func sameRecords(a, b []record) error {
	for i := range min(len(a), len(b)) {
		if ikey.Compare(a[i].Key, b[i].Key) != 0 || a[i].Value != b[i].Value {
			return fmt.Errorf("record %d is %.200v, want %.200v", i, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d records, want %d", len(a), len(b))
	}
	return nil
}

const testFile = "t.sst"

// memFile puts a table into a file system of its own.
func memFile(tb testing.TB, b []byte) base.FS {
	tb.Helper()
	fs := base.NewMem(vfs.NewMem())
	if err := base.WriteFileSync(fs, testFile, b, ""); err != nil {
		tb.Fatal(err)
	}
	return fs
}

// openBytes opens a table from memory; the caller sees the error.
func openBytes(tb testing.TB, b []byte, o ReaderOptions) (*Reader, error) {
	return Open(memFile(tb, b), testFile, o)
}

// write makes a table of points and tombstones.
func write(tb testing.TB, o WriterOptions, points, dels []record) ([]byte, Meta) {
	tb.Helper()
	fs := base.NewMem(vfs.NewMem())
	f, err := fs.Create(testFile, base.DiskWriteCategory)
	if err != nil {
		tb.Fatal(err)
	}
	w := NewWriter(f, o)
	// Tombstones in reverse: the writer has to sort them.
	for i := len(dels) - 1; i >= 0; i-- {
		if err := w.AddRangeDel(ikey.RangeDel{Start: dels[i].User, End: []byte(dels[i].Value), Seq: dels[i].Seq}); err != nil {
			tb.Fatal(err)
		}
	}
	for _, r := range points {
		if err := w.Add(r.Key, []byte(r.Value)); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := w.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	b, err := base.ReadFile(fs, testFile)
	if err != nil {
		tb.Fatal(err)
	}
	if uint64(len(b)) != m.Size {
		tb.Fatalf("Meta.Size is %d, the file has %d bytes", m.Size, len(b))
	}
	return b, m
}

func put(key string, seq uint64, value string) record {
	return record{ikey.Key{User: []byte(key), Seq: seq, Kind: ikey.KindPut}, value}
}

func kind(k ikey.Kind, r record) record {
	r.Kind = k
	return r
}

func rangeDel(start, end string, seq uint64) record {
	return record{ikey.Key{User: []byte(start), Seq: seq, Kind: ikey.KindRangeDelete}, end}
}

// manyRecords gives n user keys, some with several versions, of all kinds, ending in 8 bytes like a commit_ts.
func manyRecords(n int) []record {
	var out []record
	for i := range n {
		user := fmt.Appendf(nil, "z%06d", i/3)
		user = append(user, 0, 0, 0, 0, 0, 0, byte(i%3), 7)
		seq := uint64(10*n - i)
		value := bytes.Repeat([]byte{byte(i)}, i%97)
		switch i % 11 {
		case 3:
			out = append(out, record{ikey.Key{User: user, Seq: seq, Kind: ikey.KindDelete}, ""})
		case 5:
			out = append(out, record{ikey.Key{User: user, Seq: seq, Kind: ikey.KindSingleDelete}, ""})
		case 7:
			out = append(out, record{ikey.Key{User: user, Seq: seq, Kind: ikey.KindBlobIndex}, "\x01\x05\x10\x20"})
		default:
			out = append(out, record{ikey.Key{User: user, Seq: seq, Kind: ikey.KindPut}, string(value)})
		}
		if i%4 == 0 {
			out = append(out, record{ikey.Key{User: user, Seq: seq - 5, Kind: ikey.KindPut}, "older"})
		}
	}
	return out
}
