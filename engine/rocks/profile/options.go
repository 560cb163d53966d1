package profile

import (
	"fmt"
	"strconv"

	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// checksums by their names in OPTIONS and in last_tikv.toml.
var checksums = map[string]sst.ChecksumType{
	"kCRC32c": sst.ChecksumCRC32C, "kxxHash": sst.ChecksumXXH32, "kxxHash64": sst.ChecksumXXH64, "kXXH3": sst.ChecksumXXH3,
	"crc32c": sst.ChecksumCRC32C, "xxhash": sst.ChecksumXXH32, "xxhash64": sst.ChecksumXXH64, "xxh3": sst.ChecksumXXH3,
	// No checksum at all is not taken over: it would leave what was saved unprotected, and every reader goes by the footer.
	"kNoChecksum": sst.ChecksumCRC32C, "no": sst.ChecksumCRC32C,
}

// FromOptions is what an OPTIONS file says of a column family; o may be nil.
func FromOptions(o *options.Options, cf string) Settings {
	var s Settings
	if o == nil {
		return s
	}
	c := o.Lookup(cf)
	if c == nil {
		return s
	}
	if c.Values["compression"] != "" || c.Values["compression_per_level"] != "" {
		s.compression = is(Compression{PerLevel: c.CompressionPerLevel, Default: c.Compression, Bottommost: c.BottommostCompression})
		s.checkCompression()
	}
	base, err1 := strconv.ParseUint(c.Values["max_bytes_for_level_base"], 10, 64)
	mult, err2 := strconv.ParseFloat(c.Values["max_bytes_for_level_multiplier"], 64)
	if err1 == nil && err2 == nil && mult > 0 && c.NumLevels > 0 {
		s.levels = is(Levels{Dynamic: c.DynamicLevelBytes, Leveled: c.Values["compaction_style"] == "kCompactionStyleLevel",
			Base: base, Multiplier: mult, Num: c.NumLevels, CountL0: before(o.RocksDBVersion, 7, 5)})
	}
	if v, ok := c.Values["optimize_filters_for_hits"]; ok {
		s.skipLast = is(v == "true")
	}
	if e := c.PrefixExtractor; e != "" {
		s.extractor = is(e)
		if e != "nullptr" && !sst.HasPrefix(e) {
			s.notef("the prefixes of %s (%s) are not known: new tables have no filter there, which is slower until they are compacted, never wrong", clip(e), cf)
		}
	}
	if o.RocksDBVersion != "" {
		s.oldNames = is(before(o.RocksDBVersion, 7, 1))
	}
	t := c.Table
	if !t.Known {
		return s
	}
	if t.BlockSize > 0 && t.BlockSize < 1<<30 {
		s.blockSize = is(int(t.BlockSize))
	}
	if n, err := strconv.Atoi(t.Values["block_restart_interval"]); err == nil && n > 0 && n < 1<<20 {
		s.restartInterval = is(n)
	}
	if t.Values["format_version"] != "" {
		s.setVersion(t.FormatVersion)
	}
	if sum, ok := checksums[t.Checksum]; ok {
		s.checksum = is(sum)
	}
	if v, ok := t.Values["whole_key_filtering"]; ok {
		s.wholeKeys = is(v == "true")
	}
	if t.IndexType == "kTwoLevelIndexSearch" || t.Values["partition_filters"] == "true" {
		s.notef("new tables of %s have one index and one filter each instead of partitions; every RocksDB reads that", cf)
	}
	if text, ok := t.Values["filter_policy"]; ok {
		p, err := ParsePolicy(text)
		if err != nil {
			s.notef("%v; new tables of %s have the filter that last_tikv.toml, the table that they replace, or TiKV's defaults say", err, cf)
		}
		if err == nil && (p.None || p.Millibits > 0) { // bits that are not known are left to the next source
			s.policy = is(p)
		}
	}
	return s
}

// before tells whether a release is older than major.minor; one that cannot be read is not.
func before(version string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 || err != nil {
		return false
	}
	return a < major || a == major && b < minor
}

// TiKV is a column family's part of last_tikv.toml. Zero values are settings that are not there.
type TiKV struct {
	BlockSize           uint64
	CompressionPerLevel []string // "no", "lz4", "zstd", ...
	Bottommost          string   // "disable", "zstd", ...
	HasFilter           bool     // UseBloomFilter is there
	UseBloomFilter      bool
	BitsPerKey          int
	WholeKeyFiltering   bool
	RibbonAboveLevel    int // -1: no Ribbon filters
	FormatVersion       int
	Checksum            string
	HasHits             bool // OptimizeFiltersForHits is there
	OptimizeForHits     bool
	Dynamic             bool
	LevelBase           uint64
	Multiplier          float64
	NumLevels           int
}

// FromTiKV is what last_tikv.toml says of a column family.
// Source: tikv/tikv src/config/mod.rs (build_cf_opt); compression by the names of serde in components/engine_rocks/src/config.rs.
func FromTiKV(c TiKV) Settings {
	var s Settings
	if c.BlockSize == 0 {
		return s // there is no such section
	}
	if c.BlockSize < 1<<30 {
		s.blockSize = is(int(c.BlockSize))
	}
	s.restartInterval = is(16) // RocksDB's default, for which TiKV has no setting
	names := map[string]options.Compression{
		"no": options.NoCompression, "snappy": options.Snappy, "zlib": options.Zlib, "bzip2": options.BZip2, "lz4": options.LZ4,
		"lz4hc": options.LZ4HC, "zstd": options.ZSTD, "zstd-not-final": options.ZSTDNotFinal, "disable": options.Disabled,
	}
	if len(c.CompressionPerLevel) > 0 {
		z := Compression{Default: options.Snappy, Bottommost: options.Disabled}
		all := true
		for _, n := range c.CompressionPerLevel {
			t, ok := names[n]
			all = all && ok
			z.PerLevel = append(z.PerLevel, t)
		}
		if t, ok := names[c.Bottommost]; ok {
			z.Bottommost = t
		}
		if all {
			s.compression = is(z)
			s.checkCompression()
		}
	}
	if c.FormatVersion > 0 {
		s.setVersion(c.FormatVersion)
	}
	if sum, ok := checksums[c.Checksum]; ok {
		s.checksum = is(sum)
	}
	if c.LevelBase > 0 && c.Multiplier > 0 && c.NumLevels > 0 {
		s.levels = is(Levels{Dynamic: c.Dynamic, Leveled: true, Base: c.LevelBase, Multiplier: c.Multiplier, Num: c.NumLevels})
	}
	if c.HasHits {
		s.skipLast = is(c.OptimizeForHits)
	}
	switch {
	case !c.HasFilter:
	case !c.UseBloomFilter:
		s.policy, s.wholeKeys = is(Policy{None: true}), is(true)
	case c.BitsPerKey > 0:
		p := Policy{Millibits: millibits(float64(c.BitsPerKey))}
		if c.RibbonAboveLevel >= 0 {
			p.Ribbon, p.BloomBefore = true, c.RibbonAboveLevel-1
		}
		s.policy, s.wholeKeys = is(p), is(c.WholeKeyFiltering)
	}
	return s
}
