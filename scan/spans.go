package scan

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// span is a half-open range of database keys.
type span struct{ lower, upper []byte }

// liveSpans are the ranges of the live regions, ascending, neighbours joined. Clients cannot read anything else.
func (s *Store) liveSpans() []span {
	var out []span
	for _, r := range s.liveByStart() {
		lower, upper := r.Bounds()
		if n := len(out); n > 0 && bytes.Compare(lower, out[n-1].upper) <= 0 {
			if bytes.Compare(upper, out[n-1].upper) > 0 {
				out[n-1].upper = upper
			}
			continue
		}
		out = append(out, span{lower, upper})
	}
	return out
}

// segment is a span with one kind of keys in it.
type segment struct {
	span
	raw RawMode
}

// segments clips the live spans to [lower, upper) and cuts them where the kind of keys changes.
func (v *View) segments(lower, upper []byte) []segment {
	var out []segment
	for _, s := range v.spans {
		if lower != nil && bytes.Compare(s.lower, lower) < 0 {
			s.lower = lower
		}
		if upper != nil && bytes.Compare(s.upper, upper) > 0 {
			s.upper = upper
		}
		cuts := []segment{{s, v.Raw}}
		if v.Raw == RawV2 {
			// All API V2 raw keys begin with 'r', and so do their encoded forms; everything else is transactional.
			from, to := []byte{mvcc.DataPrefix, 'r'}, []byte{mvcc.DataPrefix, 'r' + 1}
			cuts = []segment{
				{span{s.lower, least(s.upper, from)}, RawNone},
				{span{most(s.lower, from), least(s.upper, to)}, RawV2},
				{span{most(s.lower, to), s.upper}, RawNone},
			}
		}
		for _, c := range cuts {
			if bytes.Compare(c.lower, c.upper) < 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

func least(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}

func most(a, b []byte) []byte {
	if bytes.Compare(a, b) > 0 {
		return a
	}
	return b
}
