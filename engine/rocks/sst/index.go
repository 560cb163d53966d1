package sst

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Index types of the property rocksdb.block.based.table.index.type.
const (
	indexBinary         = 0
	indexHash           = 1 // the block is a binary index; its helper blocks are optional
	indexPartitioned    = 2
	indexBinaryFirstKey = 3
)

// indexEntry points to one block. sep is >= the last key of the block and < the first of the next: an internal key, or a
// user key in a file with rocksdb.index.key.is.user.key. The kind in its trailer means nothing: separators carry the pseudo
// kind for seeks, which differs between RocksDB lines.
type indexEntry struct {
	sep []byte
	h   handle
}

// indexForm says how index entries are encoded.
type indexForm struct {
	userKey  bool // separators without trailer
	delta    bool // handles delta encoded
	firstKey bool // each handle is followed by the first key of its block
}

func (f indexForm) user(sep []byte) []byte {
	if f.userKey {
		return sep
	}
	return sep[:len(sep)-8]
}

// compare orders separators.
func (f indexForm) compare(a, b []byte) int {
	if f.userKey {
		return bytes.Compare(a, b)
	}
	return compareEncoded(a, b)
}

// decodeIndex decodes an index block, or a partition of one.
//
//	values not delta encoded:  shared | non_shared | value_len | suffix | handle
//	values delta encoded:      shared | non_shared | suffix | value          (no value length)
//	     shared = 0:  handle
//	     else:        zigzag varint64 d; size = previous size + d, offset = previous offset + previous size + 5
//	index type 3:     handle or d, then varint32 length and first internal key of the block
//
// Source: tikv/rocksdb 8.10.tikv table/format.cc (IndexValue), table/block_based/block.cc (IndexBlockIter::ParseNextIndexKey).
func decodeIndex(payload []byte, form indexForm, check func(handle) string) ([]indexEntry, string) {
	b, bad := parseBlock(payload)
	if bad != "" {
		return nil, bad
	}
	var out []indexEntry
	var keys []byte // all separators, to be cut into when it no longer grows
	var key []byte
	var prev handle
	var ends []int
	for p := 0; p < len(b.entries); {
		e := b.entries[p:]
		at := p
		var shared, unshared, vlen uint32
		var n int
		if form.delta {
			var m int
			if shared, n = v32(e); n != 0 {
				if unshared, m = v32(e[n:]); m == 0 {
					n = 0
				}
				n += m
			}
			if m == 0 {
				n = 0
			}
		} else {
			shared, unshared, vlen, n = entryHeader(e)
		}
		if n == 0 {
			return nil, fmt.Sprintf("index entry at %d has no valid header", at)
		}
		e = e[n:]
		if uint64(shared) > uint64(len(key)) || uint64(unshared)+uint64(vlen) > uint64(len(e)) {
			return nil, fmt.Sprintf("index entry at %d reaches beyond the block", at)
		}
		old := len(keys) - len(key)
		keys = append(append(keys, keys[old:old+int(shared)]...), e[:unshared]...)
		key = keys[len(keys)-int(shared)-int(unshared):]
		e = e[unshared:]
		val := e
		if !form.delta {
			val = e[:vlen]
		}
		h, rest, ok := handle{}, val, false
		if form.delta && shared != 0 {
			d, m := binary.Varint(val)
			if ok = m > 0; ok {
				h = handle{prev.off + prev.size + trailerSize, prev.size + uint64(d)}
				rest = val[m:]
			}
		} else {
			h, rest, ok = decodeHandle(val)
		}
		if ok && form.firstKey {
			l, m := v32(rest)
			if ok = m > 0 && uint64(l) <= uint64(len(rest)-m); ok {
				rest = rest[m+int(l):]
			}
		}
		if !ok || !form.delta && len(rest) != 0 {
			return nil, fmt.Sprintf("index entry at %d has no valid block handle", at)
		}
		if bad := check(h); bad != "" {
			return nil, fmt.Sprintf("index entry at %d: %s", at, bad)
		}
		if !form.userKey && len(key) < 8 {
			return nil, fmt.Sprintf("index entry at %d has a key of %d bytes, less than a trailer", at, len(key))
		}
		if len(out) > 0 && h.off < prev.off+prev.size+trailerSize {
			return nil, fmt.Sprintf("index entry at %d: block at %d overlaps the one at %d", at, h.off, prev.off)
		}
		prev = h
		out = append(out, indexEntry{h: h})
		ends = append(ends, len(keys))
		p = len(b.entries) - len(rest)
		if !form.delta {
			p = at + n + int(unshared) + int(vlen)
		}
	}
	start := 0
	for i, end := range ends {
		out[i].sep = keys[start:end:end]
		if i > 0 && form.compare(out[i-1].sep, out[i].sep) >= 0 {
			return nil, fmt.Sprintf("separator %d of the index is not above its predecessor", i)
		}
		start = end
	}
	return out, ""
}

// readIndex reads the index, partitions and all.
func (r *Reader) readIndex(h handle) error {
	r.form = indexForm{userKey: r.props.IndexUserKey, delta: r.props.IndexDelta}
	switch r.props.IndexType {
	case indexBinary, indexHash, indexPartitioned:
	case indexBinaryFirstKey:
		r.form.firstKey = true
	default:
		return r.unsupported("index type %d", r.props.IndexType)
	}
	top, err := r.indexBlock(h, r.form)
	if err != nil {
		return err
	}
	if r.props.IndexType != indexPartitioned {
		r.index = top
		return nil
	}
	for i, part := range top {
		es, err := r.indexBlock(part.h, r.form)
		if err != nil {
			return err
		}
		if n := len(es); n > 0 && r.form.compare(es[n-1].sep, part.sep) > 0 {
			return r.corrupt(part.h.off, "index partition %d ends above its separator", i)
		}
		if n := len(r.index); n > 0 && len(es) > 0 {
			last := r.index[n-1]
			if r.form.compare(last.sep, es[0].sep) >= 0 || es[0].h.off < last.h.off+last.h.size+trailerSize {
				return r.corrupt(part.h.off, "index partition %d does not follow its predecessor", i)
			}
		}
		r.index = append(r.index, es...)
	}
	r.partitions = top
	return nil
}

func (r *Reader) indexBlock(h handle, form indexForm) ([]indexEntry, error) {
	b, err := r.metaBlock(h)
	if err != nil {
		return nil, err
	}
	es, bad := decodeIndex(b, form, r.foot.check)
	if bad != "" {
		return nil, r.corrupt(h.off, "%s", bad)
	}
	return es, nil
}

func (r *Reader) corrupt(off uint64, format string, args ...any) error {
	e := base.Corruptf(r.path, int64(off), format, args...)
	e.CF = r.o.CF
	return e
}

func (r *Reader) unsupported(format string, args ...any) error {
	e := base.Unsupportedf(r.path, format, args...)
	e.CF = r.o.CF
	return e
}
