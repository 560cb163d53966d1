package rocks

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Stream gives what Visible gives, for walks that only go forward: it reads and decodes whole blocks, some at once, and can hand out many
// records in a single step. It is for one goroutine and must be closed.
//
// It stands on a visible record, or before the first one, or at the end.
type Stream struct {
	p    *Pass
	last []byte // user key of the last record that was judged: older ones of the same key are hidden
	have bool
}

// Watch is told of each table that a Stream opens. What it returns, unless it is nil, is told of every batch that is decoded, those that
// a seek passes over included: the number of the block, and whether the block ends with it. The batch must not be kept.
type Watch func(f *manifest.FileMeta, r *sst.Reader) func(block int, end bool, b *sst.Batch)

// NewStream opens the view of [lower, upper); watch may be nil.
func (cf *CF) NewStream(lower, upper []byte, watch Watch) (*Stream, error) {
	p, err := cf.newPass(lower, upper, nil, watch)
	if err != nil {
		return nil, err
	}
	return &Stream{p: p}, nil
}

// First goes to the first visible record; it must not be called after another move.
func (s *Stream) First() bool { return s.settle() }

// Next goes to the next visible record.
func (s *Stream) Next() bool {
	if !s.p.Valid() {
		return false
	}
	s.p.Next()
	return s.settle()
}

// SeekGE goes forward to the first visible record with a user key >= user. It stays where that is behind.
func (s *Stream) SeekGE(user []byte) bool {
	if s.have && s.p.Valid() && bytes.Compare(s.p.User(), user) >= 0 {
		return true
	}
	s.p.SeekGE(user)
	return s.settle()
}

// settle goes on to a visible record, which may be the present one.
func (s *Stream) settle() bool {
	for ; s.p.Valid(); s.p.Next() {
		u := s.p.User()
		if s.have && bytes.Equal(u, s.last) {
			continue
		}
		s.last, s.have = append(s.last[:0], u...), true
		if k := s.p.Kind(); k != ikey.KindDelete && k != ikey.KindSingleDelete && !s.p.Covered() {
			return true
		}
	}
	return false
}

// User is the current user key; it and Value are valid until the next move.
func (s *Stream) User() []byte { return s.p.User() }

// Kind is ikey.KindPut or ikey.KindBlobIndex.
func (s *Stream) Kind() ikey.Kind { return s.p.Kind() }

// Seq is the sequence number of the current record.
func (s *Stream) Seq() uint64 { return s.p.Seq() }

// Value is the current record's.
func (s *Stream) Value() []byte { return s.p.Value() }

// Stretch gives records that lie one behind the other in one batch, the current one first: physical ones, of which some may be hidden by
// the one before, by a range tombstone (see Covered), or be deletions. None of another source lies between them. With a limit the user
// keys are below it; it must be above the current one and not above the upper bound of the stream. b is nil when the current record is in no table. Skip goes on.
func (s *Stream) Stretch(limit []byte) (b *sst.Batch, from, to int) {
	src := s.p.heap[0]
	if src.mem != nil {
		return nil, 0, 0
	}
	b, from, to = &src.b.Batch, src.at, src.b.Len()
	if limit == nil {
		limit = s.p.upper
	}
	if next := s.p.second(); limit == nil || next != nil && bytes.Compare(next, limit) < 0 {
		limit = next
	}
	if limit != nil && bytes.Compare(b.User(to-1), limit) >= 0 {
		to = max(b.Search(from, limit), from+1)
	}
	return b, from, to
}

// Skip goes to the first visible record at or behind record to of a stretch, which begins with the current one.
func (s *Stream) Skip(to int) bool {
	src := s.p.heap[0]
	if to == src.at {
		return true
	}
	s.last = append(s.last[:0], src.b.User(to-1)...)
	src.at = to - 1
	s.p.Next()
	return s.settle()
}

// Covered tells whether a range tombstone hides a record.
func (s *Stream) Covered(user []byte, seq uint64) bool {
	return s.p.dels != nil && s.p.dels.covers(user, seq)
}

// Read is how many stored bytes have been read.
func (s *Stream) Read() int64 { n, _ := s.p.Read(); return n }

// Err tells, after false, whether the end was reached.
func (s *Stream) Err() error { return s.p.Err() }

// Close gives the tables back.
func (s *Stream) Close() error { return s.p.Close() }

// second is the user key that comes next of all other sources, nil without one.
func (p *Pass) second() []byte {
	switch {
	case len(p.heap) < 2:
		return nil
	case len(p.heap) == 2 || p.heap[1].before(p.heap[2]):
		return p.heap[1].user
	}
	return p.heap[2].user
}

// SeekGE goes forward to the first record with a user key >= user. It stays where that is behind.
func (p *Pass) SeekGE(user []byte) {
	for p.Valid() && bytes.Compare(p.heap[0].user, user) < 0 {
		ok, err := p.heap[0].seek(user, p)
		p.moved(ok, err)
	}
}
