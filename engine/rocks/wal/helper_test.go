package wal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame writes records through pebble's writer: an implementation of the framing that is not ours.
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

// physical makes one physical record by hand.
func physical(typ byte, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint16(make([]byte, 4), uint16(len(payload)))
	b = append(append(b, typ), payload...)
	binary.LittleEndian.PutUint32(b, checksum(b[6:]))
	return b
}

func recyclable(typ byte, log uint32, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint16(make([]byte, 4), uint16(len(payload)))
	b = binary.LittleEndian.AppendUint32(append(b, typ), log)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b, checksum(b[6:]))
	return b
}

func lp(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }

// putBatch makes a batch of Puts into column family 0: "key=value".
func putBatch(seq uint64, pairs ...string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pairs)))
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		b = lp(lp(append(b, 0x01), k), v)
	}
	return b
}

// cfPut makes a batch with one Put into cf.
func cfPut(seq uint64, cf byte, key string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, seq)
	b = append(binary.LittleEndian.AppendUint32(b, 1), 0x05, cf)
	return lp(lp(b, key), "v")
}

func memFS(t testing.TB, files map[string][]byte) base.FS {
	t.Helper()
	fs := base.NewMem(vfs.NewMem())
	if err := fs.MkdirAll("/db", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := base.WriteFileSync(fs, "/db/"+name, content, ""); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// readAll reads records and damage until the end; err is nil at a clean end.
func readAll(r *Reader) (records [][]byte, damage []*Damage, err error) {
	for {
		b, _, err := r.Next()
		if err == io.EOF {
			return records, damage, nil
		}
		if d, ok := err.(*Damage); ok {
			damage = append(damage, d)
			continue
		}
		if err != nil {
			return records, damage, err
		}
		records = append(records, append([]byte(nil), b...))
	}
}
