package scan

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// RawMode says which form of raw data a store holds.
type RawMode uint8

const (
	// RawNone: transactional data only.
	RawNone RawMode = iota
	// RawV1: bare pairs without versions.
	RawV1
	// RawV1TTL: pairs with an expiry, without versions.
	RawV1TTL
	// RawV2: pairs with timestamps, beside transactional data.
	RawV2
)

var rawNames = [...]string{"none", "V1", "V1TTL", "V2"}

func (m RawMode) String() string {
	if int(m) < len(rawNames) {
		return rawNames[m]
	}
	return "unknown"
}

// MarshalText gives the name.
func (m RawMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// Versioned tells whether reading at a timestamp means anything.
func (m RawMode) Versioned() bool { return m == RawNone || m == RawV2 }

// RawMode finds out what the store holds. The store identity names API V2. V1 with TTL is told by last_tikv.toml, or by the
// collector that wrote the properties of a default-CF table. Plain V1 has no mark at all: it is a store whose write and lock
// column families are empty while the default one holds keys that are not transactional.
func (s *Store) RawMode() (RawMode, error) {
	if s.Ident.APIVersion == raftstate.APIV2 {
		return RawV2, nil
	}
	if c := s.Layout.Config; c != nil && c.EnableTTL && c.APIVersion == 1 {
		return RawV1TTL, nil
	}
	if ttl, err := s.ttlTables(); err != nil || ttl {
		return RawV1TTL, err
	}
	for _, cf := range []string{CFWrite, CFLock} {
		if key, err := s.firstData(cf); err != nil || key != nil {
			return RawNone, err
		}
	}
	bare, err := s.bareKeys(true)
	if err != nil || bare == 0 {
		return RawNone, err
	}
	return RawV1, nil
}

// BareKeys counts what tells raw data of API V1 beside transactional data: keys of the default column family that are not
// transactional, among those in the logs and at the boundaries of every table. It is 0 for API V2, where a prefix tells raw keys.
// With such keys a dump is not complete, because nothing says which of the others are raw.
func (s *Store) BareKeys() (uint64, error) {
	if s.Ident.APIVersion == raftstate.APIV2 {
		return 0, nil
	}
	return s.bareKeys(false)
}

func (s *Store) bareKeys(one bool) (n uint64, err error) {
	cf := s.DB.CF(CFDefault)
	look := func(key []byte) {
		if len(key) == 0 || key[0] != mvcc.DataPrefix {
			return
		}
		if _, _, txn := mvcc.SplitKey(key); !txn {
			n++
		}
	}
	for _, f := range cf.Files() {
		for _, k := range []ikey.Key{f.Smallest, f.Largest} {
			// The ends of a range tombstone are borders of regions or tables, which carry no timestamp.
			if k.Kind != ikey.KindRangeDelete {
				look(k.User)
			}
		}
	}
	it := cf.Log().Iter()
	for ok := it.First(); ok && !(one && n > 0); ok = it.Next() {
		if k := it.Key(); k.Kind == ikey.KindPut || k.Kind == ikey.KindBlobIndex {
			look(k.User)
		}
	}
	return n, it.Err()
}

// ttlTables looks at one table: all tables of a store have the same collectors.
func (s *Store) ttlTables() (bool, error) {
	cf := s.DB.CF(CFDefault)
	files := cf.Files()
	if len(files) == 0 {
		return false, nil
	}
	r, done, err := cf.Table(files[0].FileMeta)
	if err != nil {
		return false, err
	}
	ttl := bytes.Contains([]byte(r.Props().Collectors), []byte(mvcc.TTLCollectorName))
	return ttl, done()
}

// firstData is the first visible data key of a column family.
func (s *Store) firstData(cf string) ([]byte, error) {
	v, err := s.DB.CF(cf).NewVisible([]byte{mvcc.DataPrefix}, []byte{mvcc.DataPrefix + 1}, nil)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if v.First() {
		return bytes.Clone(v.User()), nil
	}
	return nil, v.Err()
}

// nextRawV2 looks at one key of an API V2 raw range: its newest entry at or below T. An entry whose expiry had passed at the
// wall-clock time of T was not readable then.
func (r *Rows) nextRawV2(s segment) (found, more bool) {
	if !r.skipVersions(r.pairs, s) {
		r.err = r.pairs.Err()
		return false, false
	}
	prefix, _, ok := mvcc.SplitKey(r.pairs.User())
	if !ok {
		key := bytes.Clone(r.pairs.User())
		r.pairs.Next()
		r.prefix, r.fwd = append(r.prefix[:0], key...), false
		r.row = row{user: key[1:], err: r.bad("read raw entry", CFDefault, key, "the key is not that of an API V2 entry", nil)}
		return true, true
	}
	r.prefix, r.fwd = append(r.prefix[:0], prefix...), true
	first := true
	if !r.stepTo(r.pairs, &first) {
		r.err = r.pairs.Err()
		return false, r.err == nil
	}
	key := r.pairs.User()
	_, ts, _ := mvcc.SplitKey(key)
	r.row = row{commit: ts}
	value, err := r.v.s.Value(CFDefault, r.pairs.Kind(), key, r.pairs.Value())
	if err != nil {
		r.row.err = err
		return r.user(), true
	}
	val, expire, deleted, err := mvcc.ParseRawV2(value)
	if err != nil {
		r.row.err = r.bad("read raw entry", CFDefault, key, "", err)
		return r.user(), true
	}
	if deleted || expired(expire, r.v.T) {
		return false, true
	}
	r.row.value, r.row.expire = val, expire
	return r.user(), true
}

// expired tells whether an expiry, in seconds since 1970, had passed at t. A read without a timestamp sees everything.
// Source: tikv components/api_version/src/lib.rs (RawValue::is_ttl_expired): expire <= now.
func expired(expire uint64, t mvcc.TS) bool {
	return expire != 0 && t != mvcc.MaxTS && expire <= uint64(t.Physical()/1000)
}

// nextRawV1 gives the next bare pair.
func (r *Rows) nextRawV1(s segment) (found, more bool) {
	// r.fwd says that the current pair has been given out.
	if r.fwd {
		r.pairs.Next()
	}
	if r.fwd = true; !r.pairs.ok || bytes.Compare(r.pairs.User(), s.upper) >= 0 {
		r.err = r.pairs.Err()
		return false, false
	}
	key := r.pairs.User()
	r.prefix = append(r.prefix[:0], key...)
	r.row = row{user: r.prefix[1:]}
	value, err := r.v.s.Value(CFDefault, r.pairs.Kind(), key, r.pairs.Value())
	if err == nil && r.v.Raw == RawV1TTL {
		if value, r.row.expire, err = mvcc.ParseRawV1TTL(value); err != nil {
			err = r.bad("read raw pair", CFDefault, key, "", err)
		}
	}
	if err == nil && r.v.Raw == RawV1TTL && expired(r.row.expire, r.v.T) {
		return false, true
	}
	r.row.value, r.row.err = value, err
	return true, true
}
