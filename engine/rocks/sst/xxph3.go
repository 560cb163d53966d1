package sst

import (
	"encoding/binary"
	"math/bits"
)

// xxphSecret is xxHash's default secret. Source: xxHash specification of XXH3; tikv/rocksdb 8.10.tikv util/xxph3.h (kSecret).
const xxphSecret = "\xb8\xfe\x6c\x39\x23\xa4\x4b\xbe\x7c\x01\x81\x2c\xf7\x21\xad\x1c\xde\xd4\x6d\xe9\x83\x90\x97\xdb\x72\x40\xa4\xa4\xb7\xb3\x67\x1f" +
	"\xcb\x79\xe6\x4e\xcc\xc0\xe5\x78\x82\x5a\xd0\x7d\xcc\xff\x72\x21\xb8\x08\x46\x74\xf7\x43\x24\x8e\xe0\x35\x90\xe6\x81\x3a\x26\x4c" +
	"\x3c\x28\x52\xbb\x91\xc3\x00\xcb\x88\xd0\x65\x8b\x1b\x53\x2e\xa3\x71\x64\x48\x97\xa2\x0d\xf9\x4e\x38\x19\xef\x46\xa9\xde\xac\xd8" +
	"\xa8\xfa\x76\x3f\xe3\x9c\x34\x3f\xf9\xdc\xbb\xc7\xc7\x0b\x4f\x1d\x8a\x51\xe0\x4b\xcd\xb4\x59\x31\xc8\x9f\x7e\xc9\xd9\x78\x73\x64" +
	"\xea\xc5\xac\x83\x34\xd3\xeb\xc3\xc5\x81\xa0\xff\xfa\x13\x63\xeb\x17\x0d\xdd\x51\xb7\xf0\xda\x49\xd3\x16\x55\x26\x29\xd4\x68\x9e" +
	"\x2b\x16\xbe\x58\x7d\x47\xa1\xfc\x8f\xf8\xb8\xd1\x7a\xd0\x31\xce\x45\xcb\x3a\x8f\x95\x16\x04\x28\xaf\xd7\xfb\xca\xbb\x4b\x40\x7e"

var (
	xxphKeys   = [len(xxphSecret)]byte([]byte(xxphSecret))
	xxphAccums = [8]uint64{uint64(xxhPrime3), xxh64Prime1, xxh64Prime2, xxh64Prime3, xxh64Prime4, uint64(xxhPrime2), xxh64Prime5, uint64(xxhPrime1)}
)

const (
	xxphStripe  = 64
	xxphBlock   = (len(xxphSecret) - xxphStripe) / 8 * xxphStripe // between two scrambles
	xxphMidsize = 240

	xxh64Prime1 uint64 = 0x9E3779B185EBCA87
	xxh64Prime2 uint64 = 0xC2B2AE3D27D4EB4F
	xxh64Prime3 uint64 = 0x165667B19E3779F9
	xxh64Prime4 uint64 = 0x85EBCA77C2B2AE63
	xxh64Prime5 uint64 = 0x27D4EB2F165667C5
)

// hash64 is RocksDB's Hash64 without seed, from which the filters of format version 5 are made: a preview of XXH3 (xxHash 0.7.2) that differs
// from the final one, and whose hash of nothing RocksDB has changed.
// Source: tikv/rocksdb 8.10.tikv util/xxph3.h (XXPH3_64bits), util/hash.cc.
func hash64(b []byte) uint64 {
	n := len(b)
	switch {
	case n > xxphMidsize:
		return xxphLong(b)
	case n > 128:
		acc := uint64(n) * xxh64Prime1
		for i := range 8 {
			acc += xxphMix(b[16*i:], 16*i)
		}
		acc = xxphAvalanche(acc)
		for i := 8; i < n/16; i++ {
			acc += xxphMix(b[16*i:], 16*(i-8)+3)
		}
		return xxphAvalanche(acc + xxphMix(b[n-16:], 136-17))
	case n > 16:
		acc := uint64(n) * xxh64Prime1
		for i := (n - 1) / 32; i >= 0; i-- {
			acc += xxphMix(b[16*i:], 32*i) + xxphMix(b[n-16*(i+1):], 32*i+16)
		}
		return xxphAvalanche(acc)
	case n > 8:
		lo, hi := binary.LittleEndian.Uint64(b)^xxphKey(0), binary.LittleEndian.Uint64(b[n-8:])^xxphKey(8)
		return xxphAvalanche(uint64(n) + lo + hi + mulFold(lo, hi))
	case n >= 4:
		v := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
		v ^= xxphKey(0)
		v = uint64(n) + (v^v>>51)*uint64(xxhPrime1)
		return xxphAvalanche((v ^ v>>47) * xxh64Prime2)
	case n > 0:
		v := uint32(b[0]) | uint32(b[n>>1])<<8 | uint32(b[n-1])<<16 | uint32(n)<<24
		return xxphAvalanche(uint64(v^uint32(xxphKey(0))) * xxh64Prime1)
	}
	return mulFold(xxphKey(0), xxh64Prime2)
}

// xxphLong hashes more than 240 bytes: stripes of 64 bytes go into eight accumulators, which are scrambled after each block.
func xxphLong(b []byte) uint64 {
	acc := xxphAccums
	n := len(b)
	rest := b
	for ; len(rest) >= xxphBlock; rest = rest[xxphBlock:] {
		for i := 0; i < xxphBlock/xxphStripe; i++ {
			xxphAccumulate(&acc, rest[i*xxphStripe:], 8*i)
		}
		for i := range acc {
			acc[i] = (acc[i] ^ acc[i]>>47 ^ xxphKey(len(xxphSecret)-xxphStripe+8*i)) * uint64(xxhPrime1)
		}
	}
	for i := 0; i < len(rest)/xxphStripe; i++ {
		xxphAccumulate(&acc, rest[i*xxphStripe:], 8*i)
	}
	if n%xxphStripe != 0 {
		xxphAccumulate(&acc, b[n-xxphStripe:], len(xxphSecret)-xxphStripe-7)
	}
	out := uint64(n) * xxh64Prime1
	for i := 0; i < 8; i += 2 {
		out += mulFold(acc[i]^xxphKey(11+8*i), acc[i+1]^xxphKey(19+8*i))
	}
	return xxphAvalanche(out)
}

func xxphAccumulate(acc *[8]uint64, b []byte, key int) {
	for i := range acc {
		v := binary.LittleEndian.Uint64(b[8*i:])
		k := v ^ xxphKey(key+8*i)
		acc[i] += v + (k&0xffffffff)*(k>>32)
	}
}

// xxphKey is the secret's word at offset i.
func xxphKey(i int) uint64 { return binary.LittleEndian.Uint64(xxphKeys[i:]) }

// xxphMix mixes 16 bytes with 16 of the secret.
func xxphMix(b []byte, key int) uint64 {
	return mulFold(binary.LittleEndian.Uint64(b)^xxphKey(key), binary.LittleEndian.Uint64(b[8:])^xxphKey(key+8))
}

func xxphAvalanche(h uint64) uint64 {
	h = (h ^ h>>37) * xxh64Prime3
	return h ^ h>>32
}

// mulFold folds the 128 bits of a product into 64.
func mulFold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
