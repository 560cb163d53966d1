package sst

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// block is a decompressed block taken apart.
//
//	+-----------------------------------------------------------------------------------------+
//	| entry ... : shared v32 | non_shared v32 | value_len v32 | key suffix | value            |
//	+-----------------------------------------------------------------------------------------+
//	| restart offsets, u32 LE each: entries with shared = 0, to search on                     |
//	+-----------------------------------------------------------------------------------------+
//	| hash index: buckets u8 each | number of buckets u16 LE        only with bit 31 below    |
//	+-----------------------------------------------------------------------------------------+
//	| u32 LE: number of restarts in bits 0 to 30, bit 31: a hash index is there               |
//	+-----------------------------------------------------------------------------------------+
//
// v32 is a LEB128 varint of at most 5 bytes. The hash index only speeds up point reads and is skipped.
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_builder.cc, block.cc, data_block_footer.cc, data_block_hash_index.cc.
type block struct {
	entries  []byte
	restarts []byte
}

const hashIndexFlag = 1 << 31

// parseBlock returns why the payload is no block, or "".
func parseBlock(payload []byte) (block, string) {
	if len(payload) < 4 {
		return block{}, fmt.Sprintf("%d bytes are too short for a block", len(payload))
	}
	rest := payload[:len(payload)-4]
	n := binary.LittleEndian.Uint32(payload[len(rest):])
	if n&hashIndexFlag != 0 {
		n &^= hashIndexFlag
		if len(rest) < 2 {
			return block{}, "block is too short for its hash index"
		}
		buckets := int(binary.LittleEndian.Uint16(rest[len(rest)-2:]))
		if buckets+2 > len(rest) {
			return block{}, fmt.Sprintf("hash index of %d buckets does not fit into the block", buckets)
		}
		rest = rest[:len(rest)-2-buckets]
	}
	if uint64(n)*4 > uint64(len(rest)) {
		return block{}, fmt.Sprintf("%d restart points do not fit into a block of %d bytes", n, len(payload))
	}
	b := block{entries: rest[:len(rest)-int(n)*4], restarts: rest[len(rest)-int(n)*4:]}
	if n == 0 && len(b.entries) > 0 {
		return block{}, "block has entries but no restart point"
	}
	if n > 0 && binary.LittleEndian.Uint32(b.restarts) != 0 {
		return block{}, "first restart point is not the first entry"
	}
	return b, ""
}

// v32 decodes a varint32; n is 0 when there is none.
func v32(b []byte) (v uint32, n int) {
	u, n := binary.Uvarint(b)
	if n <= 0 || n > 5 || u > 1<<32-1 {
		return 0, 0
	}
	return uint32(u), n
}

// entryHeader decodes the three lengths; n is 0 when they do not decode.
func entryHeader(b []byte) (shared, unshared, vlen uint32, n int) {
	if len(b) >= 3 && b[0]|b[1]|b[2] < 0x80 {
		return uint32(b[0]), uint32(b[1]), uint32(b[2]), 3
	}
	var m int
	if shared, m = v32(b); m == 0 {
		return 0, 0, 0, 0
	}
	n = m
	if unshared, m = v32(b[n:]); m == 0 {
		return 0, 0, 0, 0
	}
	n += m
	if vlen, m = v32(b[n:]); m == 0 {
		return 0, 0, 0, 0
	}
	return shared, unshared, vlen, n + m
}

// eachEntry calls f for the entries of a meta block (metaindex, properties, range tombstones) with the value's offset in
// payload; key is overwritten by the next entry. It returns why the block or an entry was not accepted, or "".
func eachEntry(payload []byte, f func(key, value []byte, valueOff int) string) string {
	var key []byte
	return eachEntryIn(payload, &key, f)
}

// eachEntryIn is eachEntry with memory for the key.
func eachEntryIn(payload []byte, memory *[]byte, f func(key, value []byte, valueOff int) string) string {
	b, bad := parseBlock(payload)
	if bad != "" {
		return bad
	}
	key := (*memory)[:0]
	defer func() { *memory = key }()
	for p := 0; p < len(b.entries); {
		shared, unshared, vlen, n := entryHeader(b.entries[p:])
		if n == 0 {
			return fmt.Sprintf("entry at %d has no valid header", p)
		}
		p += n
		if uint64(shared) > uint64(len(key)) || uint64(unshared)+uint64(vlen) > uint64(len(b.entries)-p) {
			return fmt.Sprintf("entry at %d reaches beyond the block", p-n)
		}
		key = append(key[:shared], b.entries[p:p+int(unshared)]...)
		p += int(unshared)
		if bad := f(key, b.entries[p:p+int(vlen)], p); bad != "" {
			return bad
		}
		p += int(vlen)
	}
	return ""
}

// cursor walks the internal keys of data blocks. Its key buffer survives the change to the next block, so that the order
// is checked across blocks as well.
//
// Invariant: while ordered, each key is greater than the one before it by ikey.Compare.
type cursor struct {
	block
	off     int    // of the next entry
	key     []byte // encoded internal key of the current entry, valid after next returned true
	val     []byte
	tmp     []byte
	fresh   bool   // the next entry must not share bytes with the key in the buffer
	ordered bool   // key holds the predecessor of the next entry
	bad     string // why the block is damaged
}

// load starts at the first entry of b.
func (c *cursor) load(b block) {
	c.block, c.off, c.fresh, c.val = b, 0, true, nil
}

func (c *cursor) fail(format string, args ...any) bool {
	c.bad = fmt.Sprintf(format, args...)
	return false
}

// next goes to the next entry of the block. After false, bad tells whether it was the end.
func (c *cursor) next() bool {
	if c.off >= len(c.entries) {
		return false
	}
	at := c.off
	shared, unshared, vlen, n := entryHeader(c.entries[at:])
	if n == 0 {
		return c.fail("entry at %d of the block has no valid header", at)
	}
	rest := c.entries[at+n:]
	if uint64(unshared)+uint64(vlen) > uint64(len(rest)) {
		return c.fail("entry at %d of the block reaches beyond it", at)
	}
	s := int(shared)
	if c.fresh && s != 0 || s > len(c.key) {
		return c.fail("entry at %d of the block shares %d bytes with no key", at, s)
	}
	c.fresh = false
	suffix := rest[:unshared]
	size := s + len(suffix)
	if size < 8 {
		return c.fail("entry at %d of the block has a key of %d bytes, less than a trailer", at, size)
	}
	if c.ordered {
		if !c.ascends(s, suffix) {
			return c.fail("entry at %d of the block is not above its predecessor %X", at, c.key)
		}
	}
	c.ordered = true
	c.key = append(c.key[:s], suffix...)
	c.val = rest[unshared : unshared+vlen : unshared+vlen]
	c.off = at + n + int(unshared) + int(vlen)
	return true
}

// ascends tells whether the key that shares s bytes with the current one and goes on with suffix comes after it.
func (c *cursor) ascends(s int, suffix []byte) bool {
	prevUser, newUser := len(c.key)-8, s+len(suffix)-8
	if s <= prevUser && s <= newUser {
		cut := newUser - s
		if d := bytes.Compare(c.key[s:prevUser], suffix[:cut]); d != 0 {
			return d < 0
		}
		return binary.LittleEndian.Uint64(c.key[prevUser:]) > binary.LittleEndian.Uint64(suffix[cut:])
	}
	// The shared part reaches into a trailer.
	c.tmp = append(append(c.tmp[:0], c.key[:s]...), suffix...)
	return compareEncoded(c.key, c.tmp) < 0
}

// compareEncoded orders two encoded internal keys of at least 8 bytes.
func compareEncoded(a, b []byte) int {
	ka, _ := ikey.Decode(a)
	kb, _ := ikey.Decode(b)
	return ikey.Compare(ka, kb)
}

// restartKey gives the internal key at restart point i.
func (c *cursor) restartKey(i int) ([]byte, bool) {
	off := binary.LittleEndian.Uint32(c.restarts[4*i:])
	if uint64(off) >= uint64(len(c.entries)) {
		return nil, c.fail("restart point %d is at %d, beyond the entries", i, off)
	}
	b := c.entries[off:]
	shared, unshared, _, n := entryHeader(b)
	if n == 0 || shared != 0 || unshared < 8 || uint64(unshared) > uint64(len(b)-n) {
		return nil, c.fail("restart point %d at %d is no entry with a whole key", i, off)
	}
	return b[n : n+int(unshared)], true
}

// seekGE goes to the first entry whose user key is >= user. After false, bad tells whether there is none.
func (c *cursor) seekGE(user []byte) bool {
	n := len(c.restarts) / 4
	if len(c.entries) == 0 {
		return false
	}
	lo, hi := 0, n-1 // the last restart point below user, or the first
	for lo < hi {
		mid := (lo + hi + 1) / 2
		k, ok := c.restartKey(mid)
		if !ok {
			return false
		}
		if bytes.Compare(k[:len(k)-8], user) < 0 {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	c.off = int(binary.LittleEndian.Uint32(c.restarts[4*lo:]))
	c.fresh, c.ordered = true, false
	for c.next() {
		if bytes.Compare(c.key[:len(c.key)-8], user) >= 0 {
			return true
		}
	}
	return false
}

// blockBuilder makes blocks of the form above, without hash index.
type blockBuilder struct {
	interval int // entries per restart point
	buf      []byte
	restarts []uint32
	count    int // entries since the last restart point
	n        int // entries
	last     []byte
}

func (b *blockBuilder) reset() {
	b.buf, b.restarts, b.last, b.count, b.n = b.buf[:0], b.restarts[:0], b.last[:0], 0, 0
}

// add appends an entry; the caller keeps the order.
func (b *blockBuilder) add(key, value []byte) {
	shared := 0
	if b.n == 0 || b.count >= b.interval {
		b.restarts = append(b.restarts, uint32(len(b.buf)))
		b.count = 0
	} else {
		shared = commonPrefix(key, b.last)
	}
	b.count++
	b.n++
	if unshared := len(key) - shared; shared|unshared|len(value) < 0x80 {
		b.buf = append(b.buf, byte(shared), byte(unshared), byte(len(value)))
	} else {
		b.buf = binary.AppendUvarint(b.buf, uint64(shared))
		b.buf = binary.AppendUvarint(b.buf, uint64(unshared))
		b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
	}
	b.buf = append(append(b.buf, key[shared:]...), value...)
	b.last = append(b.last[:0], key...)
}

// commonPrefix is how many leading bytes a and b share.
func commonPrefix(a, b []byte) int {
	n, i := min(len(a), len(b)), 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// size is that of the finished block.
func (b *blockBuilder) size() int { return len(b.buf) + 4*max(len(b.restarts), 1) + 4 }

// sizeAfter is RocksDB's estimate of size after one more entry, imprecisions included: the cut of blocks depends on it.
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_builder.cc (EstimateSizeAfterKV).
func (b *blockBuilder) sizeAfter(key, value int) int {
	e := b.size() + key + value + 4 + uvarintLen(key) + uvarintLen(value)
	if b.count >= b.interval {
		e += 4
	}
	return e
}

func uvarintLen(v int) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// finish returns the block, which is valid until the next reset or add.
func (b *blockBuilder) finish() []byte {
	if len(b.restarts) == 0 {
		b.restarts = append(b.restarts, 0)
	}
	b.buf = slices.Grow(b.buf, 4*len(b.restarts)+4)
	for _, r := range b.restarts {
		b.buf = binary.LittleEndian.AppendUint32(b.buf, r)
	}
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(len(b.restarts)))
	return b.buf
}
