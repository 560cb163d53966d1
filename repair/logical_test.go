package repair

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// oddT is what the odd stores are rewound to.
const oddT = mvcc.TS(450_000_000_000_000_000)

// oddOp is one write of the write column family; of a range tombstone value is the end.
type oddOp struct {
	ikey.Key
	value []byte
}

// oddStore is a history of writes and what may have become of them on the disk.
type oddStore struct {
	rng  *rand.Rand
	ops  []oddOp
	text string
}

// newOddStore draws a history of few rows, so that everything meets everything: versions above and below T, of all types, with and without
// fences, written again, deleted both ways, under range tombstones; and, in some stores, what no TiKV writes.
func newOddStore(rng *rand.Rand) *oddStore {
	o := &oddStore{rng: rng}
	some := func(p float64) float64 { return p * float64(rng.IntN(2)) }
	rows, n := 1+rng.IntN(10<<rng.IntN(6)), rng.IntN(400)
	from := uint64(n * rng.IntN(4) / 4) // before it nothing is above T
	above, fences, deletes, ranges := some(0.4), some(0.3), some(0.2), some(0.01*float64(1+rng.IntN(3)))
	oddKeys, badValues, blobs, elsewhere := some(0.002)*some(1), some(0.002)*some(1), some(0.005)*some(1), some(0.02)
	o.text = fmt.Sprintf("%d rows, %d records, above T %v from %d on, fences %v, deletes %v, range tombstones %v, odd keys %v, bad values %v, blobs %v, elsewhere %v",
		rows, n, above, from, fences, deletes, ranges, oddKeys, badValues, blobs, elsewhere)
	is := func(p float64) bool { return rng.Float64() < p }
	row := func() []byte {
		r := rng.IntN(rows)
		user := append([]byte("t\x80\x00\x00\x00\x00\x00\x00"), byte(r%3), '_', 'r', byte(r>>8))
		return mvcc.LockKey(append(user, bytes.Repeat([]byte{byte(r)}, r%9)...)) // some are prefixes of others
	}
	for seq := uint64(1); seq <= uint64(n); seq++ {
		ts := oddT - mvcc.TS(rng.IntN(6))
		if seq > from && is(above) {
			ts = oddT + 1 + mvcc.TS(rng.IntN(4))
		}
		w := mvcc.Write{Type: "PDLR"[rng.IntN(4)], StartTS: ts - mvcc.TS(rng.IntN(3))}
		if w.HasShortValue = is(0.5); w.HasShortValue {
			w.ShortValue = bytes.Repeat([]byte("v"), rng.IntN(200))
		}
		if is(fences) {
			w.OverlappedRollback, w.HasGCFence = true, true
			w.GCFence = []mvcc.TS{0, oddT - 3, oddT, oddT + 1, oddT + 3}[rng.IntN(5)]
		}
		op := oddOp{ikey.Key{User: mvcc.AppendTS(row(), ts), Seq: seq, Kind: ikey.KindPut}, w.Append(nil)}
		switch {
		case is(ranges):
			op.Kind, op.value = ikey.KindRangeDelete, row()
			if bytes.Compare(op.User, op.value) >= 0 {
				op.Kind, op.value = ikey.KindDelete, nil
			}
		case is(deletes):
			op.Kind, op.value = []ikey.Kind{ikey.KindDelete, ikey.KindSingleDelete}[rng.IntN(8)/7], nil
		case is(oddKeys):
			op.User = append(op.User, "odd"[:1+rng.IntN(3)]...)
		case is(elsewhere):
			op.User[0]++ // behind the data range: nobody's row
		case is(badValues):
			op.value = []byte("?")
		case is(blobs):
			op.Kind = ikey.KindBlobIndex
		}
		o.ops = append(o.ops, op)
	}
	return o
}

// write makes the history the write column family of a store: the oldest part on levels 6 and 5, each in several files, then files of level
// 0. What it returns is the rest, which is in the logs.
func (o *oddStore) write(t *testing.T, fs base.FS, dir string) (logs []oddOp) {
	t.Helper()
	s := openStore(t, fs, dir)
	defer s.Close()
	db, cf, rng := s.DB, s.DB.CF(scan.CFWrite), o.rng
	next, err := db.FreeNumber()
	if err != nil {
		t.Fatal(err)
	}
	c := rocks.Change{LastSeq: db.LastSeq + uint64(len(o.ops)), FoldLogs: true}
	for _, f := range cf.Files() {
		c.Delete = append(c.Delete, rocks.Deleted{CF: scan.CFWrite, LevelFile: f})
	}
	for i := range o.ops {
		o.ops[i].Seq += db.LastSeq
	}
	for _, name := range db.Names() {
		var logged []oddOp // the other families keep what the logs hold
		it := rocks.Newest(db.CF(name).Log().Iter())
		for ok := it.First(); ok && name != scan.CFWrite; ok = it.Next() {
			logged = append(logged, oddOp{it.Key().Clone(), bytes.Clone(it.Value())})
		}
		if len(logged) > 0 {
			c.Add = append(c.Add, rocks.Added{CF: name, Meta: o.table(t, s, name, next, logged, nil, 0)})
			next++
		}
	}
	left := slices.Clone(o.ops)
	parts := 1 + rng.IntN(1+rng.IntN(6))
	for part := range parts {
		level, files := max(0, 6-part), 1
		if part >= 2 {
			level = 0
		} else {
			files += rng.IntN(4)
		}
		n := rng.IntN(1 + 2*len(left)/(parts-part+1))
		if part == parts-1 && rng.IntN(2) == 0 {
			n = len(left) // nothing is in the logs
		}
		points, dels := slices.Clone(left[:min(n, len(left))]), []ikey.RangeDel(nil)
		left = left[len(points):]
		points = slices.DeleteFunc(points, func(p oddOp) bool {
			if p.Kind == ikey.KindRangeDelete {
				dels = append(dels, ikey.RangeDel{Start: p.User, End: p.value, Seq: p.Seq})
			}
			return p.Kind == ikey.KindRangeDelete
		})
		slices.SortFunc(points, func(a, b oddOp) int { return ikey.Compare(a.Key, b.Key) })
		if len(dels) > 0 {
			files = 1
		}
		for i := range files {
			end := len(points) / (files - i)
			for end > 0 && end < len(points) && bytes.Equal(points[end].User, points[end-1].User) {
				end++
			}
			if end == 0 && len(dels) == 0 {
				continue
			}
			c.Add = append(c.Add, rocks.Added{CF: scan.CFWrite, Level: level, Meta: o.table(t, s, scan.CFWrite, next, points[:end], dels, uint64(part+1))})
			points, next = points[end:], next+1
		}
	}
	c.NextNumber = next + 1
	after, records, err := db.Draft(c, next)
	if err == nil {
		err = manifest.Write(fs, fs.PathJoin(db.Dir, manifest.ManifestName(next)), records, db.State.Path)
	}
	if err == nil {
		err = base.WriteFileSync(fs, fs.PathJoin(db.Dir, "CURRENT"), []byte(manifest.ManifestName(after.Number)+"\n"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func (o *oddStore) table(t *testing.T, s *scan.Store, cf string, number uint64, points []oddOp, dels []ikey.RangeDel, epoch uint64) *manifest.FileMeta {
	t.Helper()
	name := s.FS.PathJoin(s.DB.Dir, manifest.TableName(number))
	f, err := s.FS.Create(name, base.DiskWriteCategory)
	if err != nil {
		t.Fatal(err)
	}
	wo := sst.WriterOptions{CFID: s.DB.CF(cf).Meta.ID, CFName: cf, BlockSize: 64 << o.rng.IntN(8), RestartInterval: 1 + o.rng.IntN(16)}
	// Else nothing says what the table may hold. Collectors do not look at single deletes, which TiKV does not write.
	if single := func(p oddOp) bool { return p.Kind == ikey.KindSingleDelete }; cf == scan.CFWrite && o.rng.IntN(4) > 0 && !slices.ContainsFunc(points, single) {
		wo.Collectors = []sst.Collector{mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: true})}
	}
	w := sst.NewWriter(f, wo)
	for _, p := range points {
		err = errors.Join(err, w.Add(p.Key, p.value))
	}
	for _, d := range dels {
		err = errors.Join(err, w.AddRangeDel(d))
	}
	m, ferr := w.Finish()
	if err = errors.Join(err, ferr, f.Close()); err != nil {
		t.Fatal(err)
	}
	meta := rocks.MetaOf(number, m, nil, time.Unix(1_800_000_000, 0))
	meta.Epoch = epoch
	return meta
}

// plainly is the logical pass without any of its shortcuts: every row is taken record by record, in one go.
func (w *Rewinder) plainly(ctx context.Context) (*Effect, error) {
	p := &pass{w: w, e: newEffect(), ctx: ctx, fences: w.o.SafePoint != nil}
	sel := w.inSet
	if !p.fences {
		sel = nil
	}
	var err error
	if p.in, err = w.store.DB.CF(scan.CFWrite).NewPass([]byte{'z'}, []byte{'z' + 1}, sel); err != nil {
		return nil, err
	}
	for err == nil && p.in.Valid() {
		err = p.nextRow()
	}
	err = cmp.Or(err, p.in.Err())
	if e := p.in.Close(); err == nil {
		err = e
	}
	p.e.changed, p.e.logChanged = p.in.Touched(), p.in.LogTouched()
	return p.e, err
}

// told is everything that an effect says and writes.
func told(t *testing.T, fs base.FS, e *Effect) map[string]any {
	t.Helper()
	records := func(s *rocks.Spool) (out []string) {
		walk := func(it ikey.Iter) {
			for ok := it.First(); ok; ok = it.Next() {
				out = append(out, fmt.Sprintf("%X %v %X", it.Key().User, it.Key().Kind, it.Value()))
			}
			if err := errors.Join(it.Err(), it.Close()); err != nil {
				t.Error(err)
			}
		}
		for _, f := range s.Files {
			it, err := rocks.SpoolIter(fs, f.Path, 1)
			if err != nil {
				t.Fatal(err)
			}
			walk(it)
			if !slices.IsSorted(out) {
				t.Errorf("%s does not go on where the file before it ends", f.Path)
			}
		}
		s.Sort()
		walk(s.Iter())
		slices.Sort(out)
		return slices.Compact(out) // a row that two records name is deleted once or twice
	}
	tables := map[string]TableLoss{}
	for n, l := range e.Tables {
		tables[n] = *l
	}
	return map[string]any{
		"versions": e.VersionsRemoved, "rows": e.RowsChanged, "bytes": e.BytesRemoved, "default rows": e.DefaultRows, "fences": e.FencesCleared,
		"oldest": e.Oldest, "newest": e.Newest, "tables": tables, "histogram": e.Histogram.buckets(1000),
		"changed": slices.Sorted(maps.Keys(e.changed)), "fenced": slices.Sorted(maps.Keys(e.fenced)), "logs change": e.logChanged,
		"write": records(e.write), "default": records(e.deflt),
	}
}

// expected is what an oddStore's history says, without tables and iterators: all of it or, with the safe point known, only the fences of
// rows that lose a version.
func (o *oddStore) expected(known bool) map[string]any {
	newest := map[string]oddOp{}
	for _, op := range o.ops {
		if op.Kind != ikey.KindRangeDelete {
			newest[string(op.User)] = op
			continue
		}
		for k, v := range newest {
			if k >= string(op.User) && k < string(op.value) {
				v.Kind = ikey.KindDelete
				newest[k] = v
			}
		}
	}
	var versions, rows, size, deflt, fences int64
	lost, done := map[string]bool{}, map[string]bool{}
	for _, k := range slices.Sorted(maps.Keys(newest)) {
		op := newest[k]
		prefix, ts, ok := mvcc.SplitKey(op.User)
		w, err := mvcc.ParseWrite(op.value)
		if row := string(prefix); op.Kind != ikey.KindPut || !ok || err != nil {
			continue
		} else if data := w.Type == mvcc.WritePut || w.Type == mvcc.WriteDelete; ts > oddT {
			versions, size = versions+1, size+int64(len(op.User)+len(op.value))
			if data && !lost[row] {
				lost[row] = true
				rows++
			}
			if w.NeedsDefault() {
				deflt++
			}
		} else if !known || lost[row] && !done[row] {
			if w.GCFence > oddT {
				fences++
			}
			done[row] = data
		}
	}
	return map[string]any{"versions": versions, "rows": rows, "bytes": size, "default rows": deflt, "fences": fences}
}

// However the logical pass runs - in shards, in stretches of rows, not at all where nothing can be above T, spilled or not - it says and
// writes what taking every row record by record does, and what follows from the history. What it tells the physical pass about tables and
// their fences is what the rule for single records comes to.
func TestLogicalPassShortcuts(t *testing.T) {
	const seed, stores = 20, 200
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	fs := base.NewMem(fixtures.Mem(t, "single-clean-stop"))
	count := map[string]int{}
	for i := range stores {
		o := newOddStore(rng)
		logs := o.write(t, fs, "/data")
		s := openStore(t, fs, "/data")
		over := s.DB.NewOverlay()
		for _, op := range logs {
			if err := over.Add(scan.CFWrite, op.Kind, op.User, op.value); err != nil {
				t.Fatal(err)
			}
		}
		over.Close()
		for _, known := range []bool{true, false} {
			for _, threads := range []int{1, 3} {
				what := fmt.Sprintf("store %d (%s), safe point known %v, %d threads", i, o.text, known, threads)
				ro := RewindOptions{T: oddT, Threads: threads}
				if known {
					ro.SafePoint = new(mvcc.TS)
				}
				ctx := context.Background()
				slow, err := NewRewinder(ctx, s, ro)
				if err != nil {
					t.Fatal(err)
				}
				fast, err := NewRewinder(ctx, s, ro)
				if err != nil {
					t.Fatal(err)
				}
				if threads > 1 {
					fast.spill = rocks.Spill{Dir: "/spill", Limit: 256}
				}
				want, wantErr := slow.plainly(ctx)
				got, gotErr := fast.logicalPass(ctx)
				if wantErr != nil || gotErr != nil {
					count["refused"]++
					if wantErr == nil || gotErr == nil || threads == 1 && wantErr.Error() != gotErr.Error() {
						t.Fatalf("%s: %v, want %v", what, gotErr, wantErr)
					}
					continue
				}
				is := told(t, fs, got)
				if d := gocmp.Diff(told(t, fs, want), is); d != "" {
					t.Fatalf("%s (-record by record +with shortcuts):\n%s", what, d)
				}
				for name, n := range o.expected(known) {
					if is[name] != n {
						t.Errorf("%s: %s %v, the history says %v", what, name, is[name], n)
					}
				}
				if fast.quiet(ctx) {
					count["quiet"]++
				}
				count["versions"] += int(got.VersionsRemoved)
				count["fences"] += int(got.FencesCleared)
				count["spilled"] += len(got.deflt.Files)
				sameFates(t, what, fast, count)
			}
		}
		s.Close()
	}
	for _, name := range []string{"refused", "quiet", "versions", "fences", "spilled", "tables by keys alone", "tables by records", "tables that stay"} {
		if count[name] == 0 {
			t.Errorf("%s: none, the test shows less than it should", name)
		}
	}
	t.Log(count)
}

// sameFates compares what the batches of each table of the set come to with what the rule says of each record.
func sameFates(t *testing.T, what string, w *Rewinder, count map[string]int) {
	t.Helper()
	cf := w.store.DB.CF(scan.CFWrite)
	for _, f := range cf.Files() {
		if !w.set[f.Number] {
			continue
		}
		r, done, err := cf.Table(f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		one, batch := w.rule(scan.CFWrite), w.batchRule(scan.CFWrite, f, w.rule(scan.CFWrite))
		in := r.NewBatches()
		var got fates
		touched, fenced := false, false
		for in.Next() {
			got.reset(in.Len())
			if err := batch(&in.Batch, &got); err != nil {
				t.Fatal(err)
			}
			changed := map[int]string{}
			for _, c := range got.changed {
				changed[c.i] = string(c.value)
			}
			for i := range in.Len() {
				fate, v, err := one(in.Key(i), in.Value(i))
				if err != nil {
					t.Fatal(err)
				}
				now, isChanged := changed[i]
				if got.drop[i] != (fate == drop) || isChanged != (fate == change) || isChanged && now != string(v) {
					t.Fatalf("%s: table %d, %v: dropped %v, changed %v, want fate %d", what, f.Number, in.Key(i), got.drop[i], isChanged, fate)
				}
				touched, fenced = touched || fate != keep, fenced || fate == change
			}
		}
		if err := in.Err(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if err := done(); err != nil {
			t.Fatal(err)
		}
		if w.changed[f.Number] != touched || w.fenced[f.Number] != fenced {
			t.Errorf("%s: table %d is said to change %v, to have fences %v; it does %v, has %v", what, f.Number, w.changed[f.Number], w.fenced[f.Number], touched, fenced)
		}
		switch {
		case fenced:
			count["tables by records"]++
		case touched:
			count["tables by keys alone"]++
		default:
			count["tables that stay"]++
		}
	}
}
