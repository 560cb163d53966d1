package sst

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// ribbon makes the filter block that RocksDB's Ribbon policy writes (Standard128 Ribbon), bit for bit; nil where RocksDB falls back to
// the fast local Bloom form: tables of few keys, for which it is smaller, of more than 950 million, and keys that no seed solves.
//
//	+------------------------------------------------------------+---------+---------+------------+
//	| per block of 128 slots its columns, 16 bytes LE each       | FE:     | seed u8 | blocks u24 |
//	| (the first blocks may have one column less than the rest)  | Ribbon  |         | LE         |
//	+------------------------------------------------------------+---------+---------+------------+
//
// Each key stands for an equation modulo 2: 128 coefficients, of which the first is 1, from a start slot on, and a result row of up to
// 32 bits; all three come from its hash and the seed. The equations are solved by Gaussian elimination as they come ("banding") and then
// backwards, a column of the solution for each bit of the result. A query multiplies the coefficients with the stored columns and compares.
// How many columns follows from the false positive rate that a Bloom filter of as many bits a key would have.
// Source: tikv/rocksdb 8.10.tikv table/block_based/filter_policy.cc (Standard128RibbonBitsBuilder), util/ribbon_alg.h, util/ribbon_impl.h,
// util/ribbon_config.cc.
func ribbon(hashes []uint64, millibits int) []byte {
	if len(hashes) == 0 || len(hashes) > maxRibbonEntries {
		return nil
	}
	slots := ribbonSlots(len(hashes))
	size := ribbonBytes(slots, ribbonOneIn(millibits), uint32(hashes[0]>>32))
	if slots < 1024 && fastBloomBytes(len(hashes), millibits) < size {
		return nil
	}
	b := banding{rows: make([]coeffs, slots), results: make([]uint32, slots)}
	first := uint8(hashes[0])
	for i := range 256 {
		seed := first + uint8(i)
		if b.solve(hashes, seed) {
			return b.columns(size, seed)
		}
	}
	return nil
}

const (
	maxRibbonEntries = 950_000_000
	ribbonWidth      = 128 // coefficients of an equation, and slots of a block
	ribbonSegment    = ribbonWidth / 8
	maxRibbonColumns = 32

	ribbonSeedFactor   uint64 = 0xc78219a23eeadd03
	ribbonRehashFactor uint64 = 0x6193d459236a3a0d
	ribbonRowFactor    uint64 = 0xc28f82822b650bed
	ribbonRowXor       uint64 = 0xc367844a6e52731d
)

// coeffs are 128 coefficients; that of the first slot is the lowest bit.
type coeffs struct{ lo, hi uint64 }

func (c coeffs) zero() bool { return c.lo|c.hi == 0 }

func (c coeffs) shiftRight(n int) coeffs {
	if n >= 64 {
		return coeffs{lo: c.hi >> (n - 64)}
	}
	return coeffs{lo: c.lo>>n | c.hi<<(64-n), hi: c.hi >> n}
}

func (c coeffs) shiftLeft(n int) coeffs {
	if n >= 64 {
		return coeffs{hi: c.lo << (n - 64)}
	}
	return coeffs{lo: c.lo << n, hi: c.hi<<n | c.lo>>(64-n)}
}

func (c coeffs) trailingZeros() int {
	if c.lo != 0 {
		return bits.TrailingZeros64(c.lo)
	}
	return 64 + bits.TrailingZeros64(c.hi)
}

// times is the product modulo 2 of two rows: the parity of the bits that both have.
func (c coeffs) times(d coeffs) uint32 {
	return uint32(bits.OnesCount64(c.lo&d.lo^c.hi&d.hi)) & 1
}

// rawSeed spreads an ordinal seed. Source: util/ribbon_impl.h (StandardHasher::SetOrdinalSeed).
func rawSeed(ordinal uint8) uint32 {
	v := uint64(ordinal) * ribbonSeedFactor
	return uint32(v ^ v&0xf0f0f0f0f0f0f0f0>>4)
}

// ribbonEquation gives the equation of a key. Source: util/ribbon_impl.h (StandardRehasherAdapter::HashFn, StandardHasher).
func ribbonEquation(hash uint64, seed uint32, starts uint64) (start uint32, c coeffs, result uint32) {
	h := (hash ^ uint64(seed)) * ribbonRehashFactor
	at, _ := bits.Mul64(h, starts)
	a := h * ribbonRowFactor
	return uint32(at), coeffs{lo: (a ^ ribbonRowXor) | 1, hi: a}, bits.ReverseBytes32(uint32(a >> 32))
}

// banding is the system of equations in row echelon form: the row of a slot is zero or begins with a one.
type banding struct {
	rows    []coeffs
	results []uint32
}

// solve adds the equations of all keys under a seed. False: two of them contradict each other.
func (b *banding) solve(hashes []uint64, ordinal uint8) bool {
	clear(b.rows)
	clear(b.results)
	seed, starts := rawSeed(ordinal), uint64(len(b.rows)-ribbonWidth+1)
	for _, h := range hashes {
		if !b.add(ribbonEquation(h, seed, starts)) {
			return false
		}
	}
	return true
}

func (b *banding) add(at uint32, c coeffs, result uint32) bool {
	for {
		row := b.rows[at]
		if row.zero() {
			b.rows[at], b.results[at] = c, result
			return true
		}
		c.lo ^= row.lo
		c.hi ^= row.hi
		result ^= b.results[at]
		if c.zero() {
			return result == 0 // the same key twice, or the sum of other equations
		}
		n := c.trailingZeros()
		at += uint32(n)
		c = c.shiftRight(n)
	}
}

// columns solves the system from its end and gives the filter block.
func (b *banding) columns(size int, seed uint8) []byte {
	lay := ribbonLayoutOf(len(b.rows)/ribbonWidth, size/ribbonSegment)
	out := make([]byte, size, size+filterTail+trailerSize)
	var state [maxRibbonColumns]coeffs
	segment := lay.segments
	for block := lay.blocks - 1; block >= 0; block-- {
		cols := state[:lay.columnsOf(block)]
		for i := (block+1)*ribbonWidth - 1; i >= block*ribbonWidth; i-- {
			row, result := b.rows[i], b.results[i]
			for j := range cols {
				s := &cols[j]
				s.hi = s.hi<<1 | s.lo>>63
				s.lo <<= 1
				s.lo |= uint64(s.times(row) ^ result>>j&1)
			}
		}
		segment -= len(cols)
		for j, s := range cols {
			p := out[(segment+j)*ribbonSegment:]
			binary.LittleEndian.PutUint64(p, s.lo)
			binary.LittleEndian.PutUint64(p[8:], s.hi)
		}
	}
	return append(out, markRibbon, seed, byte(lay.blocks), byte(lay.blocks>>8), byte(lay.blocks>>16))
}

// ribbonLayout tells which segments a block has: columns of them, one less in the blocks below upper.
// Invariant: upper < blocks, segments = blocks*columns - upper.
type ribbonLayout struct{ blocks, segments, columns, upper int }

// ribbonLayoutOf derives the layout from what the metadata says and from the size. Source: util/ribbon_impl.h
// (SerializableInterleavedSolution::InternalConfigure).
func ribbonLayoutOf(blocks, segments int) ribbonLayout {
	l := ribbonLayout{blocks: blocks, segments: segments, columns: (segments + blocks - 1) / blocks}
	l.upper = l.columns*blocks - segments
	if l.columns > maxRibbonColumns {
		l.columns, l.upper, l.segments = maxRibbonColumns, 0, blocks*maxRibbonColumns
	}
	return l
}

func (l ribbonLayout) columnsOf(block int) int {
	if block < l.upper {
		return l.columns - 1
	}
	return l.columns
}

// ribbonMayHold asks a Ribbon filter: bits without the metadata. Source: util/ribbon_alg.h (InterleavedFilterQuery).
func ribbonMayHold(data []byte, lay ribbonLayout, seed uint8, hash uint64) bool {
	at, c, result := ribbonEquation(hash, rawSeed(seed), uint64((lay.blocks-1)*ribbonWidth+1))
	block, shift := int(at)/ribbonWidth, int(at)%ribbonWidth
	segment := block*lay.columns - min(block, lay.upper)
	n := lay.columnsOf(block)
	// The bits that reach into the next block stand in the first segments there: as many as this block has.
	left, right := c.shiftLeft(shift), coeffs{}
	if shift > 0 {
		right = c.shiftRight(ribbonWidth - shift)
	}
	load := func(i int) coeffs {
		p := data[i*ribbonSegment:]
		return coeffs{binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])}
	}
	for i := range n {
		bit := left.times(load(segment + i))
		if shift > 0 {
			bit ^= right.times(load(segment + n + i))
		}
		if bit != result>>i&1 {
			return false
		}
	}
	return true
}

// ribbonKnown is, for powers of two of slots, how many keys can be added with one failure in twenty seeds.
// Source: util/ribbon_config.cc (BandingConfigHelperData<kOneIn20, 128, false>).
var ribbonKnown = [18]float64{8: 248.851, 499.532, 1001.26, 2003.97, 4005.59, 8000.39, 15966.6, 31828.1, 63447.3, 126506}

// ribbonAddable extends ribbonKnown.
func ribbonAddable(log2Slots int) float64 {
	last := len(ribbonKnown) - 1
	if log2Slots <= last {
		return ribbonKnown[log2Slots]
	}
	const perDoubling = 0.0038
	base := float64(uint64(1)<<last)/ribbonKnown[last] - float64(last)*perDoubling
	return float64(uint64(1)<<log2Slots) / (base + float64(float64(log2Slots)*perDoubling))
}

// ribbonSlots is the number of slots for n keys: a multiple of 128, at least 256. The conversions of products keep compilers from fusing
// them into a more exact operation: RocksDB's compilers do not.
// Source: util/ribbon_config.cc (GetNumSlots), util/ribbon_impl.h (RoundUpNumSlots).
func ribbonSlots(n int) int {
	slots := 2 * ribbonWidth
	lg := int(float64(math.Log(float64(n))*1.4426950409) + 0.5)
	if lower := ribbonAddable(lg); lg > 0 && lower > 0 {
		var upper float64
		if float64(n) < lower {
			upper = lower
			lg--
			lower = ribbonAddable(lg)
		} else {
			upper = ribbonAddable(lg + 1)
		}
		portion := (float64(n) - lower) / (upper - lower)
		whole := float64(uint64(1) << lg)
		slots = int(float64(portion*whole) + whole + 0.999999999)
	}
	return max((slots+ribbonWidth-1)/ribbonWidth*ribbonWidth, 2*ribbonWidth)
}

// ribbonOneIn is 1 / the false positive rate that a fast local Bloom filter of so many bits would have.
// Source: table/block_based/filter_policy.cc (BloomLikeFilterPolicy), util/bloom_impl.h (BloomMath).
func ribbonOneIn(millibits int) float64 {
	probes := float64(fastBloomProbes(millibits))
	rate := func(bitsPerKey float64) float64 {
		return math.Pow(1-math.Exp(-probes/bitsPerKey), probes)
	}
	perLine := bloomLineBits / (float64(millibits) / 1000)
	dev := math.Sqrt(perLine)
	return 1 / ((rate(bloomLineBits/(perLine+dev)) + rate(bloomLineBits/(perLine-dev))) / 2)
}

// ribbonBytes is the size of the columns. round, from the hash of the first key, decides where the rate cannot be met exactly.
// Source: util/ribbon_impl.h (InternalGetBytesForFpRate).
func ribbonBytes(slots int, oneIn float64, round uint32) int {
	if !(oneIn > 1) {
		return ribbonSegment
	}
	if oneIn > math.MaxUint32 {
		return slots * 4
	}
	lowerColumns := bits.Len32(uint32(oneIn)) - 1
	lowerRate, upperRate := math.Ldexp(1, -lowerColumns), math.Ldexp(1, -lowerColumns-1)
	portion := (1/oneIn - upperRate) / (lowerRate - upperRate)
	bias := (float64(round) + 0.5) / (1 << 32)
	upper := int((float64(portion*float64(slots-ribbonWidth+1)) + bias) / ribbonWidth)
	blocks := slots / ribbonWidth
	return (blocks*lowerColumns + blocks - upper) * ribbonSegment
}
