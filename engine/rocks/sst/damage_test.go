package sst

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// readAll opens a table and reads everything in it. An error must be of a class that says what it is.
func readAll(tb testing.TB, b []byte) (points, dels []record, err error) {
	tb.Helper()
	r, err := openBytes(tb, b, ReaderOptions{})
	if err == nil {
		defer r.Close()
		sameBatches(tb, r)
		if points, dels, err = content(r); err == nil {
			// A damaged filter does not change the content, but must not go unnoticed here either, nor panic.
			if verr := r.VerifyChecksums(); verr != nil {
				mustBeTyped(tb, verr)
			}
			OptionsLike(r)
		}
	}
	if err != nil {
		mustBeTyped(tb, err)
	}
	return points, dels, err
}

func mustBeTyped(tb testing.TB, err error) {
	tb.Helper()
	var e *base.Error
	if !errors.As(err, &e) || !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
		tb.Fatalf("error without a class: %v", err)
	}
	if e.Path != testFile {
		tb.Fatalf("error without a path: %v", err)
	}
}

// smallTables are tables with everything in them, of ours and of RocksDB 8.10.2.
func smallTables(tb testing.TB) map[string][]byte {
	tb.Helper()
	out := map[string][]byte{}
	dels := []record{rangeDel("z000001", "z000009", 9), rangeDel("a", "b", 3)}
	for _, o := range profiles {
		o.BlockSize = 256
		out[profileName(o)], _ = write(tb, o, manyRecords(40), dels[:1])
	}
	for _, sum := range []ChecksumType{ChecksumCRC32C, ChecksumXXH3} {
		b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v6-%v.sst", sum)))
		if err != nil {
			tb.Fatal(err)
		}
		out["version 6 "+sum.String()] = b
	}
	return out
}

// TestEveryDamagedByte changes each byte of a table in four ways and cuts it at each length. What can still be read must be
// what was there; everything else is a typed error. Nothing in between, and no panic.
func TestEveryDamagedByte(t *testing.T) {
	for name, table := range smallTables(t) {
		t.Run(name, func(t *testing.T) {
			points, dels, err := readAll(t, table)
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, b []byte) {
				t.Helper()
				p, d, err := readAll(t, b)
				if err != nil {
					return
				}
				if err := errors.Join(sameRecords(p, points), sameRecords(d, dels)); err != nil {
					t.Fatalf("%s: other content without an error: %v", what, err)
				}
			}
			stride := 1
			if testing.Short() {
				stride = 11
			}
			for i := 0; i < len(table); i += stride {
				for _, x := range []byte{0x01, 0x04, 0x80, 0xff} {
					b := bytes.Clone(table)
					b[i] ^= x
					check(fmt.Sprintf("byte %d ^ %02x", i, x), b)
				}
			}
			for n := 0; n < len(table); n += stride {
				if _, _, err := readAll(t, table[:n]); err == nil {
					t.Fatalf("cut to %d of %d bytes: no error", n, len(table))
				}
			}
		})
	}
}

// TestRefuses builds tables that are damaged in meaning, with checksums that hold.
func TestRefuses(t *testing.T) {
	sum := func(b []byte) []byte {
		return binary.LittleEndian.AppendUint32(b, checksum(ChecksumCRC32C, b))
	}
	// build makes a table of one data block with the given content, separators and properties.
	build := func(data []byte, code byte, sep ikey.Key, props, meta map[string]string) []byte {
		var out []byte
		block := func(b []byte, code byte) handle {
			h := handle{uint64(len(out)), uint64(len(b))}
			out = append(out, sum(append(bytes.Clone(b), code))...)
			return h
		}
		hd := block(data, code)
		index := blockBuilder{interval: 1}
		index.add(sep.Encode(), appendHandle(nil, hd))
		hi := block(index.finish(), 0)
		all := map[string]string{propComparator: comparatorName}
		for k, v := range props {
			all[k] = v
		}
		hp := block(encodeProperties(all), 0)
		metas := map[string]string{metaProperties: string(appendHandle(nil, hp))}
		for k, v := range meta {
			metas[k] = strings.ReplaceAll(v, "INDEX", string(appendHandle(nil, hi)))
		}
		hm := block(encodeProperties(metas), 0)
		return append(out, encodeFooter(2, ChecksumCRC32C, hm, hi)...)
	}
	entries := func(rs ...record) []byte {
		b := blockBuilder{interval: 16}
		for _, r := range rs {
			b.add(r.Encode(), []byte(r.Value))
		}
		return bytes.Clone(b.finish())
	}
	z := put("z", 1, "").Key
	good := entries(put("a", 1, "x"))
	for _, c := range []struct {
		name  string
		table []byte
		o     ReaderOptions
		class error
		want  string
	}{
		{"records out of order", build(entries(put("b", 1, ""), put("a", 1, "")), 0, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "not above its predecessor"},
		{"the same record twice", build(entries(put("a", 1, ""), put("a", 1, "")), 0, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "not above its predecessor"},
		{"versions in ascending order", build(entries(put("a", 1, ""), put("a", 2, "")), 0, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "not above its predecessor"},
		{"record above its separator", build(entries(put("a", 1, ""), put("zz", 1, "")), 0, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "above the block's separator"},
		{"merge operand", build(entries(kind(ikey.KindMerge, put("a", 1, ""))), 0, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "record type merge"},
		{"deletion with timestamp", build(entries(kind(0x14, put("a", 1, ""))), 0, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "deletion with timestamp"},
		{"wide columns", build(entries(kind(0x16, put("a", 1, ""))), 0, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "wide-column entity"},
		{"native blob index", build(entries(kind(0x19, put("a", 1, ""))), 0, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "BlobDB index"},
		{"range tombstone as a point", build(entries(rangeDel("a", "b", 1)), 0, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "range tombstone among the point records"},
		{"Xpress", build(good, CompressionXpress, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "Xpress"},
		{"unknown compression", build(good, 0x33, z, nil, nil), ReaderOptions{}, base.ErrUnsupported, "compression type 0x33"},
		{"LZ4 that promises too much", build([]byte("\xff\xff\xff\x7f\x10a"), CompressionLZ4, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "claims to decompress"},
		{"ZSTD that promises too much", build([]byte("\xff\xff\xff\xff\x0fabc"), CompressionZSTD, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "claims to decompress"},
		{"Snappy that promises too much", build([]byte("\xff\xff\xff\x7f\x00a"), CompressionSnappy, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "claims to decompress"},
		{"Zlib that promises too much", build([]byte("\xff\xff\xff\x7f\x00a"), CompressionZlib, z, nil, nil), ReaderOptions{}, base.ErrCorrupt, "claims to decompress"},
		{"another comparator", build(good, 0, z, map[string]string{propComparator: "leveldb.BytewiseComparator.u64ts"}, nil), ReaderOptions{}, base.ErrUnsupported, "comparator leveldb.BytewiseComparator.u64ts"},
		{"dictionary", build(good, 0, z, nil, map[string]string{metaCompressionDict: "INDEX"}), ReaderOptions{}, base.ErrUnsupported, "dictionary"},
		{"unknown index type", build(good, 0, z, map[string]string{propIndexType: fixed32Prop(9)}, nil), ReaderOptions{}, base.ErrUnsupported, "index type 9"},
		{"property that is no integer", build(good, 0, z, map[string]string{propEntries: "\xff"}, nil), ReaderOptions{}, base.ErrCorrupt, "rocksdb.num.entries is not an integer"},
		{"range tombstone block of points", build(good, 0, z, nil, map[string]string{metaRangeDel: "INDEX"}), ReaderOptions{}, base.ErrCorrupt, "no range tombstone"},
		{"global sequence number outside an ingested file", build(good, 0, z, map[string]string{propGlobalSeqno: "\x00\x00\x00\x00\x00\x00\x00\x00"}, nil), ReaderOptions{}, base.ErrCorrupt, "not made for ingestion"},
		{"global sequence number in version 1", build(good, 0, z, map[string]string{propExternalVersion: fixed32Prop(1), propGlobalSeqno: "\x00\x00\x00\x00\x00\x00\x00\x00"}, nil), ReaderOptions{}, base.ErrCorrupt, "external_sst_file.version is 1"},
		{"global sequence number other than the MANIFEST's", build(good, 0, z, map[string]string{propExternalVersion: fixed32Prop(2), propGlobalSeqno: "\x05\x00\x00\x00\x00\x00\x00\x00"}, nil), ReaderOptions{LargestSeq: 6}, base.ErrCorrupt, "is 5, the MANIFEST says 6"},
		{"sequence numbers beside a global one", build(good, 0, z, map[string]string{propExternalVersion: fixed32Prop(2)}, nil), ReaderOptions{LargestSeq: 6}, base.ErrCorrupt, "of its own"},
		{"size other than the MANIFEST's", build(good, 0, z, nil, nil), ReaderOptions{Size: 7}, base.ErrCorrupt, "the MANIFEST says 7"},
		{"plain table", append(make([]byte, 60), "\x64\x95\xbf\x63\x96\x22\x42\x82"...), ReaderOptions{}, base.ErrUnsupported, "plain table"},
		{"cuckoo table", append(make([]byte, 60), "\x73\x78\xf1\xc5\xd0\x89\x67\x92"...), ReaderOptions{}, base.ErrUnsupported, "cuckoo table"},
		{"not a table", make([]byte, 100), ReaderOptions{}, base.ErrCorrupt, "does not end like a table"},
		{"empty file", nil, ReaderOptions{}, base.ErrCorrupt, "too short"},
		{"format version 7", func() []byte {
			b := build(good, 0, z, nil, nil)
			b[len(b)-12] = 7
			return b
		}(), ReaderOptions{}, base.ErrUnsupported, "format version 7"},
		{"checksum type 5", func() []byte {
			b := build(good, 0, z, nil, nil)
			b[len(b)-53] = 5
			return b
		}(), ReaderOptions{}, base.ErrUnsupported, "checksum type 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.CF = "write"
			r, err := openBytes(t, c.table, c.o)
			if err == nil {
				_, _, err = content(r)
				r.Close()
			}
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q of class %v", err, c.want, c.class)
			}
			if !strings.Contains(err.Error(), "column family write") {
				t.Errorf("error does not name the column family: %v", err)
			}
		})
	}
}

// TestPatchedGlobalSeqno: releases before v5.2 wrote the sequence number into an ingested file and left the checksum alone.
func TestPatchedGlobalSeqno(t *testing.T) {
	props := map[string]string{propComparator: comparatorName, propExternalVersion: fixed32Prop(2), propGlobalSeqno: strings.Repeat("\x00", 8)}
	var out []byte
	block := func(b []byte) handle {
		h := handle{uint64(len(out)), uint64(len(b))}
		b = append(bytes.Clone(b), CompressionNone)
		out = append(out, binary.LittleEndian.AppendUint32(b, checksum(ChecksumCRC32C, b))...)
		return h
	}
	data, index, meta := blockBuilder{interval: 16}, blockBuilder{interval: 1}, blockBuilder{interval: 1}
	data.add(put("a", 0, "").Encode(), []byte("x"))
	index.add(put("a", 0, "").Encode(), appendHandle(nil, block(data.finish())))
	hi := block(index.finish())
	hp := block(encodeProperties(props))
	at := bytes.Index(out, []byte(propGlobalSeqno[len("rocksdb.external_sst_file."):])) + len("global_seqno")
	meta.add([]byte(metaProperties), appendHandle(nil, hp))
	hm := block(meta.finish())
	out = append(out, encodeFooter(2, ChecksumCRC32C, hm, hi)...)
	binary.LittleEndian.PutUint64(out[at:], 12345)
	for _, seq := range []uint64{12345, ikey.MaxSeq} {
		r, err := openBytes(t, out, ReaderOptions{LargestSeq: seq})
		if err != nil {
			t.Fatal(err)
		}
		points, err := drain(r.NewIter())
		if err != nil {
			t.Fatal(err)
		}
		if err := sameRecords(points, []record{put("a", 12345, "x")}); err != nil {
			t.Error(err)
		}
		if off, ok := r.GlobalSeqOffset(); !ok || off != int64(at) {
			t.Errorf("the sequence number is at %d, not at %d (%v)", at, off, ok)
		}
		if err := errors.Join(r.VerifyChecksums(), r.Close()); err != nil {
			t.Error(err)
		}
	}
	out[at-20] ^= 1
	if _, err := openBytes(t, out, ReaderOptions{LargestSeq: ikey.MaxSeq}); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("damage beside the patched bytes: %v", err)
	}
}

// TestEveryIOError fails each file operation in turn: the error must come through, as one of input and output.
func TestEveryIOError(t *testing.T) {
	points := manyRecords(200)
	o := WriterOptions{BlockSize: 512, Compression: CompressionZSTD, Filter: FilterPrefix}
	table, _ := write(t, o, points, nil)
	for i := int32(0); ; i++ {
		inj := errorfs.OnIndex(i)
		mem := vfs.NewMem()
		if err := base.WriteFileSync(base.NewMem(mem), testFile, table, ""); err != nil {
			t.Fatal(err)
		}
		r, err := Open(base.NewMem(errorfs.Wrap(mem, inj)), testFile, ReaderOptions{})
		if err == nil {
			if _, err = drain(r.NewIter()); err == nil {
				err = r.VerifyChecksums()
			}
			err = errors.Join(err, r.Close())
		}
		if inj.Load() >= 0 {
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			if i < 20 {
				t.Fatalf("only %d operations were made to fail", i)
			}
			break
		}
		if !errors.Is(err, base.ErrIO) {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
	for i := int32(0); ; i++ {
		inj := errorfs.OnIndex(i)
		f, err := vfs.NewMem().Create(testFile, base.DiskWriteCategory)
		if err != nil {
			t.Fatal(err)
		}
		w := NewWriter(errorfs.WrapFile(f, inj), o)
		for _, p := range points {
			if err = w.Add(p.Key, bytes.Repeat([]byte(p.Value), 100)); err != nil {
				break
			}
		}
		if err == nil {
			_, err = w.Finish()
		}
		if inj.Load() >= 0 {
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			break
		}
		if !errors.Is(err, base.ErrIO) {
			t.Fatalf("write %d: %v", i, err)
		}
		if _, again := w.Finish(); again == nil {
			t.Fatal("Finish after a failed write succeeds")
		}
	}
}
