package raftlog

import (
	"encoding/binary"
	"io"
)

// A batch of ours is cut where its entries or its items reach these sizes. The file is the atomic unit, not the batch; the
// engine rewrites about 128 KiB at a time.
const (
	maxBatchEntries = 1 << 20
	maxBatchItems   = 256 << 10
)

// AppendHeader appends the file header of a version, 1 or 2, without alignment.
func AppendHeader(b []byte, version uint64) []byte {
	b = binary.BigEndian.AppendUint64(append(b, magic...), version)
	if version == 2 {
		b = binary.BigEndian.AppendUint64(b, 0)
	}
	return b
}

// batchWriter collects the operations of one log batch. The format stands at decodeBatchHeader.
type batchWriter struct {
	n       uint64
	entries []byte
	items   []byte
}

func (w *batchWriter) empty() bool { return w.n == 0 }

func (w *batchWriter) full() bool {
	return len(w.entries) >= maxBatchEntries || len(w.items) >= maxBatchItems
}

// add takes one operation. Of a list of entries it takes as many as fit and returns the rest.
func (w *batchWriter) add(op batchOp) (rest batchOp, more bool) {
	w.n++
	w.items = binary.AppendUvarint(w.items, op.region)
	switch op.kind {
	case opClean:
		w.items = append(w.items, itemCommand, 1)
	case opPut:
		w.items = append(w.items, itemKV, 1)
		w.items = append(binary.AppendUvarint(w.items, uint64(len(op.key))), op.key...)
		w.items = append(binary.AppendUvarint(w.items, uint64(len(op.value))), op.value...)
	case opEntries:
		n, size := 0, len(w.entries)
		for n < len(op.entries) && (n == 0 || size+len(op.entries[n].Raw) <= maxBatchEntries) {
			size += len(op.entries[n].Raw)
			n++
		}
		w.items = append(w.items, itemEntries)
		w.items = binary.AppendUvarint(w.items, uint64(n))
		w.items = binary.AppendUvarint(w.items, op.entries[0].Index)
		for _, e := range op.entries[:n] {
			w.entries = append(w.entries, e.Raw...)
			w.items = binary.AppendUvarint(w.items, uint64(len(w.entries)))
		}
		rest, more = op, n < len(op.entries)
		rest.entries = op.entries[n:]
	}
	return rest, more
}

// appendTo appends the finished batch to dst and begins the next one. Entries are never compressed: every reader takes both.
func (w *batchWriter) appendTo(dst []byte, sig uint32) []byte {
	itemOff := batchHeaderLen
	if len(w.entries) > 0 {
		itemOff += len(w.entries) + 4
	}
	section := append(binary.AppendUvarint(make([]byte, 0, len(w.items)+10), w.n), w.items...)
	total := itemOff + len(section) + 4
	dst = binary.BigEndian.AppendUint64(dst, uint64(total)<<8|compressionNone)
	dst = binary.BigEndian.AppendUint64(dst, uint64(itemOff))
	if len(w.entries) > 0 {
		dst = binary.LittleEndian.AppendUint32(append(dst, w.entries...), crc(w.entries))
	}
	dst = binary.LittleEndian.AppendUint32(append(dst, section...), crc(section)^sig)
	w.n, w.entries, w.items = 0, w.entries[:0], w.items[:0]
	return dst
}

// WriteLog writes a whole log file of the given version and number: the header, then the batch in pieces of moderate size. It
// returns the length and the number of log batches.
func WriteLog(w io.Writer, version, seq uint64, b *Batch) (size int64, batches int, err error) {
	var buf []byte
	flush := func() error {
		size += int64(len(buf))
		_, err := w.Write(buf)
		buf = buf[:0]
		return err
	}
	buf = AppendHeader(buf, version)
	if err := flush(); err != nil {
		return size, batches, err
	}
	var bw batchWriter
	sig := signature(version, seq)
	cut := func() error {
		buf = bw.appendTo(buf, sig)
		batches++
		return flush()
	}
	for _, op := range b.ops {
		for more := true; more; {
			if op, more = bw.add(op); more || bw.full() {
				if err := cut(); err != nil {
					return size, batches, err
				}
			}
		}
	}
	if !bw.empty() {
		err = cut()
	}
	return size, batches, err
}
