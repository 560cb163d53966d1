package sst

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// TestReadsVersion6 reads tables with context checksums that stock RocksDB 8.10.2, the base of TiKV v8.4 and later, wrote
// with format_version 6, LZ4, block_size 512 and each checksum: 200 puts, then a delete of every seventh key, then one
// range delete.
func TestReadsVersion6(t *testing.T) {
	var points []record
	for i := range 200 {
		k := fmt.Sprintf("k%04d", i)
		switch {
		case i >= 50 && i < 60:
		case i%7 == 0:
			points = append(points, kind(ikey.KindDelete, put(k, uint64(201+i/7), "")))
		default:
			points = append(points, put(k, uint64(1+i), fmt.Sprintf("value of %04d", i)))
		}
	}
	dels := []record{rangeDel("k0050", "k0060", 230)}
	for sum := ChecksumNone; sum <= ChecksumXXH3; sum++ {
		t.Run(sum.String(), func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v6-%v.sst", sum)))
			if err != nil {
				t.Fatal(err)
			}
			r, err := openBytes(t, b, ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if r.Version() != 6 || r.Checksum() != sum || r.foot.base == 0 {
				t.Fatalf("version %d, %v, base %08x", r.Version(), r.Checksum(), r.foot.base)
			}
			gotPoints, gotDels, err := content(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := sameRecords(gotPoints, points); err != nil {
				t.Error(err)
			}
			if err := sameRecords(gotDels, dels); err != nil {
				t.Error(err)
			}
			if err := r.VerifyChecksums(); err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(count(points, dels, false), counted(r.Props())); d != "" {
				t.Error(d)
			}
		})
	}
}
