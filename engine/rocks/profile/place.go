package profile

import (
	"bytes"
	"math"
	"sort"

	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Place is where a new table goes.
type Place struct {
	Level int
	// Old is the live file that it replaces; nil for a flush of the logs to L0.
	Old *manifest.FileMeta
}

// Tables gives the options of the tables of one column family.
type Tables struct {
	s    Settings
	cf   *manifest.CF
	last int // the deepest level that has a file; 0 when none has
	// sizes are the bytes of each level.
	sizes []uint64
}

// For binds the settings to a column family as it is before the edit: tables that are written again stay on their level.
func (s Settings) For(cf *manifest.CF) *Tables {
	t := &Tables{s: s, cf: cf, sizes: make([]uint64, len(cf.Levels))}
	for l, files := range cf.Levels {
		for _, f := range files {
			t.sizes[l] += f.Size
			t.last = l
		}
	}
	return t
}

// Options are those of a flush for L0, else those of a compaction to that level. like is the table that is replaced, or nil; it fills what
// the settings do not know before TiKV's defaults do, and keeps its creation times. Collectors, FileNumber and the times of a new table are
// the caller's. It may be called from several goroutines.
func (t *Tables) Options(at Place, like *sst.Reader) sst.WriterOptions {
	s := t.s
	if !s.whole() {
		s = s.Or(fromTable(like)).Or(Defaults(t.cf.Name))
	}
	o := sst.WriterOptions{
		CFID: t.cf.ID, CFName: t.cf.Name,
		Compression:     s.compressionOn(t, at.Level, like),
		BlockSize:       s.blockSize.v,
		RestartInterval: s.restartInterval.v,
		FormatVersion:   uint32(s.formatVersion.v),
		Checksum:        s.checksum.v,
		PrefixExtractor: s.extractor.v,
		FilterPolicy:    s.policyName(like),
		FilterForm:      s.policy.v.form(at.Level),
		FilterMillibits: s.policy.v.Millibits,
	}
	if !s.policy.v.None && !(s.skipLast.v && bottommost(t.cf, at)) {
		o.Filter = sst.Filterable(s.wholeKeys.v, s.extractor.v)
	}
	if like != nil {
		p := like.Props()
		o.CreationTime, o.OldestKeyTime, o.FileCreationTime = p.CreationTime, p.OldestKeyTime, p.FileCreationTime
	}
	return o
}

// whole tells whether nothing that a table depends on is left to other sources.
func (s *Settings) whole() bool {
	return s.compression.ok && s.levels.ok && s.skipLast.ok && s.blockSize.ok && s.restartInterval.ok && s.formatVersion.ok &&
		s.checksum.ok && s.policy.ok && s.wholeKeys.ok && s.extractor.ok
}

// policyName is the policy's name as a property.
func (s *Settings) policyName(like *sst.Reader) string {
	switch {
	case s.policy.v.None:
		return ""
	case !s.oldNames.ok && like == nil:
		return ""
	case !s.oldNames.ok:
		return like.Props().FilterPolicy
	case s.oldNames.v:
		return "rocksdb.BuiltinBloomFilter"
	case s.policy.v.Ribbon:
		return "ribbonfilter"
	}
	return "bloomfilter"
}

// compressionOn chooses the compression of a table on a level: of a flush on L0, else of a compaction.
//
// Where the list counts from the base level, that of the moment chooses, which an edit may move: then the compression of the table that is
// replaced stays if RocksDB could have chosen it for its level. The tables beside it on the level stay as well.
// Source: tikv/rocksdb 8.10.tikv db/compaction/compaction_picker.cc (GetCompressionType), db/db_impl/db_impl.cc (GetCompressionFlush); the
// same in 6.4.tikv and 6.29.tikv.
func (s *Settings) compressionOn(t *Tables, level int, like *sst.Reader) byte {
	c := s.compression.v
	if level > 0 && c.Bottommost != options.Disabled && level >= t.last {
		return writable(c.Bottommost)
	}
	if len(c.PerLevel) == 0 {
		return writable(c.Default)
	}
	from := func(base int) byte {
		i := 0
		if level > 0 {
			i = level - base + 1
		}
		return writable(c.PerLevel[max(0, min(i, len(c.PerLevel)-1))])
	}
	if s.levels.v.counts() && like != nil {
		old, ok := sst.CompressionCode(like.Props().Compression)
		for base := 1; ok && base <= level; base++ {
			if from(base) == old {
				return old
			}
		}
	}
	return from(s.levels.v.baseLevel(t.sizes))
}

// counts tells whether the base level depends on the sizes of the levels.
func (l Levels) counts() bool { return l.Dynamic && l.Leveled }

// baseLevel is the level that L0 is compacted into.
// Source: tikv/rocksdb 8.10.tikv db/version_set.cc (VersionStorageInfo::CalculateBaseBytes).
func (l Levels) baseLevel(sizes []uint64) int {
	if !l.counts() {
		return 1
	}
	num := min(l.Num, len(sizes))
	first, most := -1, uint64(0)
	for level := 1; level < num; level++ {
		if sizes[level] > 0 && first < 0 {
			first = level
		}
		most = max(most, sizes[level])
	}
	if most == 0 {
		return max(num-1, 1)
	}
	base := l.Base
	if l.CountL0 {
		base = max(base, sizes[0])
	}
	divide := func(n uint64) uint64 { return uint64(math.Floor(float64(n) / l.Multiplier)) }
	cur := most
	for level := num - 2; level >= first; level-- {
		cur = divide(cur)
	}
	if cur <= divide(base) {
		return first
	}
	level := first
	for level > 1 && cur > base {
		level--
		cur = divide(cur)
	}
	return level
}

// bottommost tells whether no file on a deeper level overlaps the user keys of the table that is replaced. A flush never is.
// Source: tikv/rocksdb 8.10.tikv db/version_set.cc (RangeMightExistAfterSortedRun, OverlapInLevel).
func bottommost(cf *manifest.CF, at Place) bool {
	if at.Level == 0 || at.Old == nil {
		return false
	}
	for level := at.Level + 1; level < len(cf.Levels); level++ {
		files := cf.Levels[level]
		i := sort.Search(len(files), func(i int) bool { return bytes.Compare(files[i].Largest.User, at.Old.Smallest.User) >= 0 })
		if i < len(files) && bytes.Compare(files[i].Smallest.User, at.Old.Largest.User) <= 0 {
			return false
		}
	}
	return true
}
