package scan

import (
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// TimeBounds are the timestamps that the properties of one family's tables promise, see mvcc.PropTS.
type TimeBounds struct {
	heads *rocks.Heads
	// Newest is the table with the highest number, nil without any table: a sample of what this TiKV writes.
	Newest *manifest.FileMeta
}

// TimeBound says that every point entry of a table lies within [Min, Max], if Trust.
type TimeBound struct {
	Min, Max mvcc.TS
	Trust    bool
}

// Of gives the bound of a file.
func (b *TimeBounds) Of(number uint64) TimeBound {
	h := b.heads.Of(number)
	return TimeBound{mvcc.TS(h.Min), mvcc.TS(h.Max), h.Trust}
}

// boundOf reads the values of mvcc.PropTSNames. Range tombstones have no timestamp; they are kept and applied apart, so that they do not
// spoil the bound.
func boundOf(values [][]byte) rocks.Bound {
	lo, hi, trust := mvcc.PropTSValues(values, 0)
	return rocks.Bound{Min: uint64(lo), Max: uint64(hi), Trust: trust}
}

// TimeBounds reads the properties of all tables of a family, once for as long as the store is open.
func (s *Store) TimeBounds(name string) (*TimeBounds, error) {
	s.boundsMu.Lock()
	defer s.boundsMu.Unlock()
	if b := s.bounds[name]; b != nil {
		return b, nil
	}
	cf := s.DB.CF(name)
	heads, err := cf.Heads()
	if err != nil {
		return nil, err
	}
	b := &TimeBounds{heads: heads}
	for _, f := range cf.Files() {
		if b.Newest == nil || f.Number > b.Newest.Number {
			b.Newest = f.FileMeta
		}
	}
	if s.bounds == nil {
		s.bounds = map[string]*TimeBounds{}
	}
	s.bounds[name] = b
	return b, nil
}
