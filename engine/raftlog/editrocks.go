package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/record"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// defaultCF is the one column family of a raft RocksDB.
const defaultCF = "default"

// dbStore is a raft RocksDB that can be changed.
type dbStore struct {
	rocksStore
	db *rocks.DB
	// own: db was opened here.
	own bool
}

func (s *dbStore) Close() error {
	if s.own {
		return s.db.Close()
	}
	return nil
}

// dbKV shows a column family as a KV.
type dbKV struct{ cf *rocks.CF }

func (k dbKV) Get(key []byte) ([]byte, bool, error) {
	v, kind, ok, err := k.cf.Get(key)
	if ok && kind == ikey.KindBlobIndex {
		return nil, false, errBlob(key)
	}
	return v, ok, err
}

func (k dbKV) Scan(start, end []byte, fn func(key, value []byte) error) error {
	v, err := k.cf.NewVisible(start, end, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		if v.Kind() == ikey.KindBlobIndex {
			return errBlob(v.User())
		}
		if err := fn(v.User(), v.Value()); err != nil {
			return err
		}
	}
	return v.Err()
}

func errBlob(key []byte) error {
	return &base.Error{Class: base.ErrUnsupported, Op: "read raft log", Offset: -1, Key: bytes.Clone(key),
		Reason: "the raft database keeps values in Titan blob files"}
}

// rocksEdit adds one L0 table to a raft RocksDB: what its write-ahead logs hold, and the changed records above that. The logs have
// to go with it, because RocksDB looks into what it has replayed first, whatever the sequence numbers say. CURRENT is the one
// moment at which all changes take effect.
type rocksEdit struct {
	s   *dbStore
	b   *Batch
	out []*outcome
	now time.Time

	run     *rocks.Run
	deleted int
	table   string // path of the new table
	number  uint64
	after   *manifest.State // nil until staged
}

func planRocks(s *dbStore, b *Batch, out []*outcome, now time.Time) (Edit, error) {
	p := &rocksEdit{s: s, b: b, out: out, now: now, run: &rocks.Run{}}
	if b.Empty() {
		return p, nil
	}
	if err := s.db.Log.Err(); err != nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "plan raft edit", Path: s.db.WALDir, Offset: -1, Err: err,
			Reason: "the write-ahead logs of the raft database are damaged"}
	}
	for _, name := range s.db.Names() {
		if name != defaultCF && !s.db.CF(name).Log().Empty() {
			return nil, base.Unsupportedf(s.db.Dir, "the raft database has the column family %q with records in its write-ahead logs", name)
		}
	}
	for _, o := range out {
		if err := p.records(o); err != nil {
			return nil, err
		}
	}
	if end := p.run.Number(s.db.LastSeq + 1); end > ikey.MaxSeq {
		return nil, base.Unsupportedf(s.db.Dir, "the sequence numbers are used up")
	}
	p.run.Sort()
	var err error
	if p.number, err = s.db.FreeNumber(); err != nil {
		return nil, err
	}
	p.table = s.db.FS.PathJoin(s.db.Dir, manifest.TableName(p.number))
	return p, nil
}

// records turns the outcome of one region into puts and deletions, one for each key that changes.
func (p *rocksEdit) records(o *outcome) error {
	put := func(key, value []byte) { p.run.Add(ikey.Key{User: key, Kind: ikey.KindPut}, value) }
	del := func(key []byte) {
		p.run.Add(ikey.Key{User: key, Kind: ikey.KindDelete}, nil)
		p.deleted++
	}
	for k := range o.put {
		if k != stateKey {
			return &base.Error{Class: base.ErrUnsupported, Op: "plan raft edit", Path: p.s.db.Dir, Offset: -1, Region: o.region,
				Reason: fmt.Sprintf("a raft database has no place for the key %X", k)}
		}
	}
	// Every entry goes that is neither kept nor written again; those that no reader looks at, too: a later conversion to
	// raft-engine would stumble over a hole.
	from := uint64(0)
	if o.keepBelow > o.first {
		from = o.keepBelow
	}
	var addFirst, addEnd uint64
	if n := len(o.added); n > 0 {
		addFirst, addEnd = o.added[0].Index, o.added[n-1].Index+1
	}
	err := p.s.kv.Scan(raftstate.RaftLogKey(o.region, from), raftstate.RaftStateKey(o.region), func(key, _ []byte) error {
		kind, _, index, ok := raftstate.ParseLocalKey(key)
		if !ok || kind != raftstate.KeyRaftLog {
			return badKey(key)
		}
		if index < addFirst || index >= addEnd {
			del(key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range o.added {
		put(raftstate.RaftLogKey(o.region, e.Index), e.Raw)
	}
	key := raftstate.RaftStateKey(o.region)
	if raw, ok := o.put[stateKey]; ok {
		put(key, raw)
	} else if o.cleaned {
		if _, have, err := p.s.kv.Get(key); err != nil {
			return err
		} else if have {
			del(key)
		}
	}
	return nil
}

func (p *rocksEdit) Empty() bool { return p.b.Empty() }

func (p *rocksEdit) Dirs() []string {
	if p.Empty() {
		return nil
	}
	return []string{p.s.db.Dir}
}

func (p *rocksEdit) log() *rocks.Log { return p.s.db.CF(defaultCF).Log() }

func (p *rocksEdit) Bytes() int64 {
	if p.Empty() {
		return 0
	}
	n := p.log().Bytes() + p.run.Bytes()
	for _, r := range p.s.db.State.Records {
		n += int64(len(r))
	}
	return n
}

func (p *rocksEdit) Summary() Summary {
	s := Summary{File: p.table, Regions: len(p.out), Deleted: p.deleted}
	for _, o := range p.out {
		s.Entries += len(o.added)
	}
	if !p.Empty() {
		s.FoldedLog = p.log().Len()
	}
	return s
}

func (p *rocksEdit) Stage(sink Sink) error {
	if p.Empty() {
		return nil
	}
	db := p.s.db
	change := rocks.Change{FoldLogs: true, LastSeq: db.LastSeq + uint64(p.run.Len()), NextNumber: p.number + 2}
	meta, err := p.writeTable(sink)
	if err != nil {
		return err
	}
	if meta != nil {
		change.Add = []rocks.Added{{CF: defaultCF, Level: 0, Meta: rocks.MetaOf(p.number, *meta, nil, p.now)}}
	}
	after, records, err := db.Draft(change, p.number+1)
	if err != nil {
		return err
	}
	name := manifest.ManifestName(p.number + 1)
	if err := writeManifest(sink, db.FS.PathJoin(db.Dir, name), records, db.State.Path); err != nil {
		return err
	}
	current := db.FS.PathJoin(db.Dir, "CURRENT")
	if err := sink.Replace(current, []byte(name+"\n")); err != nil {
		return err
	}
	save := []string{current, db.State.Path}
	for _, l := range db.Log.Logs {
		save = append(save, l.Path)
	}
	for _, f := range save {
		if err := sink.Save(f); err != nil {
			return err
		}
	}
	p.after = after
	return nil
}

// writeTable writes the L0 table; without a record there is none.
func (p *rocksEdit) writeTable(sink Sink) (*sst.Meta, error) {
	it := rocks.Newest(rocks.Merge(p.run.Iter(), p.log().Iter()))
	defer it.Close()
	more := it.First()
	dels := p.log().RangeDels()
	if !more && len(dels) == 0 {
		return nil, it.Err()
	}
	o, like, err := p.tableOptions()
	if err != nil {
		return nil, err
	}
	f, err := sink.Create(p.table)
	if err != nil {
		return nil, err
	}
	w := sst.NewWriter(f, o)
	for ; more && err == nil; more = it.Next() {
		err = w.Add(it.Key(), it.Value())
	}
	if err == nil {
		err = it.Err()
	}
	for i := 0; i < len(dels) && err == nil; i++ {
		err = w.AddRangeDel(dels[i])
	}
	var meta sst.Meta
	if err == nil {
		meta, err = w.Finish()
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, base.IO("write", p.table, err)
	}
	return &meta, sink.Add(p.table, like)
}

// tableOptions are those of the newest live table; as RocksDB flushes it, not compressed.
func (p *rocksEdit) tableOptions() (o sst.WriterOptions, like string, err error) {
	cf := p.s.db.CF(defaultCF)
	var newest *manifest.FileMeta
	for _, f := range cf.Files() {
		if newest == nil || f.Number > newest.Number {
			newest = f.FileMeta
		}
	}
	o, like = sst.WriterOptions{CFID: cf.Meta.ID, CFName: defaultCF}, p.s.db.State.Path
	if newest != nil {
		r, done, err := cf.Table(newest)
		if err != nil {
			return o, "", err
		}
		o, like = sst.OptionsLike(r), r.Path()
		if err := done(); err != nil {
			return o, "", err
		}
	}
	now := uint64(p.now.Unix())
	o.Compression, o.FileNumber = 0, p.number
	o.CreationTime, o.OldestKeyTime, o.FileCreationTime = now, now, now
	return o, like, nil
}

func writeManifest(sink Sink, final string, records [][]byte, like string) error {
	f, err := sink.Create(final)
	if err != nil {
		return err
	}
	w := record.NewWriter(f)
	for _, r := range records {
		rec, e := w.Next()
		if e == nil {
			_, e = rec.Write(r)
		}
		if err = e; err != nil {
			break
		}
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return base.IO("write", final, err)
	}
	return sink.Add(final, like)
}

func (p *rocksEdit) Staged(suffix string) (Store, error) {
	if p.Empty() {
		return p.s, nil
	}
	if p.after == nil {
		return nil, errors.New("the edit has not been staged")
	}
	return p.open(rocks.Options{State: p.after, TablePath: func(n uint64) string {
		if n == p.number {
			return p.table + suffix
		}
		return ""
	}})
}

func (p *rocksEdit) Published() (Store, error) {
	if p.Empty() {
		return p.s, nil
	}
	return p.open(rocks.Options{})
}

func (p *rocksEdit) open(o rocks.Options) (Store, error) {
	o.WALDir = p.s.db.WALDir
	db, err := rocks.Open(p.s.db.FS, p.s.db.Dir, o)
	if err != nil {
		return nil, err
	}
	s, err := p.check(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (p *rocksEdit) check(db *rocks.DB) (Store, error) {
	if found := db.SelfCheck(func(_ string, f rocks.LevelFile) bool { return f.Number == p.number }); len(found) > 0 {
		return nil, readBack(0, "%s", found[0])
	}
	s, err := OpenDB(db)
	if err != nil {
		return nil, err
	}
	s.(*dbStore).own = true
	return s, verify(p.s, s, p.out)
}
