package scan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// patient is a copy of a real store that a test damages.
type patient struct {
	t   *testing.T
	fs  *vfs.MemFS
	dir string
}

func admit(t *testing.T, fixture string) *patient {
	return &patient{t, fixtures.Mem(t, fixture), "/data"}
}

func (p *patient) base() base.FS { return base.NewMem(p.fs) }

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// look opens the store to find out what there is to damage.
func (p *patient) look(fn func(s *scan.Store)) {
	p.t.Helper()
	s, err := scan.Open(p.base(), p.dir, scan.Options{})
	p.must(err)
	fn(s)
	p.must(s.Close())
}

func (p *patient) path(elem ...string) string {
	return p.fs.PathJoin(append([]string{p.dir}, elem...)...)
}

func (p *patient) read(path string) []byte {
	p.t.Helper()
	b, err := base.ReadFile(p.base(), path)
	p.must(err)
	return b
}

func (p *patient) write(path string, b []byte) {
	p.t.Helper()
	p.must(base.WriteFileSync(p.base(), path, b, ""))
}

// flip changes one byte.
func (p *patient) flip(path string, off int64) {
	p.t.Helper()
	b := p.read(path)
	b[off] ^= 0x40
	p.write(path, b)
}

// op is one record of a write batch; a nil value deletes.
type op struct {
	cf    string
	key   []byte
	value []byte
}

// commit lets the key-value database have more writes, as one batch in a log of its own that continues the sequence.
func (p *patient) commit(ops ...op) {
	p.t.Helper()
	p.look(func(s *scan.Store) { p.log(s.DB, ops) })
}

// log appends a write-ahead log.
//
//	batch  : sequence u64 LE | count u32 LE | records
//	record : 05 cf varint | lp key | lp value    (put)      04 cf varint | lp key    (delete)
func (p *patient) log(db *rocks.DB, ops []op) {
	p.t.Helper()
	b := binary.LittleEndian.AppendUint64(nil, db.Log.NextSequence)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ops)))
	lp := func(x []byte) { b = append(binary.AppendUvarint(b, uint64(len(x))), x...) }
	for _, o := range ops {
		kind := byte(0x05)
		if o.value == nil {
			kind = 0x04
		}
		b = binary.AppendUvarint(append(b, kind), uint64(db.CF(o.cf).Meta.ID))
		lp(o.key)
		if o.value != nil {
			lp(o.value)
		}
	}
	var framed bytes.Buffer
	w := record.NewWriter(&framed)
	r, err := w.Next()
	p.must(err)
	_, err = r.Write(b)
	p.must(err)
	p.must(w.Close())
	n, err := db.FreeNumber()
	p.must(err)
	p.write(p.fs.PathJoin(db.WALDir, fmt.Sprintf("%06d.log", n)), framed.Bytes())
}

// region changes the stored state of a region.
func (p *patient) region(id uint64, change func(*scan.Region) []byte) {
	p.t.Helper()
	var value []byte
	p.look(func(s *scan.Store) {
		for i := range s.Regions {
			if s.Regions[i].ID == id {
				value = change(&s.Regions[i])
			}
		}
	})
	p.commit(op{scan.CFRaft, raftstate.RegionStateKey(id), value})
}

// tableOf gives the number, path and metadata of the largest table of a column family.
func (p *patient) tableOf(cf string) (f rocks.LevelFile, path string) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		for _, x := range s.DB.CF(cf).Files() {
			if f.FileMeta == nil || x.Size > f.Size {
				f, path = x, s.DB.TablePath(x.Number)
			}
		}
	})
	if f.FileMeta == nil {
		p.t.Fatalf("no table in %s", cf)
	}
	return f, path
}

// publish makes a new version of a database the current one.
func (p *patient) publish(db *rocks.DB, c rocks.Change) {
	p.t.Helper()
	n, err := db.FreeNumber()
	p.must(err)
	n += 10
	_, records, err := db.Draft(c, n)
	p.must(err)
	name := fmt.Sprintf("MANIFEST-%06d", n)
	p.must(manifest.Write(p.base(), p.fs.PathJoin(db.Dir, name), records, ""))
	p.write(p.fs.PathJoin(db.Dir, "CURRENT"), []byte(name+"\n"))
}

// rewrite replaces the largest table of a column family by one with the same records, collected by c. change, when given, edits
// the description for the MANIFEST.
func (p *patient) rewrite(cf string, c sst.Collector, change func(*manifest.FileMeta)) {
	p.t.Helper()
	old, _ := p.tableOf(cf)
	p.rewriteFile(cf, old, c, nil, change)
}

// rewriteFile is rewrite for any table; edit, when given, changes records, and says how many there should be of each: behind the first
// come older ones that do not decode.
func (p *patient) rewriteFile(cf string, old rocks.LevelFile, c sst.Collector, edit func(*ikey.Key, *[]byte) int, change func(*manifest.FileMeta)) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		r, done, err := s.DB.CF(cf).Table(old.FileMeta)
		p.must(err)
		defer done()
		n, err := s.DB.FreeNumber()
		p.must(err)
		o := sst.OptionsLike(r)
		o.Collectors = []sst.Collector{c}
		file, err := p.fs.Create(p.path("db", manifest.TableName(n)), vfs.WriteCategoryUnspecified)
		p.must(err)
		w := sst.NewWriter(file, o)
		it := r.NewIter()
		for ok := it.First(); ok; ok = it.Next() {
			k, v := it.Key().Clone(), bytes.Clone(it.Value())
			copies := 1
			if edit != nil {
				copies = edit(&k, &v)
			}
			for i := copies; i > 0; i-- {
				if copies > 1 {
					k.Seq = uint64(i)
				}
				p.must(w.Add(k, v))
				v = []byte("hidden")
			}
		}
		p.must(it.Err())
		p.must(it.Close())
		m, err := w.Finish()
		p.must(err)
		p.must(file.Close())
		meta := rocks.MetaOf(n, m, old.FileMeta, time.Unix(1_800_000_000, 0))
		if change != nil {
			change(meta)
		}
		p.publish(s.DB, rocks.Change{Delete: []rocks.Deleted{{CF: cf, LevelFile: old}}, Add: []rocks.Added{{CF: cf, Level: old.Level, Meta: meta}}, NextNumber: n + 1})
	})
}

// version is one write record of a live store.
type version struct {
	key    []byte // database key
	prefix []byte
	ts     mvcc.TS
	w      mvcc.Write
	newest bool // Put or Delete without a newer one
}

// versions reads all write records, newest first by key.
func versions(t *testing.T, s *scan.Store) []version {
	t.Helper()
	v, err := s.DB.CF(scan.CFWrite).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var out []version
	var last []byte
	newest := true
	for ok := v.First(); ok; ok = v.Next() {
		prefix, ts, _ := mvcc.SplitKey(v.User())
		w, err := mvcc.ParseWrite(bytes.Clone(v.Value()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(prefix, last) {
			last, newest = bytes.Clone(prefix), true
		}
		x := version{key: bytes.Clone(v.User()), prefix: bytes.Clone(prefix), ts: ts, w: w}
		if w.Type == mvcc.WritePut || w.Type == mvcc.WriteDelete {
			x.newest, newest = newest, false
		}
		out = append(out, x)
	}
	return out
}

// find gives the first version that fits.
func (p *patient) find(fit func(v version) bool) (out version) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		for _, v := range versions(p.t, s) {
			if fit(v) {
				out = v
				return
			}
		}
		p.t.Fatal("no such version")
	})
	return out
}

// walFiles lists the write-ahead logs of the key-value database, the newest last, without empty ones.
func (p *patient) walFiles() []string {
	p.t.Helper()
	var out []string
	p.look(func(s *scan.Store) {
		for _, l := range s.DB.Log.Logs {
			if l.Batches > 0 {
				out = append(out, l.Path)
			}
		}
	})
	return out
}

// files lists a directory.
func (p *patient) files(dir, suffix string) []string {
	p.t.Helper()
	names, err := p.fs.List(dir)
	p.must(err)
	var out []string
	for _, n := range names {
		if strings.HasSuffix(n, suffix) {
			out = append(out, p.fs.PathJoin(dir, n))
		}
	}
	return out
}

// liar writes properties of its own making.
type liar struct {
	props map[string]string
}

func (liar) Name() string             { return mvcc.MVCCCollectorName }
func (liar) Add([]byte, byte, []byte) {}
func (l liar) Finish(props map[string]string) {
	for k, v := range l.props {
		props[k] = v
	}
}

func u64(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }
