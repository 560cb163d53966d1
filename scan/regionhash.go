package scan

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// RegionHash sums up what a client can read of one region.
type RegionHash struct {
	Rows  int64  `json:"rows"`
	Locks int64  `json:"locks"`
	Hash  string `json:"hash"` // XXH3, 128 bits, hex
}

// RegionHashes hashes, per live region, the visible (key, commit_ts, value) at t in key order, and its locks as they are. Files, garbage
// collection and log positions differ between replicas; this must not. A value that cannot be read is an error.
func (s *Store) RegionHashes(ctx context.Context, t mvcc.TS, m *Meter) (map[uint64]RegionHash, error) {
	v, err := s.NewPlainView(t)
	if err != nil {
		return nil, err
	}
	rows, err := v.Rows(nil, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	rows.Watch(ctx, m)
	h := hasher{finder: s.RegionFinder(), sums: map[uint64]*regionSum{}}
	for _, r := range s.Regions {
		if r.Live() {
			h.sums[r.ID] = &regionSum{h: xxh3.New()}
		}
	}
	for rows.Next() {
		value, err := rows.Value()
		if err != nil {
			return nil, err
		}
		sum := h.at(v.dbBound(rows.UserKey()))
		if sum == nil {
			continue // outside any region: no client sees it
		}
		sum.rows++
		sum.add(rows.UserKey(), value, uint64(rows.CommitTS()))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	h.last = nil // from the beginning
	err = s.EachLock(func(l LockAt) error {
		if sum := h.at(mvcc.LockKey(l.User)); sum != nil {
			sum.locks++
			sum.add(l.User, l.Raw, 0)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]RegionHash, len(h.sums))
	for id, sum := range h.sums {
		b := sum.h.Sum128().Bytes()
		out[id] = RegionHash{Rows: sum.rows, Locks: sum.locks, Hash: fmt.Sprintf("%x", b)}
	}
	return out, nil
}

type regionSum struct {
	h           *xxh3.Hasher
	rows, locks int64
	head        []byte
}

// add takes one record: lengths first, so that two records never read as another two.
func (r *regionSum) add(key, value []byte, ts uint64) {
	r.head = binary.BigEndian.AppendUint64(r.head[:0], uint64(len(key)))
	r.head = binary.BigEndian.AppendUint64(r.head, uint64(len(value)))
	r.head = binary.BigEndian.AppendUint64(r.head, ts)
	// A hash in memory takes everything.
	_, _ = r.h.Write(r.head)
	_, _ = r.h.Write(key)
	_, _ = r.h.Write(value)
}

type hasher struct {
	finder RegionFinder
	sums   map[uint64]*regionSum
	// the region of the last key: keys come in order
	end  []byte
	last *regionSum
}

func (h *hasher) at(key []byte) *regionSum {
	if h.last != nil && h.end != nil && bytes.Compare(key, h.end) < 0 {
		return h.last
	}
	r, ok := h.finder.Find(key)
	if !ok {
		h.last = nil
		return nil
	}
	_, h.end = r.Bounds()
	h.last = h.sums[r.ID]
	return h.last
}
