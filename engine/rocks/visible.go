package rocks

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Visible walks what a reader of the database sees: the newest record of each user key, unless it is a deletion or a range
// tombstone covers it. Put and blob-index records come out; the value of a blob index is the index itself.
type Visible struct {
	it   *Iter
	dels *tombstones
	last []byte // user key last looked at, whose older records are skipped
	have bool
}

// NewVisible opens the view of [lower, upper). With a selection only the chosen files and the logs are merged, while the range
// tombstones of all files still apply: it is exact for every key whose records all lie in the chosen files.
func (cf *CF) NewVisible(lower, upper []byte, sel Select) (*Visible, error) {
	ds, err := cf.RangeDels(lower, upper)
	if err != nil {
		return nil, err
	}
	it, err := cf.NewIter(lower, upper, sel)
	if err != nil {
		return nil, err
	}
	return &Visible{it: it, dels: newTombstones(ds)}, nil
}

// First goes to the first visible record.
func (v *Visible) First() bool { v.have = false; return v.settle(v.it.First()) }

// SeekGE goes to the first visible record with a user key >= user.
func (v *Visible) SeekGE(user []byte) bool { v.have = false; return v.settle(v.it.SeekGE(user)) }

// Next goes to the next visible record.
func (v *Visible) Next() bool { return v.settle(v.it.Next()) }

func (v *Visible) settle(ok bool) bool {
	for ; ok; ok = v.it.Next() {
		k := v.it.Key()
		if v.have && bytes.Equal(k.User, v.last) {
			continue
		}
		v.last, v.have = append(v.last[:0], k.User...), true
		if k.Kind == ikey.KindDelete || k.Kind == ikey.KindSingleDelete || v.dels.covers(k.User, k.Seq) {
			continue
		}
		return true
	}
	return false
}

// User is the current user key; it aliases memory that the next call may overwrite.
func (v *Visible) User() []byte { return v.it.Key().User }

// Kind is ikey.KindPut or ikey.KindBlobIndex.
func (v *Visible) Kind() ikey.Kind { return v.it.Key().Kind }

// Seq is the record's sequence number.
func (v *Visible) Seq() uint64 { return v.it.Key().Seq }

// Value aliases memory that the next call may overwrite.
func (v *Visible) Value() []byte { return v.it.Value() }

// Source tells where the current record lies.
func (v *Visible) Source() Source { return v.it.Source() }

// Err tells, after false, whether the end was reached.
func (v *Visible) Err() error { return v.it.Err() }

// Close gives the tables back.
func (v *Visible) Close() error { return v.it.Close() }

// Get reads one user key as the database would; ok is false when it is absent. The value is the caller's.
func (cf *CF) Get(user []byte) (value []byte, kind ikey.Kind, ok bool, err error) {
	upper := append(bytes.Clone(user), 0)
	v, err := cf.NewVisible(user, upper, nil)
	if err != nil {
		return nil, 0, false, err
	}
	if v.First() {
		value, kind, ok = bytes.Clone(v.Value()), v.Kind(), true
	}
	err = v.Err()
	if e := v.Close(); err == nil {
		err = e
	}
	return value, kind, ok, err
}
