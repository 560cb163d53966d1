package rewind_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// table is one file of the write column family: all its records in order, its tombstones, where it stands.
type table struct {
	name   string
	level  int
	recs   []physical
	dels   []ikey.RangeDel
	lo, hi []byte // first and last user key, tombstones included
	newest uint64
}

type physical struct {
	key   ikey.Key
	value []byte
}

// lsm is the write column family as compactions see it, and the default rows that its versions need.
type lsm struct {
	tables []*table // newest first
	rows   map[string]bool
}

func (l *lsm) add(t *table) {
	for _, r := range t.recs {
		t.cover(r.key.User, r.key.User)
		t.newest = max(t.newest, r.key.Seq)
	}
	for _, d := range t.dels {
		t.cover(d.Start, d.End)
		t.newest = max(t.newest, d.Seq)
	}
	l.tables = append(l.tables, t)
}

func (t *table) cover(lo, hi []byte) {
	if t.lo == nil || bytes.Compare(lo, t.lo) < 0 {
		t.lo = lo
	}
	if t.hi == nil || bytes.Compare(hi, t.hi) > 0 {
		t.hi = hi
	}
}

func (t *table) meets(o *table) bool {
	return bytes.Compare(t.lo, o.hi) <= 0 && bytes.Compare(o.lo, t.hi) <= 0
}

// loadLSM reads the write column family physically. Logs, if there are any, become the newest table, as a flush makes it.
func loadLSM(t testing.TB, s *scan.Store) *lsm {
	t.Helper()
	cf := s.DB.CF(scan.CFWrite)
	l := &lsm{rows: map[string]bool{}}
	read := func(name string, level int, it ikey.Iter, dels []ikey.RangeDel) {
		tab := &table{name: name, level: level, dels: dels}
		for ok := it.First(); ok; ok = it.Next() {
			tab.recs = append(tab.recs, physical{it.Key().Clone(), bytes.Clone(it.Value())})
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		closing(t, it)
		l.add(tab)
	}
	if !cf.Log().Empty() {
		read("logs", 0, cf.Log().Iter(), cf.Log().RangeDels())
	}
	for _, f := range cf.Files() {
		r, done, err := cf.Table(f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		dels, err := rocks.TableRangeDels(r, f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		read(fmt.Sprintf("L%d %06d", f.Level, f.Number), f.Level, r.NewIter(), dels)
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	for k := range contentOf(t, s)[scan.CFDefault] {
		l.rows[k] = true
	}
	return l
}

// visible gives what RocksDB's readers see of some tables: per user key the newest record that no tombstone covers. With only, rows
// that are not in it are left out.
func visible(tables []*table, only map[string]bool) map[string]physical {
	out := map[string]physical{}
	var dels []ikey.RangeDel
	for _, t := range tables {
		dels = append(dels, t.dels...)
		for _, r := range t.recs {
			if only != nil && !only[string(r.key.User[:max(0, len(r.key.User)-8)])] {
				continue
			}
			if old, ok := out[string(r.key.User)]; !ok || r.key.Seq > old.key.Seq {
				out[string(r.key.User)] = r
			}
		}
	}
	for k, r := range out {
		covered := slices.ContainsFunc(dels, func(d ikey.RangeDel) bool {
			return k >= string(d.Start) && k < string(d.End) && r.key.Seq < d.Seq
		})
		if covered || r.key.Kind == ikey.KindDelete || r.key.Kind == ikey.KindSingleDelete {
			delete(out, k)
		}
	}
	return out
}

// versions groups visible records by row, newest first.
func versions(vis map[string]physical) map[string][]mvcc.GCEntry {
	out := map[string][]mvcc.GCEntry{}
	for k, r := range vis {
		prefix, ts, ok := split(k)
		if ok {
			out[prefix] = append(out[prefix], mvcc.GCEntry{Key: []byte(prefix), CommitTS: ts, Value: r.value})
		}
	}
	for _, vs := range out {
		slices.SortFunc(vs, func(a, b mvcc.GCEntry) int {
			if a.CommitTS > b.CommitTS {
				return -1
			}
			return 1
		})
	}
	return out
}

// readRow is what a client finds at ts: commit, start and short value, or "" without a row.
func readRow(t testing.TB, vs []mvcc.GCEntry, ts mvcc.TS, rows map[string]bool) string {
	i := 0
	w, commit, ok, err := mvcc.Visible(ts, func() (mvcc.TS, []byte, bool) {
		if i == len(vs) {
			return 0, nil, false
		}
		i++
		return vs[i-1].CommitTS, vs[i-1].Value, true
	})
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return ""
	}
	if w.NeedsDefault() && !rows[string(mvcc.AppendTS(bytes.Clone(vs[0].Key), w.StartTS))] {
		return "value is missing"
	}
	return fmt.Sprintf("%s %s %X", commit, w.StartTS, w.ShortValue)
}

// bottommost tells whether RocksDB may call a compaction of chosen bottommost: nothing older that overlaps stays outside.
func (l *lsm) bottommost(chosen map[*table]bool) bool {
	for c := range chosen {
		for _, t := range l.tables {
			if !chosen[t] && t.meets(c) && (t.level > c.level || t.level == 0 && c.level == 0 && t.newest < c.newest) {
				return false
			}
		}
	}
	return true
}

// compact runs TiKV's filter over the chosen tables at a safe point and gives the tables afterwards, the default rows that are left,
// and the rows that it touched.
func (l *lsm) compact(t testing.TB, chosen map[*table]bool, safePoint mvcc.TS, bottom bool) (after *lsm, touched map[string]bool) {
	t.Helper()
	var in []*table
	after = &lsm{rows: l.rows}
	for _, tab := range l.tables {
		if chosen[tab] {
			in = append(in, tab)
		} else {
			after.tables = append(after.tables, tab)
		}
	}
	out := &table{name: "output"}
	type at struct{ key, value string }
	seqs := map[string]uint64{}
	had := map[string]at{}
	var entries []mvcc.GCEntry
	var recs []physical
	for _, tab := range in {
		recs = append(recs, tab.recs...)
		out.dels = append(out.dels, tab.dels...)
	}
	slices.SortFunc(recs, func(a, b physical) int { return ikey.Compare(a.key, b.key) })
	for _, r := range recs {
		covered := slices.ContainsFunc(out.dels, func(d ikey.RangeDel) bool {
			return bytes.Compare(r.key.User, d.Start) >= 0 && bytes.Compare(r.key.User, d.End) < 0 && r.key.Seq < d.Seq
		})
		prefix, ts, ok := mvcc.SplitKey(r.key.User)
		if covered || !ok {
			continue
		}
		if _, seen := seqs[string(r.key.User)]; !seen {
			seqs[string(r.key.User)] = r.key.Seq
			had[string(r.key.User)] = at{string(prefix), string(r.value)}
		}
		entries = append(entries, mvcc.GCEntry{Key: bytes.Clone(prefix), CommitTS: ts, Kind: byte(r.key.Kind), Value: r.value})
	}
	if bottom {
		out.dels = nil
	}
	res, err := mvcc.GCFilter(entries, safePoint, bottom)
	if err != nil {
		t.Fatal(err)
	}
	touched = map[string]bool{}
	for _, e := range res.Kept {
		user := mvcc.AppendTS(bytes.Clone(e.Key), e.CommitTS)
		out.recs = append(out.recs, physical{ikey.Key{User: user, Seq: seqs[string(user)], Kind: ikey.Kind(e.Kind)}, e.Value})
		if had[string(user)].value == string(e.Value) {
			delete(had, string(user))
		}
	}
	for _, h := range had {
		touched[h.key] = true
	}
	if len(out.recs)+len(out.dels) > 0 {
		after.add(out)
	}
	if len(res.DefaultRows) > 0 {
		after.rows = maps.Clone(l.rows)
		for _, d := range res.DefaultRows {
			delete(after.rows, string(mvcc.AppendTS(bytes.Clone(d.Key), d.StartTS)))
			touched[string(d.Key)] = true
		}
	}
	return after, touched
}

// subsets gives every choice of input files: with few tables all of them, which contains every choice that leveled compaction can
// make (any prefix of the oldest L0 files with what they overlap below, one file of a level with what it overlaps below, a
// trivially larger CompactRange). With many tables: each alone, each pair, each level, the oldest k L0 files with and without what
// lies below, and everything.
func (l *lsm) subsets() []map[*table]bool {
	var out []map[*table]bool
	pick := func(keep func(i int, t *table) bool) {
		m := map[*table]bool{}
		for i, t := range l.tables {
			if keep(i, t) {
				m[t] = true
			}
		}
		if len(m) > 0 {
			out = append(out, m)
		}
	}
	if n := len(l.tables); n <= 6 {
		for bits := 1; bits < 1<<n; bits++ {
			pick(func(i int, _ *table) bool { return bits&(1<<i) != 0 })
		}
		return out
	}
	for a := range l.tables {
		for b := a; b < len(l.tables); b++ {
			pick(func(i int, _ *table) bool { return i == a || i == b })
		}
		pick(func(i int, t *table) bool { return i >= a && l.tables[a].meets(t) })
		pick(func(i int, t *table) bool { return i >= a && t.level == 0 })
		pick(func(i int, t *table) bool { return i >= a })
	}
	for level := range 7 {
		pick(func(_ int, t *table) bool { return t.level == level })
	}
	return out
}

// lost runs every compaction at every safe point and reports rows that a reader at or above the safe point no longer finds as
// before. It stops at the first one when it is told to.
func (l *lsm) lost(t testing.TB, safePoints []mvcc.TS, first bool) (found []string, runs int) {
	t.Helper()
	before := versions(visible(l.tables, nil))
	for _, chosen := range l.subsets() {
		for _, sp := range safePoints {
			for _, bottom := range []bool{false, true} {
				if bottom && !l.bottommost(chosen) {
					continue
				}
				runs++
				after, touched := l.compact(t, chosen, sp, bottom)
				if len(touched) == 0 {
					continue
				}
				now := versions(visible(after.tables, touched))
				readers := []mvcc.TS{sp, sp + 1, mvcc.MaxTS}
				for _, other := range safePoints {
					if other > sp {
						readers = append(readers, other)
					}
				}
				for prefix := range touched {
					for _, at := range readers {
						was, is := readRow(t, before[prefix], at, l.rows), readRow(t, now[prefix], at, after.rows)
						if was == is {
							continue
						}
						var names []string
						for c := range chosen {
							names = append(names, c.name)
						}
						slices.Sort(names)
						found = append(found, fmt.Sprintf("compaction of %v (bottommost %v) at safe point %s: row %X at %s was %q, is %q", names, bottom, sp, prefix, at, was, is))
						if first {
							return found, runs
						}
					}
				}
			}
		}
	}
	return found, runs
}

// tombstoned is the store after a rewind by tombstones: the files as they are, and above them a table that deletes every visible
// record above T.
func (l *lsm) tombstoned(ts mvcc.TS) *lsm {
	out := &lsm{rows: l.rows, tables: slices.Clone(l.tables)}
	seq := uint64(0)
	for _, t := range l.tables {
		seq = max(seq, t.newest)
	}
	tombs := &table{name: "tombstones"}
	for k := range visible(l.tables, nil) {
		if _, at, ok := split(k); ok && at > ts {
			seq++
			tombs.recs = append(tombs.recs, physical{key: ikey.Key{User: []byte(k), Seq: seq, Kind: ikey.KindDelete}})
		}
	}
	out.add(tombs)
	out.tables = append([]*table{tombs}, out.tables[:len(out.tables)-1]...)
	return out
}

// safePoints are moments on both sides of T and long after everything.
func safePoints(h history, ts mvcc.TS) []mvcc.TS {
	first, last := mvcc.TS(h.commits[0].CommitTS), mvcc.TS(h.facts.END)
	return []mvcc.TS{first + (ts-first)/2, ts, ts + (last-ts)/2 + 1, last + 1}
}

// TiKV's garbage collection sees one compaction's files at a time. Whatever files it picks after a rewind, at whatever safe point a
// cluster that goes on will have, no reader that it allows misses a row. Removing the same versions with tombstones, as tools
// that write through RocksDB do, loses rows: the filter drops an older version as soon as it meets a hidden one above T.
func TestGarbageCollectionAfterRewind(t *testing.T) {
	for _, name := range []string{"single-levels", "single-lz4-ranges", "single-titan"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, ts := historyOf(t, name), named(t, name)
			mem := fixtures.Mem(t, name)
			s := open(t, base.NewMem(mem), dataDir)
			old := loadLSM(t, s)
			closing(t, s)

			// One rewind, and another one to an earlier time: more files.
			fs := base.NewMem(mem)
			var after *lsm
			for _, at := range []mvcc.TS{ts[2], ts[1]} {
				reset(t, fs, dataDir, to(at))
				s = open(t, fs, dataDir)
				after = loadLSM(t, s)
				closing(t, s)
				found, runs := after.lost(t, safePoints(h, at), false)
				t.Logf("rewind to %s: %d tables, %d compactions", at, len(after.tables), runs)
				if len(found) > 0 {
					t.Errorf("%d losses, the first: %s", len(found), found[0])
				}
				if runs < 8 {
					t.Error("hardly anything was tried")
				}
			}

			bad := old.tombstoned(ts[1])
			same(t, "rows of the rewind by tombstones", readAll(t, bad), readAll(t, after))
			found, runs := bad.lost(t, safePoints(h, ts[1]), true)
			if len(found) == 0 {
				t.Errorf("%d compactions of the store with tombstones lose nothing: the model does not see the trap", runs)
			} else {
				t.Logf("with tombstones: %s", found[0])
			}
		})
	}
}

// readAll is the rows of a reader after everything.
func readAll(t testing.TB, l *lsm) []byte {
	var b bytes.Buffer
	vs := versions(visible(l.tables, nil))
	for _, k := range slices.Sorted(maps.Keys(vs)) {
		// Fences and locks are not what this compares: whether a version is there is.
		if w, err := mvcc.ParseWrite(vs[k][0].Value); err == nil && !w.HasGCFence && w.Type == mvcc.WritePut {
			fmt.Fprintf(&b, "%X %s\n", k, readRow(t, vs[k], mvcc.MaxTS, l.rows))
		}
	}
	return b.Bytes()
}

// The same for stores of any shape.
func TestGarbageCollectionInAnyShape(t *testing.T) {
	for _, name := range []string{"single-levels", "single-lz4-ranges"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			for range 2 {
				at := named(t, name)[rng.IntN(3)]
				// TiKV itself never hides a version behind a tombstone that is newer than a visible one; only versions above T,
				// which the rewind takes out, may be hidden so.
				sh := randomShape(rng)
				sh.junkAbove = at
				mem := shapedMem(t, name, sh)
				fs := base.NewMem(mem)
				if res := reset(t, fs, dataDir, to(at)); res.State != repair.StateDone {
					t.Errorf("%+v", res)
				}
				s := open(t, fs, dataDir)
				l := loadLSM(t, s)
				closing(t, s)
				found, runs := l.lost(t, safePoints(historyOf(t, name), at)[1:], false)
				t.Logf("%v: %d tables, %d compactions", sh, len(l.tables), runs)
				if len(found) > 0 {
					t.Errorf("%d losses, the first: %s", len(found), found[0])
				}
			}
		})
	}
}
