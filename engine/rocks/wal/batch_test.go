package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

func describe(payload []byte) (string, error) {
	seq, count, records, err := DecodeBatch(payload)
	if err != nil {
		return "", err
	}
	s := []string{fmt.Sprintf("%d+%d", seq, count)}
	for r := range records {
		s = append(s, fmt.Sprintf("cf%d %s@%d:%s=%s", r.CF, r.Key.User, r.Key.Seq, r.Key.Kind, r.Value))
	}
	return strings.Join(s, "; "), nil
}

// The vector that was taken from stock RocksDB: batch at sequence 7, framed at file offset 0.
func TestBatchVector(t *testing.T) {
	batch := unhex(t, "0700000000000000 03000000 01 0161 0131  04 02 0162  0e 01 0163 0164")
	got, err := describe(batch)
	if want := "7+3; cf0 a@7:put=1; cf2 b@8:delete=; cf1 c@9:range-delete=d"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	framed := append(unhex(t, "587b5a1d 1b00 01"), batch...)
	if !bytes.Equal(framed, frame(t, batch)) || !bytes.Equal(framed, physical(typeFull, batch)) {
		t.Errorf("framing is not %X", framed)
	}
	records, damage, err := readAll(NewReader(bytes.NewReader(framed), "v", 1))
	if err != nil || len(damage) != 0 || len(records) != 1 || !bytes.Equal(records[0], batch) {
		t.Errorf("read back %X, %v, %v", records, damage, err)
	}
}

func TestDecodeBatch(t *testing.T) {
	const head = "0500000000000000 "
	for _, tc := range []struct{ name, hex, want, corrupt, refused string }{
		{name: "every tag of TiKV", hex: head + "0a000000 00 0161  04 80 01 0161  01 0161 0178  05 01 0161 0178  07 0161  08 01 0161" +
			" 0f 0161 0162  0e 03 0161 0162  11 0161 0178  10 02 0161 0178",
			want: "5+10; cf0 a@5:delete=; cf128 a@6:delete=; cf0 a@7:put=x; cf1 a@8:put=x; cf0 a@9:single-delete=; cf1 a@10:single-delete=; " +
				"cf0 a@11:range-delete=b; cf3 a@12:range-delete=b; cf0 a@13:blob-index=x; cf2 a@14:blob-index=x"},
		{name: "log data and noop consume nothing", hex: head + "02000000 03 03616263 01 0161 00 0d 00 0162 03 00", want: "5+2; cf0 a@5:put=; cf0 b@6:delete="},
		{name: "empty batch", hex: head + "00000000", want: "5+0"},
		{name: "empty key and value", hex: head + "01000000 01 00 00", want: "5+1; cf0 @5:put="},
		{name: "empty range", hex: head + "01000000 0f 0162 0162", want: "5+1; cf0 b@5:range-delete=b"},
		{name: "short header", hex: "05000000000000000000", corrupt: "below its header"},
		{name: "count too low", hex: head + "01000000 00 0161 00 0162", corrupt: "wrong count: header 1, records 2"},
		{name: "count too high", hex: head + "ffffffff 00 0161", corrupt: "wrong count"},
		{name: "key past the end", hex: head + "01000000 00 0561", corrupt: "past the end"},
		{name: "value missing", hex: head + "01000000 01 0161", corrupt: "past the end"},
		{name: "column family id missing", hex: head + "01000000 05", corrupt: "column family"},
		{name: "column family id too large", hex: head + "01000000 05 ffffffff7f 0161 0161", corrupt: "column family"},
		{name: "huge length", hex: head + "01000000 00 ffffffff0f 61", corrupt: "past the end"},
		{name: "unknown tag", hex: head + "01000000 1a 0161", corrupt: "tag 0x1A"},
		{name: "range that ends before it begins: Replay's to judge", hex: head + "01000000 0f 0162 0161", want: "5+1; cf0 b@5:range-delete=a"},
		{name: "sequence above 2^56-1", hex: "0000000000000001 00000000", corrupt: "largest sequence"},
		{name: "last sequence above 2^56-1", hex: "ffffffffffffff00 01000000 00 0161", corrupt: "largest sequence"},
		{name: "merge", hex: head + "01000000 06 01 0161 0178", refused: "Merge"},
		{name: "transaction", hex: head + "00000000 09", refused: "BeginPrepare"},
		{name: "wide columns", hex: head + "01000000 17 0161 0178", refused: "WideColumnEntity"},
		{name: "native blob", hex: head + "01000000 19 0161 0178", refused: "native BlobIndex"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := describe(unhex(t, tc.hex))
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if (tc.corrupt != "") != errors.Is(err, base.ErrCorrupt) || (tc.refused != "") != errors.Is(err, base.ErrUnsupported) {
				t.Fatalf("class of %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), tc.corrupt+tc.refused) {
				t.Errorf("error %q does not name %q", err, tc.corrupt+tc.refused)
			}
		})
	}
}

func TestDecodeBatchEarlyStop(t *testing.T) {
	_, _, records, err := DecodeBatch(putBatch(1, "a=1", "b=2", "c=3"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range records {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d records", n)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(putBatch(7, "a=1", "b="))
	f.Add(cfPut(9, 3, "k"))
	f.Add(unhex(f, "0700000000000000 03000000 01 0161 0131  04 02 0162  0e 01 0163 0164"))
	f.Add(unhex(f, "0700000000000000 01000000 03 0161 0d 10 02 0161 0178"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		seq, count, records, err := DecodeBatch(payload)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		// What was accepted is written again in the long form of each tag and must read the same.
		again := binary.LittleEndian.AppendUint64(nil, seq)
		again = binary.LittleEndian.AppendUint32(again, count)
		long := map[ikey.Kind]byte{ikey.KindDelete: 4, ikey.KindPut: 5, ikey.KindSingleDelete: 8, ikey.KindRangeDelete: 0x0e, ikey.KindBlobIndex: 0x10}
		n := uint64(0)
		for r := range records {
			if r.Key.Seq != seq+n {
				t.Fatalf("record %d has sequence %d of batch %d", n, r.Key.Seq, seq)
			}
			n++
			again = lp(binary.AppendUvarint(append(again, long[r.Key.Kind]), uint64(r.CF)), string(r.Key.User))
			if r.Value != nil {
				again = lp(again, string(r.Value))
			}
		}
		a, _ := describe(payload)
		b, err := describe(again)
		if n != uint64(count) || err != nil || a != b {
			t.Fatalf("%q, again %q, %v", a, b, err)
		}
	})
}
