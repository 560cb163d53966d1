package sst

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Which blocks may stand in a table of another compression. NoCompression is a promise that RocksDB goes by; a block that was not worth
// compressing is one thing, a table that never was compressed another.
func TestCopyBlockByCompression(t *testing.T) {
	const none, lz4, zstd = CompressionNone, CompressionLZ4, CompressionZSTD
	random := strings.Repeat("0123456789abcdef", 300)
	noise := make([]byte, 4096)
	for i, x := 0, uint64(1); i < len(noise); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		noise[i] = byte(x >> 56)
	}
	for _, c := range []struct {
		what     string
		from, to byte
		value    string
		copied   bool
	}{
		{"the same", lz4, lz4, random, true},
		{"no compression, the same", none, none, random, true},
		{"another compression", lz4, zstd, random, true},
		{"compressed into none", lz4, none, random, false},
		{"none into compressed", none, zstd, random, false},
		{"did not shrink, the same", lz4, lz4, string(noise), true},
		{"did not shrink, another compression", lz4, zstd, string(noise), true},
		{"did not shrink, into none", lz4, none, string(noise), true},
	} {
		t.Run(c.what, func(t *testing.T) {
			b, _ := write(t, WriterOptions{Compression: c.from, BlockSize: 4 << 10}, []record{put("a", 2, c.value), put("b", 1, c.value)}, nil)
			r, err := openBytes(t, b, ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			fs := base.NewMem(vfs.NewMem())
			f, err := fs.Create(testFile, base.DiskWriteCategory)
			if err != nil {
				t.Fatal(err)
			}
			w := NewWriter(f, WriterOptions{Compression: c.to, BlockSize: 4 << 10})
			in := r.NewBatches()
			defer in.Close()
			for in.Next() {
				done, err := w.CopyBlock(in)
				if err != nil || done != c.copied {
					t.Fatalf("copied %v, %v", done, err)
				}
				for i := 0; !done && i < in.Len(); i++ {
					if err := w.Add(in.Key(i), in.Value(i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if in.Err() != nil {
				t.Fatal(in.Err())
			}
			m, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			if m.Props.Compression != CompressionName(c.to) {
				t.Errorf("property %s", m.Props.Compression)
			}
			again, err := Open(fs, testFile, ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			types, err := again.BlockTypes()
			if err != nil || c.to == none && types[none] != len(again.index) {
				t.Errorf("blocks %v, %v", types, err)
			}
			got, _, err := content(again)
			if err != nil {
				t.Fatal(err)
			}
			if err := sameRecords(got, []record{put("a", 2, c.value), put("b", 1, c.value)}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A block goes by its table's checksum: one of another kind has to be written anew.
func TestCopyBlockByChecksum(t *testing.T) {
	for from := ChecksumCRC32C; from <= ChecksumXXH3; from++ {
		for to := ChecksumCRC32C; to <= ChecksumXXH3; to++ {
			b, _ := write(t, WriterOptions{Checksum: from}, []record{put("a", 2, "v")}, nil)
			r, err := openBytes(t, b, ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			f, err := base.NewMem(vfs.NewMem()).Create(testFile, base.DiskWriteCategory)
			if err != nil {
				t.Fatal(err)
			}
			w := NewWriter(f, WriterOptions{Checksum: to})
			in := r.NewBatches()
			if !in.Next() {
				t.Fatal(in.Err())
			}
			if done, err := w.CopyBlock(in); err != nil || done != (from == to) {
				t.Errorf("%v into %v: copied %v, %v", from, to, done, err)
			}
			in.Close()
		}
	}
}
