package repair

import (
	"sort"
	"time"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// histogram counts commits over time without knowing the range beforehand: when it has too many buckets, it doubles their width.
type histogram struct {
	shift  uint // a bucket is 2^shift ms wide
	counts map[int64]int64
}

const maxBuckets = 256

func (h *histogram) add(ts mvcc.TS, n int64) {
	if h.counts == nil {
		h.counts = map[int64]int64{}
	}
	h.counts[ts.Physical()>>h.shift] += n
	for len(h.counts) > maxBuckets {
		h.widen(h.shift + 1)
	}
}

func (h *histogram) widen(shift uint) {
	if shift <= h.shift {
		return
	}
	wide := make(map[int64]int64, len(h.counts)/2+1)
	for b, n := range h.counts {
		wide[b>>(shift-h.shift)] += n
	}
	h.counts, h.shift = wide, shift
}

func (h *histogram) merge(o histogram) {
	shift := max(h.shift, o.shift)
	h.widen(shift)
	o.widen(shift)
	if h.counts == nil {
		h.counts, h.shift = map[int64]int64{}, shift
	}
	for b, n := range o.counts {
		h.counts[b] += n
	}
	for len(h.counts) > maxBuckets {
		h.widen(h.shift + 1)
	}
}

// Bucket is one bar of the preview's histogram.
type Bucket struct {
	From     string `json:"from"` // RFC 3339
	To       string `json:"to"`
	Versions int64  `json:"versions"`
}

// buckets gives at most n bars of equal width from the first commit to the last, empty ones included.
func (h *histogram) buckets(n int) []Bucket {
	if len(h.counts) == 0 {
		return nil
	}
	var keys []int64
	for b := range h.counts {
		keys = append(keys, b)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	for keys[len(keys)-1]-keys[0] >= int64(n) {
		h.widen(h.shift + 1)
		return h.buckets(n)
	}
	at := func(b int64) string { return time.UnixMilli(b << h.shift).UTC().Format("2006-01-02T15:04:05.000Z") }
	var out []Bucket
	for b := keys[0]; b <= keys[len(keys)-1]; b++ {
		out = append(out, Bucket{From: at(b), To: at(b + 1), Versions: h.counts[b]})
	}
	return out
}
