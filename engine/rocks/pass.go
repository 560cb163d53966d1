package rocks

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Pass merges the logs and chosen files over the user keys of [lower, upper) for a walk over every physical record, nothing hidden.
// The files that are not chosen can be joined in for a stretch, see Join: their blocks are read only where that is asked for, and
// once each as long as the stretches ascend.
//
// After a call that moves it, Valid tells whether it stands on a record, and if not, Err why.
type Pass struct {
	lower, upper []byte
	dels         *tombstones
	heap         []*passSource // a binary min-heap
	near, far    []*passSource
	joined       bool
	watch        Watch // may be nil
	err          error

	touched map[uint64]bool
	read    [2]int64 // bytes of tables that are closed again: near, far
}

// passSource is one sorted stream: the logs, an L0 file, or the files of a deeper level one after the other.
type passSource struct {
	cf    *CF
	level int
	files []*manifest.FileMeta
	i     int // present file
	t     *cachedTable
	b     *sst.Batches
	at    int // in the batch

	mem   *memIter    // instead of files: what is in memory of the logs,
	log   *sst.Reader // or what has been spilled of them
	begun bool        // it stands somewhere: seeks only go forward

	far     bool
	user    []byte
	trailer uint64
	inside  int  // records of the batch before this one are below the upper bound of the pass
	touched bool // the present file
}

// NewPass opens the walk; near chooses the files that it always reads, nil means all. It must be closed.
func (cf *CF) NewPass(lower, upper []byte, near Select) (*Pass, error) {
	return cf.newPass(lower, upper, near, nil)
}

func (cf *CF) newPass(lower, upper []byte, near Select, watch Watch) (*Pass, error) {
	ds, err := cf.RangeDels(lower, upper)
	if err != nil {
		return nil, err
	}
	p := &Pass{lower: lower, upper: upper, dels: newTombstones(ds), touched: map[uint64]bool{}, watch: watch}
	p.near = append(p.near, &passSource{cf: cf, mem: &memIter{m: cf.log.mem}})
	for _, c := range cf.log.spilled {
		p.near = append(p.near, &passSource{cf: cf, log: c.r})
	}
	for l, files := range cf.Meta.Levels {
		var in, out []*manifest.FileMeta
		for _, f := range files {
			if !overlaps(f, lower, upper) {
				continue
			}
			if near == nil || near(LevelFile{Level: l, FileMeta: f}) {
				in = append(in, f)
			} else {
				out = append(out, f)
			}
		}
		p.near = append(p.near, passSources(cf, l, in)...)
		p.far = append(p.far, passSources(cf, l, out)...)
	}
	for _, s := range p.far {
		s.far = true
	}
	for _, s := range p.near {
		p.put(s, lower)
	}
	return p, nil
}

func passSources(cf *CF, level int, files []*manifest.FileMeta) []*passSource {
	if len(files) == 0 {
		return nil
	}
	if level > 0 {
		return []*passSource{{cf: cf, level: level, files: files}}
	}
	var out []*passSource
	for i := range files {
		out = append(out, &passSource{cf: cf, files: files[i : i+1]})
	}
	return out
}

// put seeks a source and takes it into the heap.
func (p *Pass) put(s *passSource, user []byte) {
	ok, err := s.seek(user, p)
	p.add(s, ok, err)
}

func (p *Pass) add(s *passSource, ok bool, err error) {
	if err != nil {
		p.err = err
		return
	}
	if !ok || p.beyond(s) {
		return
	}
	p.heap = append(p.heap, s)
	for i := len(p.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !p.heap[i].before(p.heap[up]) {
			break
		}
		p.heap[i], p.heap[up] = p.heap[up], p.heap[i]
		i = up
	}
}

func (s *passSource) before(o *passSource) bool {
	c := bytes.Compare(s.user, o.user)
	return c < 0 || c == 0 && s.trailer > o.trailer
}

// Valid tells whether the pass stands on a record.
func (p *Pass) Valid() bool { return len(p.heap) > 0 && p.err == nil }

// Next moves on by one physical record.
func (p *Pass) Next() {
	ok, err := p.heap[0].next(p)
	p.moved(ok, err)
}

// moved puts the source at the top, which has gone on, in its place.
func (p *Pass) moved(ok bool, err error) {
	if err != nil {
		p.err = err
		return
	}
	if !ok || p.beyond(p.heap[0]) {
		n := len(p.heap) - 1
		p.heap[0] = p.heap[n]
		p.heap = p.heap[:n]
	}
	p.down()
}

// beyond tells whether a source has come to the end of the pass. Most of the time one look a batch is enough.
func (p *Pass) beyond(s *passSource) bool {
	if p.upper == nil || s.mem == nil && s.at < s.inside {
		return false
	}
	if bytes.Compare(s.user, p.upper) >= 0 {
		return true
	}
	if s.mem == nil {
		s.inside = s.at + 1
		if n := s.b.Len(); bytes.Compare(s.b.User(n-1), p.upper) < 0 {
			s.inside = n
		}
	}
	return false
}

func (p *Pass) down() {
	h := p.heap
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// Stretch is what lies ahead without anything in between: records from to to-1 of the batch are the next ones of the walk, the present
// one first, all of one table, and no range tombstone is there. Without such a stretch the batch is nil. It is valid until the next move.
func (p *Pass) Stretch() (b *sst.Batch, from, to int) {
	s := p.heap[0]
	if s.b == nil || p.dels != nil {
		return nil, 0, 0
	}
	to = s.b.Len()
	bound := p.upper
	for _, o := range p.heap[1:min(3, len(p.heap))] {
		if bound == nil || bytes.Compare(o.user, bound) < 0 {
			bound = o.user
		}
	}
	if bound != nil && bytes.Compare(s.b.User(to-1), bound) >= 0 {
		to = s.b.Search(s.at, bound)
	}
	return &s.b.Batch, s.at, to
}

// Skip moves on by n records of a stretch.
func (p *Pass) Skip(n int) {
	p.heap[0].at += n - 1
	p.Next()
}

// Alone tells whether no file was left out of the walk: there is nothing to join.
func (p *Pass) Alone() bool { return len(p.far) == 0 }

// Join takes the files that were not chosen into the walk, from their first record with a user key >= user on. Keys must ascend from
// call to call.
func (p *Pass) Join(user []byte) {
	if p.joined || p.err != nil || len(p.far) == 0 {
		return
	}
	p.joined = true
	for _, s := range p.far {
		p.put(s, user)
	}
}

// Leave takes them out again.
func (p *Pass) Leave() {
	if !p.joined {
		return
	}
	p.joined = false
	old := p.heap
	p.heap = p.heap[:0]
	for _, s := range old {
		if !s.far {
			p.add(s, true, nil)
		}
	}
}

// User is the user key of the present record; it and Value are valid until the next move.
func (p *Pass) User() []byte { return p.heap[0].user }

// Kind is the kind of the present record.
func (p *Pass) Kind() ikey.Kind { return ikey.Kind(p.heap[0].trailer) }

// Seq is the sequence number of the present record.
func (p *Pass) Seq() uint64 { return p.heap[0].trailer >> 8 }

// Value is the value of the present record.
func (p *Pass) Value() []byte {
	s := p.heap[0]
	if s.mem != nil {
		return s.mem.Value()
	}
	return s.b.Value(s.at)
}

// Covered tells whether a range tombstone hides the present record.
func (p *Pass) Covered() bool {
	return p.dels != nil && p.dels.covers(p.heap[0].user, p.heap[0].trailer>>8)
}

// File is the file that the present record lies in, nil for the logs.
func (p *Pass) File() *manifest.FileMeta {
	if s := p.heap[0]; len(s.files) > 0 {
		return s.files[s.i]
	}
	return nil
}

// Touch notes the file of the present record, or the logs.
func (p *Pass) Touch() { p.heap[0].touched = true }

// LogTouched tells whether the logs were noted.
func (p *Pass) LogTouched() bool {
	for _, s := range p.near {
		if len(s.files) == 0 && s.touched {
			return true
		}
	}
	return false
}

// Touched are the numbers of the noted files; complete once the pass is closed.
func (p *Pass) Touched() map[uint64]bool { return p.touched }

// Read is how many stored bytes have been read of the chosen files, spilled logs included, and of the others.
func (p *Pass) Read() (near, far int64) {
	n := p.read
	for _, list := range [][]*passSource{p.near, p.far} {
		for _, s := range list {
			if s.b != nil {
				n[s.kind()] += s.b.Loaded()
			}
		}
	}
	return n[0], n[1]
}

func (s *passSource) kind() int {
	if s.far {
		return 1
	}
	return 0
}

// Err tells why the pass ended.
func (p *Pass) Err() error { return p.err }

// Close gives the tables back.
func (p *Pass) Close() error {
	err := p.err
	for _, s := range append(p.near, p.far...) {
		if e := s.close(p); err == nil {
			err = e
		}
	}
	p.heap = nil
	return err
}

// open makes file i the present one.
func (s *passSource) open(i int, p *Pass) error {
	t, err := s.cf.db.tables.acquire(s.cf.Meta.Name, s.files[i])
	if err != nil {
		return err
	}
	s.i, s.t, s.b, s.at = i, t, t.r.NewBatches(), 0
	if p.watch != nil {
		s.b.Watch = p.watch(s.files[i], t.r)
	}
	return nil
}

func (s *passSource) close(p *Pass) error {
	if s.b != nil {
		p.read[s.kind()] += s.b.Loaded()
	}
	if s.log != nil && s.b != nil {
		s.b.Close()
		s.b = nil
	}
	if s.t == nil {
		return nil
	}
	if s.touched && len(s.files) > 0 {
		p.touched[s.files[s.i].Number] = true
		s.touched = false
	}
	s.b.Close()
	t := s.t
	s.t, s.b = nil, nil
	return s.cf.db.tables.release(t)
}

// here takes the record that the source stands on.
func (s *passSource) here() {
	s.user, s.trailer = s.b.User(s.at), s.b.Trailer(s.at)
}

func (s *passSource) memHere(ok bool) (bool, error) {
	if ok {
		k := s.mem.Key()
		s.user, s.trailer = k.User, ikey.Pack(k.Seq, k.Kind)
	}
	return ok, nil
}

func (s *passSource) next(p *Pass) (bool, error) {
	if s.mem != nil {
		return s.memHere(s.mem.Next())
	}
	if s.at++; s.at < s.b.Len() {
		s.here()
		return true, nil
	}
	for s.inside = 0; !s.b.Next(); {
		if err := s.b.Err(); err != nil {
			return false, err
		}
		i := s.i + 1
		if i >= len(s.files) {
			return false, nil
		}
		if err := s.close(p); err != nil {
			return false, err
		}
		if err := s.open(i, p); err != nil {
			return false, err
		}
	}
	s.at = 0
	s.here()
	return true, nil
}

// seek goes to the first record with a user key >= user. It never goes back.
func (s *passSource) seek(user []byte, p *Pass) (bool, error) {
	if s.mem != nil {
		return s.memHere(s.mem.SeekGE(user))
	}
	if s.begun && s.b != nil && s.at < s.b.Len() && bytes.Compare(s.b.User(s.b.Len()-1), user) >= 0 {
		s.at = s.b.Search(s.at, user)
		s.here()
		return true, nil
	}
	s.begun, s.inside = true, 0
	if s.log != nil {
		if s.b == nil {
			s.b = s.log.NewBatches()
		}
		if !s.b.SeekGE(user) {
			return false, s.b.Err()
		}
		s.at = s.b.Search(s.start(user), user)
		s.here()
		return true, nil
	}
	for i := s.i; i < len(s.files); i++ {
		if bytes.Compare(s.files[i].Largest.User, user) < 0 {
			continue
		}
		if s.t == nil || s.i != i {
			if err := s.close(p); err != nil {
				return false, err
			}
			if err := s.open(i, p); err != nil {
				return false, err
			}
		}
		if s.b.SeekGE(user) {
			s.at = s.b.Search(s.start(user), user)
			s.here()
			return true, nil
		}
		if err := s.b.Err(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// start is where a search in the present batch may begin.
func (s *passSource) start(user []byte) int {
	if s.at < s.b.Len() && bytes.Compare(s.b.User(s.at), user) < 0 {
		return s.at
	}
	return 0
}
