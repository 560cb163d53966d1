package rocks_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// A key that a filter denies is lost for TiKV although it is there, and no checksum tells: a table that is read back is asked for each of
// its keys as TiKV would ask. One bit that was wrong in memory before the checksum was made is enough.
func TestCheckTableAsksTheFilter(t *testing.T) {
	for _, o := range []sst.WriterOptions{
		{Filter: sst.FilterWholeKey},
		{Filter: sst.FilterWholeKey, FormatVersion: 5},
		{Filter: sst.FilterWholeKey, FormatVersion: 5, FilterForm: sst.FormRibbon},
		{Filter: sst.FilterPrefix, PrefixExtractor: "FixedSuffixSliceTransform"},
		{Filter: sst.FilterWholeKeyAndPrefix, PrefixExtractor: "FixedSuffixSliceTransform", FormatVersion: 5},
	} {
		t.Run(fmt.Sprintf("%v, version %d, %v", o.Filter, o.FormatVersion, o.FilterForm), func(t *testing.T) {
			mem := vfs.NewMem()
			fs := base.NewMem(mem)
			f, err := fs.Create("000001.sst", base.DiskWriteCategory)
			if err != nil {
				t.Fatal(err)
			}
			w := sst.NewWriter(f, o)
			for i := range 2000 {
				k := ikey.Key{User: fmt.Appendf(nil, "row%05d-%08d", i/3, i), Seq: 1, Kind: ikey.KindPut}
				if err := w.Add(k, nil); err != nil {
					t.Fatal(err)
				}
			}
			m, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			meta := &manifest.FileMeta{Number: 1, Size: m.Size, Smallest: m.Smallest, Largest: m.Largest, SmallestSeq: 1, LargestSeq: 1}
			found := func() []rocks.Finding {
				return rocks.CheckTable(fs, "000001.sst", "write", rocks.LevelFile{FileMeta: meta}, nil)
			}
			if bad := found(); len(bad) > 0 {
				t.Fatal(bad)
			}
			whole, err := base.ReadFile(fs, "000001.sst")
			if err != nil {
				t.Fatal(err)
			}
			// The filter follows the data blocks; behind it stand its type and checksum.
			filter := whole[m.Props.DataSize:][:m.Props.FilterSize+5]
			bits := filter[:m.Props.FilterSize-5]
			at := 0
			for at < len(bits) && bits[at] == 0 {
				at++
			}
			if at == len(bits) {
				t.Fatal("the filter is empty")
			}
			bits[at] &= bits[at] - 1
			sum := crc32.Checksum(filter[:len(filter)-4], crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(filter[len(filter)-4:], (sum>>15|sum<<17)+0xa282ead8)
			if err := base.WriteFileSync(fs, "000001.sst", whole, ""); err != nil {
				t.Fatal(err)
			}
			if bad := found(); len(bad) != 1 || bad[0].Rule != 3 || !strings.Contains(bad[0].Reason, "filter denies") {
				t.Errorf("findings %v", bad)
			}
		})
	}
}
