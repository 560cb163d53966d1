package profile

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Policy is a filter policy.
type Policy struct {
	None      bool
	Millibits int // thousandths of a bit a key; of Ribbon: of the equivalent Bloom filter. 0: the source does not know them
	// Bloom is the form of a Bloom filter: by the format version (FormBloom) unless an internal policy names one.
	Bloom sst.FilterForm
	// Ribbon filters are written from level BloomBefore on, fast local Bloom filters above. A flush counts as level -1.
	Ribbon      bool
	BloomBefore int
}

// form is the filter's on a level; what goes to L0 is taken for a flush.
// Source: tikv/rocksdb 8.10.tikv table/block_based/filter_policy.cc (RibbonFilterPolicy::GetBuilderWithContext), 6.29.tikv the same in
// LevelThresholdFilterPolicy.
func (p Policy) form(level int) sst.FilterForm {
	if !p.Ribbon {
		return p.Bloom
	}
	if level == 0 {
		level = -1
	}
	if level < p.BloomBefore {
		return sst.FormFastBloom
	}
	return sst.FormRibbon
}

// ParsePolicy reads a filter policy as RocksDB's options write it:
//
//	nullptr, ""                                     none
//	rocksdb.BuiltinBloomFilter                      Bloom or Ribbon, not known how (6.x writes no more): Millibits 0
//	bloomfilter:BITS[:BOOL], rocksdb.BloomFilter:…  Bloom
//	ribbonfilter:BITS[:LEVEL], rocksdb.RibbonFilter:…
//	{bloom_before_level=LEVEL;id=ribbonfilter:…}    an option outside of the id wins
//	rocksdb.internal.{LegacyBloom,FastLocalBloom,Standard128Ribbon}Filter:BITS
//
// BITS below 0.5 mean no filter; they are bounded to 1 to 100, in steps of 0.001.
// Source: tikv/rocksdb 8.10.tikv table/block_based/filter_policy.cc (RegisterBuiltinFilterPolicies, BloomLikeFilterPolicy); 6.29.tikv
// table/block_based/block_based_table_factory.cc, 6.4.tikv options/options_helper.cc (both print the name).
func ParsePolicy(text string) (Policy, error) {
	text = strings.TrimSpace(text)
	id, level := text, ""
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		id = ""
		for _, f := range strings.Split(strings.TrimSuffix(inner, "}"), ";") {
			switch k, v, _ := strings.Cut(f, "="); strings.TrimSpace(k) {
			case "id":
				id = strings.TrimSpace(v)
			case "bloom_before_level":
				level = strings.TrimSpace(v)
			}
		}
	}
	if id == "" && id == text || id == "nullptr" {
		return Policy{None: true}, nil
	}
	f := strings.Split(id, ":")
	var p Policy
	switch f[0] {
	case "rocksdb.BuiltinBloomFilter":
		return Policy{}, nil
	case "bloomfilter", "rocksdb.BloomFilter":
	case "ribbonfilter", "rocksdb.RibbonFilter":
		p.Ribbon = true // bloom_before_level is 0 by default
		if len(f) == 3 {
			level = either(level, f[2])
		}
	case "rocksdb.internal.LegacyBloomFilter":
		p.Bloom = sst.FormLegacyBloom
	case "rocksdb.internal.FastLocalBloomFilter":
		p.Bloom = sst.FormFastBloom
	case "rocksdb.internal.Standard128RibbonFilter":
		p.Ribbon, p.BloomBefore = true, -1
	default:
		return Policy{}, fmt.Errorf("filter policy %q is not known", clip(text))
	}
	if len(f) < 2 || len(f) > 3 {
		return Policy{}, fmt.Errorf("filter policy %q has no bits a key", clip(text))
	}
	bits, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return Policy{}, fmt.Errorf("filter policy %q has no bits a key", clip(text))
	}
	if p.Ribbon && level != "" {
		if p.BloomBefore, err = strconv.Atoi(level); err != nil {
			return Policy{}, fmt.Errorf("filter policy %q has no level", clip(text))
		}
	}
	if p.Millibits = millibits(bits); p.Millibits == 0 {
		return Policy{None: true}, nil
	}
	return p, nil
}

// millibits bounds bits a key as RocksDB does; 0 is no filter.
func millibits(bits float64) int {
	switch {
	case bits < 0.5:
		return 0
	case bits < 1:
		bits = 1
	case !(bits < 100): // not a number, too
		bits = 100
	}
	return int(math.Floor(bits*1000 + 0.500001))
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// clip keeps a damaged file from flooding a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
