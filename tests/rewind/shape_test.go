package rewind_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

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

// shape is a physical layout for the logical content of a fixture: a store that has lived longer than the fixtures have.
//
// The content is written again as a stream of operations in time: hidden copies before the valid ones, records that are deleted
// later, among them some far above every T, and range tombstones. The stream is cut into runs; the oldest runs become levels 6, 5,
// ..., each of several files, the others one L0 file each. That is what flushes and compactions would have left: newer runs lie
// above older ones, a tombstone is written whole into every file of its level that it touches, and at the bottom level sequences
// may be zero.
type shape struct {
	rng    *rand.Rand
	deep   int // levels below L0
	shadow float64
	junk   float64
	ranges int // range tombstones per column family
	// bare is the share of files without TiKV's properties: they have to be read, whatever they hold.
	bare float64
	// oldEpochs leaves the epoch numbers out, as RocksDB before 8.10 did.
	oldEpochs bool
	// junkAbove: deleted records are above it.
	junkAbove mvcc.TS
	// edit changes the logical content first; nil leaves it.
	edit func(content)
}

func randomShape(rng *rand.Rand) shape {
	some := func(p float64) float64 { return p * float64(rng.IntN(2)) } // else old files would always have something above T
	return shape{rng: rng, deep: 1 + rng.IntN(3), shadow: some(0.1), junk: some(0.1), ranges: rng.IntN(6), bare: some(0.2), oldEpochs: rng.IntN(3) == 0}
}

func (sh shape) String() string {
	return fmt.Sprintf("%d deep levels, shadows %v, junk %v, %d range tombstones, bare %v, old epochs %v", sh.deep, sh.shadow, sh.junk, sh.ranges, sh.bare, sh.oldEpochs)
}

// op is one write. For a range tombstone value is the exclusive end.
type op struct {
	kind       ikey.Kind
	key, value string
	seq        uint64
}

// farFuture is above every T, so that a rewind has to take such records out wherever they hide.
const farFuture = mvcc.TS(1) << 60

// apply gives a fixture's store in memory this shape.
func (sh shape) apply(t testing.TB, mem *vfs.MemFS) {
	t.Helper()
	fs := base.NewMem(mem)
	s := open(t, fs, dataDir)
	want := contentOf(t, s)
	if sh.edit != nil {
		sh.edit(want)
	}
	db := s.DB
	next, err := db.FreeNumber()
	if err != nil {
		t.Fatal(err)
	}
	b := &shaper{shape: sh, t: t, fs: fs, s: s, next: next, seq: db.LastSeq + 1}
	b.c.FoldLogs = true
	for _, name := range db.Names() {
		b.family(name, want[name])
	}
	b.publish()
	closing(t, s)
	s = open(t, fs, dataDir)
	if d := differ(contentOf(t, s).withoutSeqs(), want.withoutSeqs()); d != "" {
		t.Fatalf("%v: the shaped store holds something else:\n%s", sh, d)
	}
	for _, f := range s.DB.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
		t.Errorf("%v: shaped store: %v", sh, f)
	}
	closing(t, s)
}

type shaper struct {
	shape
	t    testing.TB
	fs   base.FS
	s    *scan.Store
	c    rocks.Change
	next uint64 // free file number
	seq  uint64 // free sequence
}

// publish makes the change the store's version.
func (b *shaper) publish() {
	t, db := b.t, b.s.DB
	b.c.LastSeq, b.c.NextNumber = b.seq-1, b.next+1
	after, records, err := db.Draft(b.c, b.next)
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.Write(b.fs, b.fs.PathJoin(db.Dir, manifest.ManifestName(b.next)), records, db.State.Path); err != nil {
		t.Fatal(err)
	}
	if err := base.WriteFileSync(b.fs, b.fs.PathJoin(db.Dir, "CURRENT"), []byte(manifest.ManifestName(after.Number)+"\n"), ""); err != nil {
		t.Fatal(err)
	}
}

func (b *shaper) family(name string, want map[string]rec) {
	cf := b.s.DB.CF(name)
	for _, f := range cf.Files() {
		b.c.Delete = append(b.c.Delete, rocks.Deleted{CF: name, LevelFile: f})
	}
	ops := b.stream(name, want)
	for i := range ops {
		ops[i].seq = b.seq
		b.seq++
	}
	runs := 1 + b.deep + b.rng.IntN(4)
	epoch := uint64(0)
	for i := range runs {
		run := ops[i*len(ops)/runs : (i+1)*len(ops)/runs]
		if epoch++; b.oldEpochs {
			epoch = 0
		}
		if len(run) == 0 {
			continue
		}
		if i < b.deep {
			b.level(cf, 6-i, i == 0, run, epoch)
		} else {
			b.file(cf, 0, sortOps(run), tombstonesOf(run), nil, nil, epoch)
		}
	}
}

// stream makes the operations. Write records come in the order of their commits, so that old files hold nothing above T.
func (b *shaper) stream(name string, want map[string]rec) []op {
	var ops []op
	for k, r := range want {
		ops = append(ops, op{kind: r.kind, key: k, value: r.value})
	}
	slices.SortFunc(ops, func(x, y op) int { return bytes.Compare([]byte(x.key), []byte(y.key)) })
	b.rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	if name == scan.CFWrite {
		slices.SortStableFunc(ops, func(x, y op) int {
			_, tx, _ := split(x.key)
			_, ty, _ := split(y.key)
			if tx < ty {
				return -1
			}
			if tx > ty {
				return 1
			}
			return 0
		})
	}
	keys := make([]string, len(ops))
	for i, o := range ops {
		keys[i] = o.key
	}
	insert := func(at int, o op) { ops = slices.Insert(ops, at, o) }
	for _, k := range keys {
		r := want[k]
		if b.rng.Float64() < b.shadow {
			insert(b.rng.IntN(len(ops)/2+1), op{kind: ikey.KindPut, key: k, value: b.stale(name, k, r)})
		}
		if prefix, ts, ok := split(k); ok && name == scan.CFWrite && b.rng.Float64() < b.junk {
			junk := string(mvcc.AppendTS([]byte(prefix), max(ts, b.junkAbove)+1+mvcc.TS(b.rng.Uint64N(1<<30))))
			if b.rng.IntN(2) == 0 {
				junk = string(mvcc.AppendTS([]byte(prefix), farFuture+mvcc.TS(b.rng.Uint64N(1000))))
			}
			if _, used := want[junk]; !used {
				at := b.rng.IntN(len(ops))
				insert(at, op{kind: ikey.KindPut, key: junk, value: string(mvcc.Write{Type: mvcc.WritePut, StartTS: 7, ShortValue: []byte("junk"), HasShortValue: true}.Append(nil))})
				insert(at+1+b.rng.IntN(len(ops)-at), op{kind: ikey.KindDelete, key: junk})
			}
		}
	}
	slices.Sort(keys)
	for range b.ranges {
		if len(keys) < 20 || name == scan.CFRaft {
			break
		}
		i := b.rng.IntN(len(keys) - 10)
		at := b.rng.IntN(len(ops))
		if b.rng.IntN(2) == 0 {
			at /= 5 // at the bottom, where neighbours outlive it
		}
		insert(at, op{kind: ikey.KindRangeDelete, key: keys[i], value: keys[i+1+b.rng.IntN(len(keys)/4)%(len(keys)-i-1)]})
	}
	// Whatever came out wrong is put right at the end.
	got := replay(ops)
	for _, k := range keys {
		if r := want[k]; got[k] != (op{kind: r.kind, key: k, value: r.value}) {
			ops = append(ops, op{kind: r.kind, key: k, value: r.value})
		}
		delete(got, k)
	}
	for k := range got {
		ops = append(ops, op{kind: ikey.KindDelete, key: k})
	}
	slices.SortStableFunc(ops[len(ops)-len(got):], func(x, y op) int { return bytes.Compare([]byte(x.key), []byte(y.key)) })
	return ops
}

// stale is what a key may have held before: of a write record one without or with another gc_fence.
func (b *shaper) stale(name, key string, r rec) string {
	if name != scan.CFWrite {
		return "stale"
	}
	w, err := mvcc.ParseWrite([]byte(r.value))
	if err != nil {
		b.t.Fatal(err)
	}
	w.OverlappedRollback, w.HasGCFence, w.GCFence = true, true, farFuture
	if b.rng.IntN(2) == 0 {
		w.OverlappedRollback, w.HasGCFence, w.GCFence = false, false, 0
	}
	return string(w.Append(nil))
}

func replay(ops []op) map[string]op {
	got := map[string]op{}
	for _, o := range ops {
		switch o.kind {
		case ikey.KindDelete:
			delete(got, o.key)
		case ikey.KindRangeDelete:
			for k := range got {
				if k >= o.key && k < o.value {
					delete(got, k)
				}
			}
		default:
			got[o.key] = o
		}
	}
	return got
}

// sortOps gives the point records of a run in the order of a table.
func sortOps(run []op) []op {
	var out []op
	for _, o := range run {
		if o.kind != ikey.KindRangeDelete {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(x, y op) int { return ikey.Compare(x.ikey(), y.ikey()) })
	return out
}

func (o op) ikey() ikey.Key { return ikey.Key{User: []byte(o.key), Seq: o.seq, Kind: o.kind} }

func tombstonesOf(run []op) []ikey.RangeDel {
	var out []ikey.RangeDel
	for _, o := range run {
		if o.kind == ikey.KindRangeDelete {
			out = append(out, ikey.RangeDel{Start: []byte(o.key), End: []byte(o.value), Seq: o.seq})
		}
	}
	return out
}

// level writes a run as a compaction would: the newest record of each key that no tombstone hides, in several files.
func (b *shaper) level(cf *rocks.CF, level int, bottom bool, run []op, epoch uint64) {
	dels := tombstonesOf(run)
	var recs []op
	for _, o := range sortOps(run) {
		if len(recs) > 0 && recs[len(recs)-1].key == o.key {
			continue
		}
		hidden := slices.ContainsFunc(dels, func(d ikey.RangeDel) bool {
			return o.key >= string(d.Start) && o.key < string(d.End) && o.seq < d.Seq
		})
		if !hidden {
			recs = append(recs, o)
		}
	}
	cuts := [][]byte{nil}
	for i, n := 1, 1+b.rng.IntN(4); i < n && len(recs) > n; i++ {
		if c := []byte(recs[i*len(recs)/n].key); !bytes.Equal(c, cuts[len(cuts)-1]) {
			cuts = append(cuts, c)
		}
	}
	cuts = append(cuts, nil)
	for i := range len(cuts) - 1 {
		lo, hi := cuts[i], cuts[i+1]
		var part []op
		var over []ikey.RangeDel
		for _, o := range recs {
			if o.key >= string(lo) && (hi == nil || o.key < string(hi)) {
				part = append(part, o)
			}
		}
		for _, d := range dels {
			if (hi == nil || bytes.Compare(d.Start, hi) < 0) && bytes.Compare(d.End, lo) > 0 {
				over = append(over, d)
			}
		}
		// A file that has been compacted once more at the bottom has neither tombstones nor sequences.
		if bottom && b.rng.IntN(2) == 0 {
			over = nil
			part = slices.DeleteFunc(part, func(o op) bool { return o.kind == ikey.KindDelete })
			for j := range part {
				part[j].seq = 0
			}
		}
		b.file(cf, level, part, over, lo, hi, epoch)
	}
}

// file writes one table; its boundaries are cut to [lo, hi), its tombstones are not.
func (b *shaper) file(cf *rocks.CF, level int, recs []op, dels []ikey.RangeDel, lo, hi []byte, epoch uint64) {
	t := b.t
	if len(recs)+len(dels) == 0 {
		return
	}
	number := b.next
	b.next++
	o := sst.WriterOptions{CFID: cf.Meta.ID, CFName: cf.Meta.Name, FileNumber: number, BlockSize: 4 << 10,
		Compression: []byte{sst.CompressionNone, sst.CompressionLZ4, sst.CompressionZSTD}[b.rng.IntN(3)]}
	bare := b.rng.Float64() < b.bare
	switch cf.Meta.Name {
	case scan.CFWrite:
		o.Filter, o.PrefixExtractor = sst.FilterPrefix, "FixedSuffixSliceTransform"
		if !bare {
			o.Collectors = []sst.Collector{mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: true}), mvcc.NewRangeCollector(mvcc.RangeOptions{})}
		}
	case scan.CFDefault, scan.CFLock:
		o.Filter = sst.FilterWholeKey
		o.Collectors = []sst.Collector{mvcc.NewRangeCollector(mvcc.RangeOptions{})}
	}
	if !bare {
		o.Collectors = append(o.Collectors, sst.NewBlobCollector())
	}
	f, err := b.fs.Create(b.fs.PathJoin(b.s.DB.Dir, manifest.TableName(number)), base.DiskWriteCategory)
	if err != nil {
		t.Fatal(err)
	}
	w := sst.NewWriter(f, o)
	for _, r := range recs {
		if err := w.Add(r.ikey(), []byte(r.value)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range dels {
		if err := w.AddRangeDel(d); err != nil {
			t.Fatal(err)
		}
	}
	m, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	closing(t, f)
	if bytes.Compare(m.Smallest.User, lo) < 0 {
		m.Smallest.User = lo
		if len(recs) > 0 && ikey.Compare(recs[0].ikey(), m.Smallest) < 0 {
			m.Smallest = recs[0].ikey()
		}
	}
	if hi != nil && bytes.Compare(m.Largest.User, hi) > 0 {
		m.Largest = ikey.Key{User: hi, Seq: ikey.MaxSeq, Kind: ikey.KindRangeDelete}
	}
	meta := rocks.MetaOf(number, m, nil, now)
	meta.Epoch = epoch
	b.c.Add = append(b.c.Add, rocks.Added{CF: cf.Meta.Name, Level: level, Meta: meta})
}

// shapedMem is a fixture in this shape.
func shapedMem(t testing.TB, name string, sh shape) *vfs.MemFS {
	mem := fixtures.Mem(t, name)
	sh.apply(t, mem)
	return mem
}

// cloneMem copies a file system in memory.
func cloneMem(t testing.TB, from vfs.FS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, "/", "/"); err != nil || !ok {
		t.Fatalf("clone: %v %v", ok, err)
	}
	return to
}
