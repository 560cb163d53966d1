package sst

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// sameBatches holds batches to iterators: the same records, the same class of error at the same place.
func sameBatches(tb testing.TB, r *Reader) {
	tb.Helper()
	it, in := r.NewIter(), r.NewBatches()
	defer it.Close()
	defer in.Close()
	ok := it.First()
	for in.Next() {
		for i := range in.Len() {
			if !ok {
				// A batch is decoded whole before it is shown, an iterator stops in the middle.
				tb.Fatalf("batches go on with %v where the iterator ended: %v", in.Key(i), it.Err())
			}
			if k := it.Key(); ikey.Compare(k, in.Key(i)) != 0 || !bytes.Equal(it.Value(), in.Value(i)) || in.Trailer(i) != ikey.Pack(k.Seq, k.Kind) {
				tb.Fatalf("batch has %v = %X, iterator %v = %X", in.Key(i), in.Value(i), k, it.Value())
			}
			ok = it.Next()
		}
	}
	for ok && in.Err() != nil { // the records before the damage, in its block
		ok = it.Next()
	}
	if ok || (in.Err() == nil) != (it.Err() == nil) {
		tb.Fatalf("batches end with %v, the iterator goes on: %v, with %v", in.Err(), ok, it.Err())
	}
	if err := in.Err(); err != nil {
		for _, class := range []error{base.ErrCorrupt, base.ErrUnsupported, base.ErrIO} {
			if errors.Is(err, class) != errors.Is(it.Err(), class) {
				tb.Fatalf("batches end with %v, the iterator with %v", err, it.Err())
			}
		}
	}
}

// A walk over batches that seeks forward finds what an iterator finds.
func TestBatchesSeek(t *testing.T) {
	points := manyRecords(400)
	for _, o := range profiles {
		b, _ := write(t, o, points, nil)
		r, err := openBytes(t, b, ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []int{1, 3, 17, 120} {
			in := r.NewBatches()
			for i := 0; i < len(points); i += step {
				for _, user := range [][]byte{points[i].User, append(bytes.Clone(points[i].User), 0), points[i].User[:len(points[i].User)-1]} {
					it := r.NewIter()
					want := it.SeekGE(user)
					got := in.SeekGE(user)
					if want != got {
						t.Fatalf("%s: seek to %X: %v, %v, want %v", profileName(o), user, got, in.Err(), want)
					}
					if want {
						if at := in.Search(0, user); ikey.Compare(in.Key(at), it.Key()) != 0 {
							t.Fatalf("%s: seek to %X is at %v, want %v", profileName(o), user, in.Key(at), it.Key())
						}
					}
					it.Close()
				}
			}
			in.Close()
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A table in which whole blocks were copied holds the same as one whose blocks were all made anew, and says the same about it.
func TestCopyBlock(t *testing.T) {
	points := manyRecords(900)
	for _, o := range profiles {
		b, _ := write(t, o, points, nil)
		r, err := openBytes(t, b, ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		o.Collectors = nil
		fs := base.NewMem(vfs.NewMem())
		f, err := fs.Create(testFile, base.DiskWriteCategory)
		if err != nil {
			t.Fatal(err)
		}
		w, in := NewWriter(f, o), r.NewBatches()
		copied, n := 0, 0
		var left []record
		for ; in.Next(); n++ {
			if n%5 != 2 {
				done, err := w.CopyBlock(in)
				if err != nil {
					t.Fatal(err)
				}
				if done {
					copied++
					for i := range in.Len() {
						left = append(left, record{in.Key(i).Clone(), string(in.Value(i))})
					}
					continue
				}
			}
			for i := 0; i < in.Len(); i += 2 {
				if err := w.Add(in.Key(i), in.Value(i)); err != nil {
					t.Fatal(err)
				}
				left = append(left, record{in.Key(i).Clone(), string(in.Value(i))})
			}
		}
		in.Close()
		meta, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		// Blocks much larger than they should be are not copied: they are the exception that a block size of 1 makes the rule.
		if copied == 0 && o.BlockSize != 1 {
			t.Errorf("%s: %d of %d blocks copied", profileName(o), copied, n)
		}
		got, err := base.ReadFile(fs, testFile)
		if err != nil {
			t.Fatal(err)
		}
		gotPoints, _, err := readAll(t, got)
		if err != nil || len(gotPoints) != len(left) {
			t.Fatalf("%s: %d records, want %d, %v", profileName(o), len(gotPoints), len(left), err)
		}
		for i, p := range gotPoints {
			if ikey.Compare(p.Key, left[i].Key) != 0 || p.Value != left[i].Value {
				t.Fatalf("%s: record %d is %v, want %v", profileName(o), i, p, left[i])
			}
		}
		_, want := write(t, o, left, nil)
		p, q := meta.Props, want.Props
		if p.NumEntries != q.NumEntries || p.NumDeletions != q.NumDeletions || p.RawKeySize != q.RawKeySize || p.RawValueSize != q.RawValueSize ||
			p.FilterSize != q.FilterSize || p.NumFilterEntries != q.NumFilterEntries || ikey.Compare(meta.Smallest, want.Smallest) != 0 ||
			ikey.Compare(meta.Largest, want.Largest) != 0 || meta.SmallestSeq != want.SmallestSeq || meta.LargestSeq != want.LargestSeq {
			t.Errorf("%s: %+v, %+v\nmade anew: %+v, %+v", profileName(o), meta, p, want, q)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
