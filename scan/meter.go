package scan

import (
	"bytes"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
)

// Meter is how far a pass has come, in bytes of files.
type Meter = base.Meter

// track turns a position in key order into bytes of files passed. A nil track does nothing.
type track struct {
	m    *Meter
	ends []fileEnd // by largest key
	sum  int64     // what is still to come
}

type fileEnd struct {
	largest []byte
	size    int64
}

func newTrack(cf *rocks.CF, lower, upper []byte, m *Meter) *track {
	t := &track{m: m}
	for _, f := range cf.Files() {
		if bytes.Compare(f.Largest.User, lower) < 0 || bytes.Compare(f.Smallest.User, upper) >= 0 {
			continue
		}
		t.ends = append(t.ends, fileEnd{f.Largest.User, int64(f.Size)})
		t.sum += int64(f.Size)
	}
	slices.SortFunc(t.ends, func(a, b fileEnd) int { return bytes.Compare(a.largest, b.largest) })
	m.Total.Add(t.sum)
	return t
}

// at says that everything below key has been read.
func (t *track) at(key []byte) {
	if t == nil {
		return
	}
	for len(t.ends) > 0 && bytes.Compare(t.ends[0].largest, key) < 0 {
		t.m.Done.Add(t.ends[0].size)
		t.sum -= t.ends[0].size
		t.ends = t.ends[1:]
	}
}

// end says that the pass is through.
func (t *track) end() {
	if t == nil {
		return
	}
	t.m.Done.Add(t.sum)
	t.sum, t.ends = 0, nil
}
