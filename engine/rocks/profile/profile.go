// Package profile says how a new table of a column family is written, as a flush or compaction of the TiKV that used the store would have
// written it on that level: compression, filter, block size, format.
//
// A Settings value is what one source knows. They are laid one behind the other with Or: the OPTIONS file that RocksDB wrote when it
// last opened the database, last_tikv.toml (TiKV's Titan prints no table options into OPTIONS), the table that is replaced, TiKV's defaults.
// OPTIONS wins over the old table: that is what the next compaction would make of it.
package profile

import (
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// known is a setting, or the lack of it.
type known[T any] struct {
	v  T
	ok bool
}

func is[T any](v T) known[T] { return known[T]{v, true} }

func (k *known[T]) or(other known[T]) {
	if !k.ok {
		*k = other
	}
}

// Settings of one column family. The zero value knows nothing.
type Settings struct {
	compression known[Compression]
	levels      known[Levels]
	skipLast    known[bool] // optimize_filters_for_hits: no filter where nothing lies below

	blockSize, restartInterval known[int] // bytes; records
	formatVersion              known[int]
	checksum                   known[sst.ChecksumType]
	policy                     known[Policy]
	oldNames                   known[bool] // RocksDB before 7.1, which names all policies alike
	wholeKeys                  known[bool]
	extractor                  known[string]

	// notes are what is done otherwise than configured, for the operator.
	notes []string
}

// Compression is what GetCompressionType chooses from.
type Compression struct {
	// PerLevel counts from L0 and, behind it, from the base level; empty: Default for all.
	PerLevel   []options.Compression
	Default    options.Compression
	Bottommost options.Compression // options.Disabled: as the level says
}

// Levels is what the base level depends on.
type Levels struct {
	Dynamic    bool // level_compaction_dynamic_level_bytes
	Leveled    bool // kCompactionStyleLevel
	Base       uint64
	Multiplier float64
	Num        int
	// CountL0: releases before 7.5 take the size of L0 for the base when it is larger.
	CountL0 bool
}

// Or fills what s does not know from t.
func (s Settings) Or(t Settings) Settings {
	s.compression.or(t.compression)
	s.levels.or(t.levels)
	s.skipLast.or(t.skipLast)
	s.blockSize.or(t.blockSize)
	s.restartInterval.or(t.restartInterval)
	s.formatVersion.or(t.formatVersion)
	s.checksum.or(t.checksum)
	s.policy.or(t.policy)
	s.oldNames.or(t.oldNames)
	s.wholeKeys.or(t.wholeKeys)
	s.extractor.or(t.extractor)
	s.notes = append(slices.Clip(s.notes), t.notes...)
	return s
}

// Notes are sentences about what new tables do not have although it is configured.
func (s Settings) Notes() []string { return s.notes }

// Missing names what no source in s knows; empty when all is known.
func (s Settings) Missing() []string {
	var out []string
	for _, m := range []struct {
		ok   bool
		what string
	}{{s.compression.ok, "compression"}, {s.blockSize.ok, "block size"}, {s.policy.ok, "filter policy"}, {s.formatVersion.ok, "format version"}} {
		if !m.ok {
			out = append(out, m.what)
		}
	}
	return out
}

func (s *Settings) notef(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// setVersion bounds a format version by what the writer has.
func (s *Settings) setVersion(v int) {
	if v < 0 {
		return
	}
	if v > sst.MaxWriterVersion {
		s.notef("new tables have format version %d instead of %d; every RocksDB that writes %d reads it", sst.MaxWriterVersion, v, v)
	}
	// Version 0 and 1 have other compressed blocks; every RocksDB of the last ten years reads 2.
	s.formatVersion = is(min(max(v, 2), sst.MaxWriterVersion))
}

// checkCompression notes what the writer does not have.
func (s *Settings) checkCompression() {
	c := s.compression.v
	used := append(slices.Clone(c.PerLevel), c.Bottommost)
	if len(c.PerLevel) == 0 {
		used = append(used, c.Default)
	}
	var other []string
	for _, t := range used {
		if t != options.Disabled && writable(t) != byte(t) && !slices.Contains(other, t.String()) {
			other = append(other, t.String())
		}
	}
	for _, name := range other {
		s.notef("new tables are compressed by kZSTD where %s is configured", name)
	}
}

// writable is the compression that the writer uses for t: ZSTD, which every TiKV reads, for those that it does not have.
func writable(t options.Compression) byte {
	switch t {
	case options.NoCompression, options.Snappy, options.LZ4, options.LZ4HC, options.ZSTD:
		return byte(t)
	}
	return sst.CompressionZSTD
}

// Defaults are TiKV's for a column family of its kv database; of others only what RocksDB would do.
// Source: tikv/tikv src/config/mod.rs (DefaultCfConfig, WriteCfConfig, LockCfConfig, RaftCfConfig), master.
func Defaults(cf string) Settings {
	const no, lz4, zstd = options.NoCompression, options.LZ4, options.ZSTD
	s := Settings{
		compression:     is(Compression{PerLevel: []options.Compression{no, no, lz4, lz4, lz4, zstd, zstd}, Bottommost: zstd}),
		levels:          is(Levels{Dynamic: true, Leveled: true, Base: 512 << 20, Multiplier: 10, Num: 7}),
		skipLast:        is(cf == "default" || cf == "raft"),
		blockSize:       is(sst.DefaultBlockSize),
		restartInterval: is(16),
		formatVersion:   is(2),
		checksum:        is(sst.ChecksumCRC32C),
		policy:          is(Policy{Millibits: sst.DefaultFilterMillibits}),
		wholeKeys:       is(true),
		extractor:       is("nullptr"),
	}
	switch cf {
	case "write":
		s.wholeKeys, s.extractor = is(false), is("FixedSuffixSliceTransform")
	case "lock", "raft":
		s.compression = is(Compression{PerLevel: []options.Compression{no, no, no, no, no, no, no}, Bottommost: options.Disabled})
		s.levels.v.Base = 128 << 20
		s.blockSize, s.extractor = is(16<<10), is("NoopSliceTransform")
	}
	return s
}

// fromTable is what an old table tells; r may be nil. Its filter says nothing when it has none: where a level is the last, it may have been
// left out.
func fromTable(r *sst.Reader) Settings {
	if r == nil {
		return Settings{}
	}
	o := sst.OptionsLike(r)
	s := Settings{
		compression: is(Compression{Default: options.Compression(o.Compression), Bottommost: options.Disabled}),
		blockSize:   is(o.BlockSize),
		checksum:    is(o.Checksum),
	}
	s.formatVersion = is(int(o.FormatVersion))
	if o.PrefixExtractor != "" {
		s.extractor = is(o.PrefixExtractor)
	}
	if o.Filter != sst.FilterNone {
		p := Policy{Millibits: o.FilterMillibits}
		switch fast := o.FilterForm == sst.FormFastBloom; {
		case o.FilterForm == sst.FormRibbon:
			p.Ribbon, p.BloomBefore = true, -1
		case fast != (r.Version() >= 5):
			p.Bloom = o.FilterForm // not what the format version goes with
		}
		s.policy, s.wholeKeys = is(p), is(o.Filter != sst.FilterPrefix)
	}
	return s
}
