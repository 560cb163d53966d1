package repair

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// RewindOptions say what to rewind to and how.
type RewindOptions struct {
	T mvcc.TS
	// SafePoint is the cluster's GC safe point; nil means unknown: then every write record is looked at for fences.
	SafePoint *mvcc.TS
	// Memory bounds what the passes hold, in bytes; 0 is no bound. What does not fit goes into the store's spill directory.
	Memory int64
	// Threads bounds the goroutines of a pass; 0 means one a core.
	Threads int
	// NoBlockCopy writes every block of a table anew, also where nothing in it changes: for tests.
	NoBlockCopy bool
	// Now goes into the properties of new tables.
	Now time.Time
	// Meter is told how far the passes have come; nil is fine.
	Meter *scan.Meter
}

// Rewinder is the rewind of one opened store.
type Rewinder struct {
	store *scan.Store
	o     RewindOptions

	// set holds the numbers of the write-CF files that may hold a record above T, rawSet those of the default CF that may hold an
	// API V2 raw entry above T. Files outside are never scanned.
	set, rawSet map[uint64]bool
	// changed are those of set in which the logical pass has found something to change; nil before it has run.
	changed map[uint64]bool
	// fenced are those in which it has found a gc_fence above T on a record that stays.
	fenced  map[uint64]bool
	rawV2   bool
	staleTS bool // TiKV of this store writes the stale-version properties
	titan   bool // tables of this store carry Titan's collector

	tables sync.Map // column family to its *profile.Tables
	spill  rocks.Spill
	held   atomic.Int64 // bytes of new records in memory, of the shards that have ended
}

// NewRewinder reads the properties of every table that it may have to skip or rewrite.
func NewRewinder(ctx context.Context, s *scan.Store, o RewindOptions) (*Rewinder, error) {
	w := &Rewinder{store: s, o: o, set: map[uint64]bool{}, rawSet: map[uint64]bool{}, staleTS: true, titan: s.Titan != nil, spill: s.Spill()}
	w.rawV2 = s.HasRawV2()
	sample, err := w.choose(scan.CFWrite, w.set)
	if err != nil {
		return nil, err
	}
	if sample != nil {
		_, w.staleTS = sample.User["tikv.newest_stale_version_ts"]
		w.titan = slices.Contains(collectorNames(sample.Collectors), sst.NewBlobCollector().Name())
	}
	if w.rawV2 {
		if _, err := w.choose(scan.CFDefault, w.rawSet); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// choose puts the files of a family whose trustworthy max_ts is not at or below T into set. It returns the properties of the
// newest table, if there is one, as the sample of what this TiKV writes.
func (w *Rewinder) choose(cfName string, set map[uint64]bool) (*sst.Properties, error) {
	bounds, err := w.store.TimeBounds(cfName)
	if err != nil {
		return nil, err
	}
	for _, f := range w.store.DB.CF(cfName).Files() {
		if b := bounds.Of(f.Number); !b.Trust || b.Max > w.o.T {
			set[f.Number] = true
		}
	}
	if bounds.Newest == nil {
		return nil, nil
	}
	r, done, err := w.store.DB.CF(cfName).Table(bounds.Newest)
	if err != nil {
		return nil, err
	}
	return r.Props(), done()
}

func (w *Rewinder) inSet(f rocks.LevelFile) bool { return w.set[f.Number] }

// memoryPerThread is what a goroutine of a pass may need for the buffers of the tables that it reads and writes.
const memoryPerThread = 32 << 20

func (w *Rewinder) threads() int {
	n := w.o.Threads
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	if w.o.Memory > 0 {
		n = min(n, max(1, int(w.o.Memory/memoryPerThread)))
	}
	return n
}

// writers is how many tables are written at a time: while one waits for the disk, another computes.
func (w *Rewinder) writers() int { return 2 * w.threads() }

// phase makes a pass of w what the run is seen to do; the pass adds the bytes.
func (w *Rewinder) phase(name string) (end func()) {
	ph := base.Begin(w.store.FS, name).Needs(base.Bytes, 0, "")
	before := w.o.Meter
	w.o.Meter = ph.Meter
	return func() { w.o.Meter = before; ph.End() }
}

// setBytes is the size of the tables that are rewritten, as far as that is known before they are read: the physical pass counts them down.
func (w *Rewinder) setBytes() (n int64) {
	set := w.set
	if w.changed != nil {
		set = w.changed
	}
	for _, name := range w.store.DB.Names() {
		for _, f := range w.store.DB.CF(name).Files() {
			if name == scan.CFWrite && set[f.Number] && w.set[f.Number] || name == scan.CFDefault && w.rawSet[f.Number] {
				n += int64(f.Size)
			}
		}
	}
	return n
}

// expect and progress tell the meter about bytes to come and bytes done.
func (w *Rewinder) expect(n int64) {
	if w.o.Meter != nil {
		w.o.Meter.Total.Add(n)
	}
}

func (w *Rewinder) progress(n int64) {
	if w.o.Meter != nil {
		w.o.Meter.Done.Add(n)
	}
}

func (w *Rewinder) corrupt(key []byte, reason string) error {
	return &base.Error{Class: base.ErrCorrupt, Op: "read write record", Path: w.store.Layout.KVDir, Offset: -1, CF: scan.CFWrite,
		Key: bytes.Clone(key), Reason: reason, Next: "tikv-repair check " + w.store.Layout.Dir}
}

// fate decides one physical record of a table or of the logs. It is the same rule for every copy of a record, visible or not.
type fate uint8

const (
	keep fate = iota
	drop
	change
)

// writeFate is the fate of a record of the write column family: everything above T goes, tombstones included, because TiKV's GC
// compaction filter drops older versions when it meets a hidden Put above T without its tombstone.
//
// It remembers the row, whose keys need not be taken apart again, and is for one goroutine.
type writeFate struct {
	w   *Rewinder
	row []byte // prefix of the last transactional key
}

func (f *writeFate) of(k ikey.Key, value []byte) (fate, []byte, error) {
	n := len(k.User) - 8
	if n <= 0 || n != len(f.row) || !bytes.Equal(k.User[:n], f.row) {
		prefix, _, ok := mvcc.SplitKey(k.User)
		if !ok {
			return keep, nil, nil // no transactional key: nothing that a timestamp says about it
		}
		f.row = append(f.row[:0], prefix...)
	}
	if mvcc.KeyTS(k.User) > f.w.o.T {
		return drop, nil, nil
	}
	if k.Kind != ikey.KindPut {
		return keep, nil, nil
	}
	p, err := mvcc.PeekWrite(value)
	if err != nil {
		return keep, nil, f.w.corrupt(k.User, err.Error())
	}
	if p.Fence <= f.w.o.T {
		return keep, nil, nil
	}
	d, err := mvcc.Rewind(f.w.o.T, mvcc.KeyTS(k.User), value)
	if err != nil {
		return keep, nil, f.w.corrupt(k.User, err.Error())
	}
	if d.Action == mvcc.ClearFence {
		return change, d.Value, nil
	}
	return keep, nil, nil
}

// rawFate is the fate of a record of the default column family in an API V2 store: raw entries above T go physically, too, because
// TiKV's raw compaction filter has the same trap. Transactional rows stay; those that must go get a tombstone.
func (w *Rewinder) rawFate(k ikey.Key, _ []byte) (fate, []byte, error) {
	if ts, ok := rawTS(k.User); ok && ts > w.o.T {
		return drop, nil, nil
	}
	return keep, nil, nil
}

// rawTS is the timestamp of an API V2 raw entry's key.
func rawTS(key []byte) (mvcc.TS, bool) {
	prefix, ts, ok := mvcc.SplitKey(key)
	if !ok || len(prefix) < 2 || !mvcc.IsRawV2Prefix(prefix) {
		return 0, false
	}
	return ts, true
}

// rule gives the fate function of a family, for one goroutine; nil keeps everything.
func (w *Rewinder) rule(cf string) func(ikey.Key, []byte) (fate, []byte, error) {
	switch {
	case cf == scan.CFWrite:
		return (&writeFate{w: w}).of
	case cf == scan.CFDefault && w.rawV2:
		return w.rawFate
	}
	return nil
}

// fates are those of the records of a batch.
type fates struct {
	drop    []bool
	dropped int
	changed []changedRecord // in order
}

type changedRecord struct {
	i     int
	value []byte
}

func (f *fates) reset(n int) {
	f.drop = append(f.drop[:0], make([]bool, n)...)
	f.dropped, f.changed = 0, f.changed[:0]
}

// batchRule decides the records of a batch.
type batchRule func(*sst.Batch, *fates) error

// batchRule is the rule of a family for the batches of one table, in order. Where the logical pass has seen that no fence has to be
// cleared, the keys alone decide.
func (w *Rewinder) batchRule(cf string, file rocks.LevelFile, rule ruleFunc) batchRule {
	if cf == scan.CFWrite && w.changed != nil && !w.fenced[file.Number] {
		return w.dropAbove
	}
	return func(b *sst.Batch, f *fates) error {
		for i := range f.drop {
			switch fate, v, err := rule(b.Key(i), b.Value(i)); {
			case err != nil:
				return err
			case fate == drop:
				f.drop[i] = true
				f.dropped++
			case fate == change:
				f.changed = append(f.changed, changedRecord{i, v})
			}
		}
		return nil
	}
}

// dropAbove drops the transactional records above T.
func (w *Rewinder) dropAbove(b *sst.Batch, f *fates) error {
	row := -1 // length of the row's prefix; -1: not a transactional key
	for i := range f.drop {
		u := b.User(i)
		if n := len(u) - 8; i == 0 || row != n || !b.Shares(i, n) {
			if row = -1; isTxnKey(u) {
				row = n
			}
		}
		if row >= 0 && mvcc.KeyTS(u) > w.o.T {
			f.drop[i] = true
			f.dropped++
		}
	}
	return nil
}

func isTxnKey(key []byte) bool {
	_, _, ok := mvcc.SplitKey(key)
	return ok
}

func collectorNames(prop string) []string {
	prop = strings.Trim(prop, "[]")
	if prop == "" {
		return nil
	}
	return strings.Split(prop, ",")
}
