// Package badinput proves that a damaged file never makes the tool crash, take all memory, write, or pass off wrong data as right: every byte
// that matters is flipped in turn, every file is cut at every length.
package badinput

import (
	"bytes"
	"encoding/binary"
	"path"
	"slices"
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
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const (
	fixture = "multi5-lost3"
	dataDir = "/store0"
	// grafted rows of each kind: in tables, in the log.
	rowsInTables, rowsInLog = 60, 12
)

var now = time.Unix(1_790_000_000, 0)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// smallStore is a store in which every byte can be tried: 50 kB, of which TiKV's configuration files are most.
//
// It is store0 of multi5-lost3, a real store that held three regions and no rows when it was killed: MANIFEST, OPTIONS, CURRENT, raft-engine
// log and write-ahead log are TiKV's own bytes. Rows of store1, of the same cluster, are grafted onto it: two thirds of them as an L6
// table of the write column family, the newest of those as an L0 table above it, their long values as an L0 table of the default
// column family; the last ones as a second write-ahead log behind TiKV's own. Their keys begin with r 0 0 0 instead of t, which puts them
// into one of the three regions. The MANIFEST gets one more group of edits. The zeros behind the raft log are cut off but for a few.
func smallStore(tb testing.TB) *vfs.MemFS {
	tb.Helper()
	whole := fixtures.Mem(tb, fixture)
	donor, err := rocks.Open(base.NewMem(whole), "/store1/db", rocks.Options{})
	must(tb, err)
	defer donor.Close()
	mem := vfs.NewMem()
	if _, err := vfs.Clone(whole, mem, dataDir, dataDir); err != nil {
		tb.Fatal(err)
	}
	fs := base.NewMem(mem)
	db, err := rocks.Open(fs, dataDir+"/db", rocks.Options{})
	must(tb, err)
	defer db.Close()

	write, deflt := graft(tb, donor)
	g := &grafter{tb: tb, fs: fs, db: db, seq: db.LastSeq + 1, number: 20, edits: map[string]*manifest.Edit{}}
	var lower, upper, values, logged rocks.Run
	for i, r := range write {
		switch run := &lower; {
		case i >= rowsInTables:
			g.log(scan.CFWrite, r)
			logged.Add(r.key, r.value)
		case i%6 == 5:
			run = &upper
			fallthrough
		default:
			run.Add(ikey.Key{User: r.key.User, Seq: g.take(), Kind: ikey.KindPut}, r.value)
		}
	}
	for i, r := range deflt {
		if i%4 == 3 {
			g.log(scan.CFDefault, r)
			continue
		}
		values.Add(ikey.Key{User: r.key.User, Seq: g.take(), Kind: ikey.KindPut}, r.value)
	}
	if lower.Len() == 0 || upper.Len() == 0 || values.Len() == 0 || logged.Len() == 0 {
		tb.Fatalf("%d %d %d %d rows grafted", lower.Len(), upper.Len(), values.Len(), logged.Len())
	}
	g.table(scan.CFWrite, 6, &lower, sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 1 << 10, Filter: sst.FilterPrefix, PrefixExtractor: "FixedSuffixSliceTransform"})
	g.table(scan.CFWrite, 0, &upper, sst.WriterOptions{BlockSize: 1 << 10, Filter: sst.FilterPrefix, PrefixExtractor: "FixedSuffixSliceTransform"})
	g.table(scan.CFDefault, 0, &values, sst.WriterOptions{Compression: sst.CompressionZSTD, BlockSize: 1 << 10, Filter: sst.FilterWholeKey})
	g.finish()

	raftLog := dataDir + "/raft-engine/0000000000000001.raftlog"
	b, err := base.ReadFile(fs, raftLog)
	must(tb, err)
	must(tb, base.WriteFileSync(fs, raftLog, append(bytes.TrimRight(b, "\x00"), make([]byte, 32)...), ""))
	return mem
}

type row struct {
	key   ikey.Key
	value []byte
}

// graft takes write records of whole rows from a donor, spread over its key range, and the long values that they own.
func graft(tb testing.TB, donor *rocks.DB) (write, deflt []row) {
	tb.Helper()
	var prefixes [][]byte
	count := map[string]int{}
	it := donor.CF(scan.CFWrite).Log().Iter()
	for ok := it.First(); ok; ok = it.Next() {
		p, _, txn := mvcc.SplitKey(it.Key().User)
		if !txn || it.Key().Kind != ikey.KindPut {
			continue
		}
		if count[string(p)]++; count[string(p)] == 1 {
			prefixes = append(prefixes, bytes.Clone(p))
		}
	}
	want := map[string]bool{}
	for i := 0; i < len(prefixes); i += max(1, len(prefixes)/24) {
		want[string(prefixes[i])] = true
	}
	owners := map[string]bool{}
	for ok := it.First(); ok; ok = it.Next() {
		p, _, txn := mvcc.SplitKey(it.Key().User)
		if !txn || !want[string(p)] || it.Key().Kind != ikey.KindPut || len(write) == rowsInTables+rowsInLog {
			continue
		}
		w, err := mvcc.ParseWrite(it.Value())
		must(tb, err)
		write = append(write, row{ikey.Key{User: moved(tb, it.Key().User)}, bytes.Clone(it.Value())})
		if w.NeedsDefault() {
			owners[string(mvcc.AppendTS(bytes.Clone(p), w.StartTS))] = true
		}
	}
	d := donor.CF(scan.CFDefault).Log().Iter()
	for ok := d.First(); ok; ok = d.Next() {
		if owners[string(d.Key().User)] && d.Key().Kind == ikey.KindPut {
			deflt = append(deflt, row{ikey.Key{User: moved(tb, d.Key().User)}, bytes.Clone(d.Value())})
		}
	}
	return write, deflt
}

// moved is the key with another beginning.
func moved(tb testing.TB, key []byte) []byte {
	tb.Helper()
	prefix, ts, _ := mvcc.SplitKey(key)
	user, err := mvcc.UserKey(prefix)
	must(tb, err)
	return mvcc.DataKey(append([]byte("r\x00\x00\x00"), user[1:]...), ts)
}

type grafter struct {
	tb     testing.TB
	fs     base.FS
	db     *rocks.DB
	seq    uint64
	number uint64
	edits  map[string]*manifest.Edit
	logged []byte // records of the batch
	count  uint32
}

func (g *grafter) take() uint64 { g.seq++; return g.seq - 1 }

// log adds a Put to the batch of the second log: tag 0x05, column family, key, value.
func (g *grafter) log(cf string, r row) {
	b := append(g.logged, 0x05)
	b = binary.AppendUvarint(b, uint64(g.db.CF(cf).Meta.ID))
	b = append(binary.AppendUvarint(b, uint64(len(r.key.User))), r.key.User...)
	g.logged = append(binary.AppendUvarint(b, uint64(len(r.value))), r.value...)
	g.count++
}

func (g *grafter) edit(cf string) *manifest.Edit {
	if g.edits[cf] == nil {
		g.edits[cf] = &manifest.Edit{CF: g.db.CF(cf).Meta.ID, PrevLogNumber: manifest.Ptr(uint64(0))}
	}
	return g.edits[cf]
}

func (g *grafter) table(cf string, level int, run *rocks.Run, o sst.WriterOptions) {
	g.tb.Helper()
	run.Sort()
	o.CFID, o.CFName, o.FileNumber = g.db.CF(cf).Meta.ID, cf, g.number
	if cf == scan.CFWrite {
		o.Collectors = append(o.Collectors, mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: true}))
	}
	o.Collectors = append(o.Collectors, mvcc.NewRangeCollector(mvcc.RangeOptions{SizeDistance: 4 << 20, KeysDistance: 40 << 10}))
	f, err := g.fs.Create(g.db.TablePath(g.number), base.DiskWriteCategory)
	must(g.tb, err)
	w := sst.NewWriter(f, o)
	it := run.Iter()
	for ok := it.First(); ok; ok = it.Next() {
		must(g.tb, w.Add(it.Key(), it.Value()))
	}
	meta, err := w.Finish()
	must(g.tb, err)
	must(g.tb, f.Close())
	m := rocks.MetaOf(g.number, meta, nil, now)
	m.Epoch = uint64(len(g.edit(cf).NewFiles)) + 1
	g.edit(cf).NewFiles = append(g.edit(cf).NewFiles, manifest.NewFile{Level: level, File: m})
	g.number++
}

// finish writes the second log, in several batches so that some end within it, and the MANIFEST.
func (g *grafter) finish() {
	g.tb.Helper()
	f, err := g.fs.Create(path.Join(g.db.Dir, "000018.log"), base.DiskWriteCategory)
	must(g.tb, err)
	w := record.NewWriter(f)
	// Every Put is a batch of its own: it starts where the last one ends.
	for rest, n := g.logged, uint32(0); n < g.count; n++ {
		body, tail := splitPut(g.tb, rest)
		rest = tail
		batch := binary.LittleEndian.AppendUint64(nil, g.take())
		batch = append(binary.LittleEndian.AppendUint32(batch, 1), body...)
		_, err := w.WriteRecord(batch)
		must(g.tb, err)
	}
	must(g.tb, w.Close())
	must(g.tb, f.Close())
	var edits []*manifest.Edit
	for _, name := range g.db.Names() {
		if e := g.edits[name]; e != nil {
			e.NextFileNumber, e.LastSequence = manifest.Ptr(g.number+1), manifest.Ptr(g.seq)
			edits = append(edits, e)
		}
	}
	records, err := manifest.BuildRecords(g.db.State, edits, 0)
	must(g.tb, err)
	must(g.tb, manifest.Write(g.fs, g.db.State.Path, append(slices.Clone(g.db.State.Records), records...), ""))
}

func splitPut(tb testing.TB, b []byte) (put, rest []byte) {
	tb.Helper()
	off := 1
	_, n := binary.Uvarint(b[off:])
	off += n
	for range 2 {
		size, n := binary.Uvarint(b[off:])
		off += n + int(size)
	}
	return b[:off], b[off:]
}
