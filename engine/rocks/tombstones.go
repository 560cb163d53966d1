package rocks

import (
	"bytes"
	"sort"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// tombstones answers one question for a set of range tombstones: what is the highest sequence that covers a user key? No
// snapshot exists in a stopped store, so lower ones do not matter.
type tombstones struct {
	starts [][]byte // fragment i is [starts[i], starts[i+1]); seqs[i] = 0: not covered
	seqs   []uint64
}

func newTombstones(ds []ikey.RangeDel) *tombstones {
	if len(ds) == 0 {
		return nil
	}
	var cuts [][]byte
	for _, d := range ds {
		cuts = append(cuts, d.Start, d.End)
	}
	sort.Slice(cuts, func(i, j int) bool { return bytes.Compare(cuts[i], cuts[j]) < 0 })
	t := &tombstones{}
	for i, c := range cuts {
		if i == 0 || !bytes.Equal(c, cuts[i-1]) {
			t.starts = append(t.starts, c)
		}
	}
	t.seqs = make([]uint64, len(t.starts))
	for _, d := range ds {
		for i := t.find(d.Start); i >= 0 && i < len(t.starts) && bytes.Compare(t.starts[i], d.End) < 0; i++ {
			t.seqs[i] = max(t.seqs[i], d.Seq)
		}
	}
	return t
}

// find is the fragment that holds user, -1 before the first.
func (t *tombstones) find(user []byte) int {
	return sort.Search(len(t.starts), func(i int) bool { return bytes.Compare(t.starts[i], user) > 0 }) - 1
}

// covers reports whether a record of user with this sequence is hidden.
func (t *tombstones) covers(user []byte, seq uint64) bool {
	if t == nil {
		return false
	}
	i := t.find(user)
	return i >= 0 && t.seqs[i] > seq
}
