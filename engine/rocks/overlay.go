package rocks

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Overlay puts records on top of everything that the view holds, in order and with fresh sequences, as if the logs ended with them. The
// view shows them at once; an edit that folds the logs makes them durable. It must not run beside iterators.
type Overlay struct {
	db   *DB
	seq  uint64
	runs map[*CF]bool
}

// NewOverlay begins an overlay; Close ends it.
func (db *DB) NewOverlay() *Overlay { return &Overlay{db: db, seq: db.LastSeq, runs: map[*CF]bool{}} }

// Add takes one record. For ikey.KindRangeDelete user is the start and value the end (exclusive).
func (o *Overlay) Add(cf string, kind ikey.Kind, user, value []byte) error {
	f := o.db.cfs[cf]
	if f == nil {
		return fmt.Errorf("record for column family %q, which the store does not have", cf)
	}
	o.seq++
	f.log.mem.Add(ikey.Key{User: user, Seq: o.seq, Kind: kind}, value)
	o.runs[f] = true
	return nil
}

// Close makes the records visible and returns how many there are.
func (o *Overlay) Close() uint64 {
	for f := range o.runs {
		f.log.mem.Sort()
	}
	n := o.seq - o.db.LastSeq
	o.db.LastSeq, o.db.overlaid = o.seq, o.db.overlaid+n
	return n
}

// Overlaid is the number of records that overlays have added.
func (db *DB) Overlaid() uint64 { return db.overlaid }
