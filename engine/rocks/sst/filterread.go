package sst

import (
	"encoding/binary"
	"math/bits"
)

// Filter is the filter of a table, as RocksDB asks it.
type Filter struct {
	data   []byte // without the metadata
	form   FilterForm
	probes int
	line   uint32 // bytes of a line of the legacy form
	seed   uint8
	lay    ribbonLayout
	always bool // answers the same for every key: may
	may    bool

	// WholeKeys and Prefixes are what the properties say that it holds.
	WholeKeys, Prefixes bool
	extract             extractor
}

// Filter reads the full filter of a table; nil when it has none. Filters of other kinds (partitioned, per block) are not read: nil.
func (r *Reader) Filter() (*Filter, error) {
	h, ok := r.filter()
	if !ok {
		return nil, nil
	}
	b, err := r.metaBlock(h)
	if err != nil {
		return nil, err
	}
	f := parseFilter(b)
	f.WholeKeys, f.Prefixes, f.extract = r.props.WholeKeyFilter, r.props.PrefixFilter, extractorOf(r.props.PrefixExtractor)
	return &f, nil
}

// parseFilter decodes a filter block, see legacyBloom, fastBloom and ribbon. What is not known, or contradicts itself, holds every key; a
// block that is too short holds none. Source: tikv/rocksdb 8.10.tikv table/block_based/filter_policy.cc
// (BuiltinFilterPolicy::GetBuiltinFilterBitsReader).
func parseFilter(b []byte) Filter {
	n := len(b) - filterTail
	if n <= 0 {
		return Filter{always: true}
	}
	f, meta := Filter{data: b[:n]}, b[n:]
	switch mark := meta[0]; {
	case mark == markFastBloom:
		f.form, f.probes = FormFastBloom, int(meta[2]&31)
		if meta[1] != 0 || meta[2]>>5 != 0 || f.probes < 1 || f.probes > 30 || meta[3]|meta[4] != 0 || n < bloomLineBytes {
			return Filter{always: true, may: true}
		}
	case mark == markRibbon:
		blocks := int(meta[2]) | int(meta[3])<<8 | int(meta[4])<<16
		if blocks < 2 || n < ribbonSegment {
			return Filter{always: true, may: true}
		}
		f.form, f.seed, f.lay = FormRibbon, meta[1], ribbonLayoutOf(blocks, n/ribbonSegment)
	case mark == 0 || mark > 127:
		return Filter{always: true, may: true}
	default:
		lines := binary.LittleEndian.Uint32(meta[1:])
		if lines == 0 || uint64(n)%uint64(lines) != 0 || bits.OnesCount32(uint32(uint64(n)/uint64(lines))) != 1 {
			return Filter{always: true, may: true}
		}
		f.form, f.probes, f.line = FormLegacyBloom, int(mark), uint32(uint64(n)/uint64(lines))
	}
	return f
}

// Form tells how the filter is built; a Ribbon policy may have fallen back to FormFastBloom.
func (f *Filter) Form() FilterForm { return f.form }

// MayHold asks for what was added: a whole key, or a prefix. False: it was not.
func (f *Filter) MayHold(key []byte) bool {
	switch {
	case f.always:
		return f.may
	case f.form == FormRibbon:
		return ribbonMayHold(f.data, f.lay, f.seed, hash64(key))
	case f.form == FormFastBloom:
		h := hash64(key)
		line := f.data[(uint64(uint32(h))*uint64(len(f.data)/bloomLineBytes)>>32)*bloomLineBytes:][:bloomLineBytes]
		p := uint32(h >> 32)
		for range f.probes {
			if line[p>>26]>>(p>>23&7)&1 == 0 {
				return false
			}
			p *= bloomGolden
		}
		return true
	}
	h := bloomHash(key)
	line := f.data[h%(uint32(len(f.data))/f.line)*f.line:][:f.line]
	delta := bits.RotateLeft32(h, -17)
	for range f.probes {
		if bit := h & (f.line*8 - 1); line[bit/8]>>(bit%8)&1 == 0 {
			return false
		}
		h += delta
	}
	return true
}

// MayHoldKey asks in every way in which a reader may ask for a user key: for its prefix also where the property says that there are none,
// see filterable. False: the table does not hold it.
func (f *Filter) MayHoldKey(user []byte) bool {
	if f.WholeKeys && !f.MayHold(user) {
		return false
	}
	if f.extract == nil {
		return true
	}
	prefix, ok := f.extract(user)
	return !ok || f.MayHold(prefix)
}

// Denied is a user key of the batch that a reader of the table would not find because of the filter; nil when there is none. What
// neighbours share is asked once.
func (f *Filter) Denied(b *Batch) []byte {
	before := -1 // length of the prefix of the record before, -1 without one
	for i := range b.Len() {
		user := b.User(i)
		if f.WholeKeys && !(i > 0 && len(b.User(i-1)) == len(user) && b.Shares(i, len(user))) && !f.MayHold(user) {
			return user
		}
		if f.extract == nil {
			continue
		}
		prefix, ok := f.extract(user)
		if !ok {
			before = -1
			continue
		}
		if n := len(prefix); n != before || !b.Shares(i, n) { // a prefix is always the begin of its key
			if before = n; !f.MayHold(prefix) {
				return user
			}
		}
	}
	return nil
}
