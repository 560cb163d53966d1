package scan

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// KeyReport is everything that a store holds about one user key.
type KeyReport struct {
	Key        string       `json:"key"`    // user key, upper-case hex
	DBKey      string       `json:"db_key"` // as in the lock column family, upper-case hex
	KeyDecoded mvcc.KeyInfo `json:"key_decoded"`
	Region     uint64       `json:"region_id,omitempty"` // the live region that holds the key; absent: none here
	Locks      []LockView   `json:"locks"`
	Writes     []WriteView  `json:"writes"` // newest first
	Values     []ValueView  `json:"values"` // default column family, newest first
	Raw        []ValueView  `json:"raw"`    // raw data: API V2 entries, newest first, or one bare pair
}

// Empty tells whether the store knows nothing of the key.
func (r *KeyReport) Empty() bool {
	return len(r.Locks)+len(r.Writes)+len(r.Values)+len(r.Raw) == 0
}

// Key reads one user key in all column families. Records that do not decode are part of the report.
func (s *Store) Key(user []byte) (*KeyReport, error) {
	mode, err := s.RawMode()
	if err != nil {
		return nil, err
	}
	prefix := mvcc.LockKey(user)
	bare := mode == RawV1 || mode == RawV1TTL
	if bare {
		prefix = append([]byte{mvcc.DataPrefix}, user...)
	}
	r := &KeyReport{
		Key: upperHex(user), DBKey: upperHex(prefix), KeyDecoded: mvcc.DescribeUserKey(user), Region: s.regionOf(prefix),
		Locks: []LockView{}, Writes: []WriteView{}, Values: []ValueView{}, Raw: []ValueView{},
	}
	if bare {
		return r, s.barePair(r, prefix, mode)
	}
	if v, kind, ok, err := s.DB.CF(CFLock).Get(prefix); err != nil {
		return nil, err
	} else if ok {
		if v, err = s.Value(CFLock, kind, prefix, v); err != nil {
			return nil, err
		}
		r.Locks = viewLocks(user, v)
	}
	if err := s.eachVersion(CFWrite, prefix, func(ts mvcc.TS, key []byte, kind ikey.Kind, value []byte) {
		if v, err := s.Value(CFWrite, kind, key, value); err != nil {
			r.Writes = append(r.Writes, WriteView{CommitTS: ts, CommitTime: Time(ts), Error: err.Error(), Raw: upperHex(value)})
		} else {
			r.Writes = append(r.Writes, viewWrite(ts, v))
		}
	}); err != nil {
		return nil, err
	}
	raw := mode == RawV2 && mvcc.IsRawV2Key(user)
	err = s.eachVersion(CFDefault, prefix, func(ts mvcc.TS, key []byte, kind ikey.Kind, value []byte) {
		v := s.viewValue(key, kind, value, raw)
		v.StartTS, v.StartTime = &ts, Time(ts)
		if raw {
			r.Raw = append(r.Raw, v)
		} else {
			r.Values = append(r.Values, v)
		}
	})
	r.join()
	return r, err
}

// eachVersion walks the versions of a key, newest first.
func (s *Store) eachVersion(cf string, prefix []byte, fn func(ts mvcc.TS, key []byte, kind ikey.Kind, value []byte)) error {
	v, err := s.DB.CF(cf).NewVisible(mvcc.AppendTS(bytes.Clone(prefix), mvcc.MaxTS), append(mvcc.AppendTS(bytes.Clone(prefix), 0), 0), nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		if p, ts, ok := mvcc.SplitKey(v.User()); ok && bytes.Equal(p, prefix) {
			fn(ts, v.User(), v.Kind(), v.Value())
		}
	}
	return v.Err()
}

// viewValue prints a row of the default column family; raw ones are API V2 entries.
func (s *Store) viewValue(key []byte, kind ikey.Kind, value []byte, raw bool) ValueView {
	v := ValueView{InTitan: kind == ikey.KindBlobIndex}
	full, err := s.Value(CFDefault, kind, key, value)
	if err == nil && raw {
		full, v.ExpireUnix, v.Deleted, err = mvcc.ParseRawV2(full)
	}
	if err != nil {
		v.Error, v.Value = err.Error(), upperHex(value)
		return v
	}
	v.Bytes, v.Value = len(full), upperHex(full)
	return v
}

func (s *Store) barePair(r *KeyReport, key []byte, mode RawMode) error {
	value, kind, ok, err := s.DB.CF(CFDefault).Get(key)
	if err != nil || !ok {
		return err
	}
	v := s.viewValue(key, kind, value, false)
	if mode == RawV1TTL && v.Error == "" {
		full, err := s.Value(CFDefault, kind, key, value)
		if err == nil {
			full, v.ExpireUnix, err = mvcc.ParseRawV1TTL(full)
		}
		if err != nil {
			v.Error = err.Error()
		} else {
			v.Bytes, v.Value = len(full), upperHex(full)
		}
	}
	r.Raw = append(r.Raw, v)
	return nil
}

// join says which default row belongs to which record.
func (r *KeyReport) join() {
	at := make(map[mvcc.TS]*ValueView, len(r.Values))
	for i := range r.Values {
		at[*r.Values[i].StartTS] = &r.Values[i]
	}
	for i := range r.Writes {
		w := &r.Writes[i]
		if w.Type != "put" || w.ShortValue != nil {
			continue
		}
		if v := at[w.StartTS]; v != nil {
			v.Owner = fmt.Sprintf("version %s", w.CommitTS)
		} else {
			w.ValueMissing = true
		}
	}
	for i := range r.Locks {
		l := &r.Locks[i]
		if l.Type != "put" || l.ShortValue != nil {
			continue
		}
		if v := at[l.StartTS]; v == nil {
			l.ValueMissing = true
		} else if v.Owner == "" {
			v.Owner = "lock"
		}
	}
}

// regionOf names the live region that holds a database key; 0 without one.
func (s *Store) regionOf(key []byte) uint64 {
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		if lower, upper := r.Bounds(); bytes.Compare(key, lower) >= 0 && bytes.Compare(key, upper) < 0 {
			return r.ID
		}
	}
	return 0
}

// ParseDBKey reads a database key as tools and logs print it: upper- or lower-case hex, or tikv-ctl's escaped form, which begins
// with 'z' ("zt\200\000…": Go's escapes, octal ones included).
func ParseDBKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "z") {
		return unescape(text)
	}
	return ParseHex(text)
}

// UserKeyOf is the user key of a database key: what is left without 'z', the encoding and a timestamp.
func (s *Store) UserKeyOf(db []byte) ([]byte, error) {
	mode, err := s.RawMode()
	if err != nil {
		return nil, err
	}
	if len(db) > 0 && db[0] == mvcc.DataPrefix && (mode == RawV1 || mode == RawV1TTL) {
		return db[1:], nil
	}
	if p, _, ok := mvcc.SplitKey(db); ok {
		return mvcc.UserKey(p)
	}
	return mvcc.UserKey(db)
}
