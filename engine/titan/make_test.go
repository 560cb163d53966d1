package titan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/titan"
)

// blobWriter makes blob files of the versions and compressions that no fixture has.
type blobWriter struct {
	b         []byte
	blockSize int
}

func newBlob(version, flags uint32, blockSize int) *blobWriter {
	w := &blobWriter{blockSize: blockSize}
	w.b = binary.LittleEndian.AppendUint32(nil, 0x2be0a614)
	w.b = binary.LittleEndian.AppendUint32(w.b, version)
	if version >= 2 {
		w.b = binary.LittleEndian.AppendUint32(w.b, flags)
	}
	if version >= 3 {
		w.b = binary.LittleEndian.AppendUint64(w.b, uint64(blockSize))
	}
	w.pad()
	return w
}

func (w *blobWriter) pad() {
	for w.blockSize > 0 && len(w.b)%w.blockSize != 0 {
		w.b = append(w.b, 0)
	}
}

func lp(b, s []byte) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

func (w *blobWriter) add(compression byte, key, value []byte) (off, size uint64) {
	raw := lp(lp(nil, key), value)
	sized := binary.AppendUvarint(nil, uint64(len(raw)))
	payload := raw
	switch compression {
	case 1:
		payload = snappy.Encode(nil, raw)
	case 4:
		out := make([]byte, lz4.CompressBlockBound(len(raw)))
		n, err := lz4.CompressBlock(raw, out, nil)
		if err != nil || n == 0 {
			panic(fmt.Sprintf("lz4: %d %v", n, err))
		}
		payload = append(sized, out[:n]...)
	case 7:
		enc, err := zstd.NewWriter(nil)
		if err != nil {
			panic(err)
		}
		payload = enc.EncodeAll(raw, sized)
	}
	return w.raw(compression, payload)
}

func (w *blobWriter) raw(compression byte, payload []byte) (off, size uint64) {
	rec := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	rec = append(append(rec, compression), payload...)
	off = uint64(len(w.b))
	w.b = binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(rec, crc32.MakeTable(crc32.Castagnoli)))
	w.b = append(w.b, rec...)
	size = uint64(len(w.b)) - off
	w.pad()
	return off, size
}

func (w *blobWriter) finish() []byte {
	foot := binary.LittleEndian.AppendUint64(make([]byte, 20), 0x2be0a6148e39edc6)
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, crc32.MakeTable(crc32.Castagnoli)))
	return append(w.b, foot...)
}

// edit makes one MANIFEST record.
func edit(fields ...any) []byte {
	var b []byte
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(v))
		case string:
			b = lp(b, []byte(v))
		}
	}
	return b
}

func manifest(edits ...[]byte) []byte {
	var buf bytes.Buffer
	w := record.NewWriter(&buf)
	for _, e := range edits {
		if _, err := w.WriteRecord(e); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func store(t testing.TB, blobs map[int][]byte, edits ...[]byte) *titan.Store {
	t.Helper()
	fs := base.NewMem(vfs.NewMem())
	if err := fs.MkdirAll("/t", 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"CURRENT": []byte("MANIFEST-000001\n"), "MANIFEST-000001": manifest(edits...)}
	for n, b := range blobs {
		files[fmt.Sprintf("%06d.blob", n)] = b
	}
	for n, b := range files {
		if err := base.WriteFileSync(fs, "/t/"+n, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	s, err := titan.Open(fs, "/t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
