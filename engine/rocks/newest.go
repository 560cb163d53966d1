package rocks

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// newest passes the newest record of each user key and leaves out those it shadows, as a flush without snapshots does. A single
// delete keeps what follows it: together with the put below it, it would have vanished in a flush, and alone it must not meet an
// older put of another table.
type newest struct {
	ikey.Iter
	last    []byte
	have    bool
	keepAll bool // the current key's newest record is a single delete
}

// Newest filters a stream in internal-key order.
func Newest(it ikey.Iter) ikey.Iter { return &newest{Iter: it} }

func (n *newest) First() bool { n.have = false; return n.settle(n.Iter.First()) }

func (n *newest) SeekGE(user []byte) bool { n.have = false; return n.settle(n.Iter.SeekGE(user)) }

func (n *newest) Next() bool { return n.settle(n.Iter.Next()) }

func (n *newest) settle(ok bool) bool {
	for ; ok; ok = n.Iter.Next() {
		k := n.Iter.Key()
		if !n.have || !bytes.Equal(k.User, n.last) {
			n.last, n.have = append(n.last[:0], k.User...), true
			n.keepAll = k.Kind == ikey.KindSingleDelete
			return true
		}
		if n.keepAll {
			return true
		}
	}
	return false
}
