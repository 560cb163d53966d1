package repair

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/profile"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// tableOptions are those of a new table: as the TiKV of this store would have written it there. like is the table that it replaces, or nil.
func (w *Rewinder) tableOptions(cf *rocks.CF, at profile.Place, like *sst.Reader) sst.WriterOptions {
	name := cf.Meta.Name
	t, ok := w.tables.Load(name)
	if !ok {
		t, _ = w.tables.LoadOrStore(name, tableSettings(w.store.Layout, name).For(cf.Meta))
	}
	return t.(*profile.Tables).Options(at, like)
}

// tableSettings are what OPTIONS and, behind it, last_tikv.toml say of the tables of a family.
func tableSettings(l *engine.Layout, cf string) profile.Settings {
	s := profile.FromOptions(l.Options, cf)
	if l.Config == nil {
		return s
	}
	c := l.Config.KV.CFs[cf]
	return s.Or(profile.FromTiKV(profile.TiKV{
		BlockSize: c.BlockSize, CompressionPerLevel: c.CompressionPerLevel, Bottommost: c.BottommostLevelCompression,
		HasFilter: c.HasFilter, UseBloomFilter: c.UseBloomFilter, BitsPerKey: c.BloomFilterBitsPerKey, WholeKeyFiltering: c.WholeKeyFiltering,
		RibbonAboveLevel: c.RibbonFilterAboveLevel, FormatVersion: c.FormatVersion, Checksum: c.Checksum,
		HasHits: c.HasHits, OptimizeForHits: c.OptimizeFiltersForHits,
		Dynamic: c.DynamicLevelBytes, LevelBase: c.MaxBytesForLevelBase, Multiplier: float64(c.MaxBytesForLevelMultiplier), NumLevels: c.NumLevels,
	}))
}

// tableNotes say what new tables do not have although it is configured, and what nobody has configured.
func tableNotes(l *engine.Layout, cfs []string) []string {
	var out, unknown []string
	for _, cf := range cfs {
		s := tableSettings(l, cf)
		for _, n := range s.Notes() {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
		if m := s.Missing(); len(m) > 0 {
			unknown = append(unknown, fmt.Sprintf("%s (%s)", cf, strings.Join(m, ", ")))
		}
	}
	if len(unknown) > 0 {
		out = append(out, "neither the OPTIONS file nor last_tikv.toml says how the tables of some column families are written; new ones follow those "+
			"that they replace, then TiKV's defaults: "+strings.Join(unknown, "; "))
	}
	return out
}
