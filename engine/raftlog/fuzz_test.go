package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func FuzzHeader(f *testing.F) {
	f.Add(fileHeader(1))
	f.Add(fileHeader(2))
	f.Add(fileHeader(3))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err == nil && (h.Len > len(b) || h.Version < 1 || h.Version > 2 || !bytes.HasPrefix(b, []byte(magic))) {
			t.Errorf("%+v from %d bytes", h, len(b))
		}
	})
}

// FuzzBatch wraps arbitrary items in a good checksum, so that the fuzzer gets past it.
func FuzzBatch(f *testing.F) {
	for _, b := range []*batchBuilder{nb().log(2, 5, 9, 6), nb().clean(300).put(2, "R", "x"), nb().compact(1, 1<<63).del(2, "k"),
		nb().mark(0, 2)} {
		f.Add(append(appendUvarint(nil, uint64(b.n)), b.items...), b.entries)
	}
	f.Fuzz(func(t *testing.T, section, entries []byte) {
		items, err := decodeItems(nil, section)
		if err == nil && len(items) > len(section) {
			t.Errorf("%d items in %d bytes", len(items), len(section))
		}
		block := []byte{}
		if len(entries) > 0 {
			block = binary.LittleEndian.AppendUint32(bytes.Clone(entries), crc(entries))
		}
		content := fileHeader(1)
		content = binary.BigEndian.AppendUint64(content, uint64(16+len(block)+len(section)+4)<<8)
		content = binary.BigEndian.AppendUint64(content, uint64(16+len(block)))
		content = append(append(content, block...), section...)
		content = binary.LittleEndian.AppendUint32(content, crc(section))
		openFuzzed(t, content)
	})
}

func FuzzFile(f *testing.F) {
	_, last := smallDir()
	f.Add(last)
	f.Add(batches(1, 5, nb().log(2, 5, 9, 6)))
	f.Fuzz(func(t *testing.T, content []byte) { openFuzzed(t, content) })
}

func openFuzzed(t *testing.T, content []byte) {
	e, rep, err := newDir().write(FileName(Append, 5), content).open()
	if err != nil {
		if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Fatal(err)
		}
		return
	}
	if v := rep.Files[0].Valid; v < 0 || v > int64(len(content)) {
		t.Fatalf("valid to %d of %d", v, len(content))
	}
	ids, err := e.Regions()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		next := uint64(0)
		err := e.Entries(id, 0, ^uint64(0), func(x raftstate.Entry) error {
			if x.Index < next {
				t.Fatalf("entry %d after %d", x.Index, next)
			}
			next = x.Index + 1
			return nil
		})
		if err != nil && !errors.Is(err, base.ErrCorrupt) {
			t.Fatal(err)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("\x40\x00\x00\x00\x7f\x10\x06\x18\x0a\x22\x3a\x61\x01\x00\x21\x50\x61\x61\x61\x61\x61"), byte(1))
	f.Add(entryBytes(6, 10, "abc"), byte(0))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0}, byte(1))
	f.Fuzz(func(t *testing.T, body []byte, compression byte) {
		b := binary.LittleEndian.AppendUint32(bytes.Clone(body), crc(body))
		got, err := DecodeBlock(b, compression)
		if err == nil && compression == 0 && !bytes.Equal(got, body) {
			t.Error("an uncompressed block changed")
		}
		if err == nil && compression == 1 && len(got) != int(binary.LittleEndian.Uint32(body)) {
			t.Errorf("%d bytes", len(got))
		}
	})
}
