//go:build rocksdb

package wal_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// The judge is stock RocksDB 7.8.3. Where it differs from TiKV's 8.10 line in what is tested here:
//   - 8.10 takes a sequence above 2^56-1 for corruption, 7.8.3 does not: no sequence is damaged here under a good checksum.
//   - neither inserts a (key, sequence) twice; what follows is not modelled, the report says RepeatedSequence. No WAL record
//     is repeated here.

var families = []string{"default", "lock", "write"}

// content is what a reader sees: family, then user key to value.
type content []map[string]string

func newContent() content { return content{{}, {}, {}} }

func (c content) clone() content {
	n := make(content, len(c))
	for i := range c {
		n[i] = maps.Clone(c[i])
	}
	return n
}

// apply puts one replayed record on top.
func (c content) apply(r wal.Record) {
	m := c[r.CF]
	switch r.Key.Kind {
	case ikey.KindPut:
		m[string(r.Key.User)] = string(r.Value)
	case ikey.KindDelete:
		delete(m, string(r.Key.User))
	case ikey.KindRangeDelete:
		maps.DeleteFunc(m, func(k, _ string) bool { return k >= string(r.Key.User) && k < string(r.Value) })
	}
}

func (c content) diff(o content) string {
	for i := range c {
		for k, v := range c[i] {
			if w, ok := o[i][k]; !ok || w != v {
				return fmt.Sprintf("%s: %q is %.20q, RocksDB has %.20q (%v)", families[i], k, v, w, ok)
			}
		}
		for k := range o[i] {
			if _, ok := c[i][k]; !ok {
				return fmt.Sprintf("%s: RocksDB has %q", families[i], k)
			}
		}
	}
	return ""
}

type rocks struct {
	db  *grocksdb.DB
	cfs []*grocksdb.ColumnFamilyHandle
	opt *grocksdb.Options
}

func openRocks(dir string) (*rocks, error) {
	o := grocksdb.NewDefaultOptions()
	o.SetCreateIfMissing(true)
	o.SetCreateIfMissingColumnFamilies(true)
	o.SetWALRecoveryMode(grocksdb.PointInTimeRecovery)
	o.SetDisableAutoCompactions(true)
	o.SetInfoLogLevel(grocksdb.FatalInfoLogLevel)
	o.SetUseFsync(false)
	db, cfs, err := grocksdb.OpenDbColumnFamilies(o, dir, families, []*grocksdb.Options{o, o, o})
	if err != nil {
		o.Destroy()
		return nil, err
	}
	return &rocks{db, cfs, o}, nil
}

func (r *rocks) close() {
	for _, cf := range r.cfs {
		cf.Destroy()
	}
	r.db.Close()
	r.opt.Destroy()
}

func (r *rocks) content() content {
	c := newContent()
	ro := grocksdb.NewDefaultReadOptions()
	defer ro.Destroy()
	for i, cf := range r.cfs {
		it := r.db.NewIteratorCF(ro, cf)
		for it.SeekToFirst(); it.Valid(); it.Next() {
			c[i][string(it.Key().Data())] = string(it.Value().Data())
		}
		it.Close()
	}
	return c
}

func copyDir(t *testing.T, src, dst string, skip func(name string) bool) {
	t.Helper()
	if err := os.MkdirAll(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == "LOCK" || strings.HasPrefix(e.Name(), "LOG") || skip != nil && skip(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(src, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dst, e.Name()), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// liveStore writes random batches and copies the directory while the database is open, as a kill would leave it. Flushes of
// single families leave WALs that some of them still need.
func liveStore(t *testing.T, rnd *rand.Rand, dir string) {
	t.Helper()
	open := dir + "-open"
	r, err := openRocks(open)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	wo := grocksdb.NewDefaultWriteOptions()
	fo := grocksdb.NewDefaultFlushOptions()
	defer wo.Destroy()
	defer fo.Destroy()
	key := func() []byte { return fmt.Appendf(nil, "k%03d", rnd.Intn(200)) }
	for n := 20 + rnd.Intn(60); n > 0; n-- {
		if rnd.Intn(9) == 0 {
			if err := r.db.FlushCF(r.cfs[rnd.Intn(3)], fo); err != nil {
				t.Fatal(err)
			}
			continue
		}
		wb := grocksdb.NewWriteBatch()
		for range 1 + rnd.Intn(6) {
			cf := r.cfs[rnd.Intn(3)]
			switch rnd.Intn(8) {
			case 0, 1:
				wb.DeleteCF(cf, key())
			case 2:
				a, b := key(), key()
				if bytes.Compare(a, b) > 0 {
					a, b = b, a
				}
				wb.DeleteRangeCF(cf, a, b)
			case 3:
				wb.PutLogData([]byte("note"))
			default:
				size := rnd.Intn(60)
				if rnd.Intn(30) == 0 {
					size = rnd.Intn(60000)
				}
				wb.PutCF(cf, key(), bytes.Repeat([]byte{byte('a' + rnd.Intn(26))}, size))
			}
		}
		if err := r.db.Write(wo, wb); err != nil {
			t.Fatal(err)
		}
		wb.Destroy()
	}
	copyDir(t, open, dir, nil)
}

// ours replays dir on top of the content of its SSTs.
func ours(t *testing.T, dir string, ssts content) (content, *wal.Report) {
	t.Helper()
	fs := base.NewOS()
	s, err := manifest.Load(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := ssts.clone()
	rep, err := wal.Replay(fs, wal.ReplayInput{Dir: dir, MinLog: s.MinLogs(), MinLogToKeep: s.MinLogToKeep, LastSequence: s.LastSeq, Tracked: s.WALs, HasSST: s.HasSST},
		func(r wal.Record) error {
			c.apply(r)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return c, rep
}

// damage changes one WAL and says how.
func damage(t *testing.T, rnd *rand.Rand, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no WAL", err)
	}
	name := logs[rnd.Intn(len(logs))]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	what := "appended zeros"
	at := func() int { return rnd.Intn(len(b)) }
	kind := rnd.Intn(9)
	if len(b) == 0 {
		kind = 8
	}
	switch kind {
	case 0, 1:
		n := at()
		b, what = b[:n], fmt.Sprintf("cut at %d", n)
	case 2:
		i, bit := at(), rnd.Intn(8)
		b[i] ^= 1 << bit
		what = fmt.Sprintf("byte %d bit %d", i, bit)
	case 3: // a bit of a physical record's header, at the beginning of a block or of the file
		i, bit := rnd.Intn(1+len(b)/wal.BlockSize)*wal.BlockSize+rnd.Intn(7), rnd.Intn(8)
		if i < len(b) {
			b[i] ^= 1 << bit
		}
		what = fmt.Sprintf("header byte %d bit %d", i, bit)
	case 4:
		i := at()
		n := rnd.Intn(len(b) - i)
		clear(b[i : i+n])
		what = fmt.Sprintf("zeros %d+%d", i, n)
	case 5: // a block or sector as a file system loses it
		size := []int{512, 4096, wal.BlockSize}[rnd.Intn(3)]
		i := rnd.Intn(1+len(b)/size) * size
		clear(b[min(i, len(b)):min(i+size, len(b))])
		what = fmt.Sprintf("zeroed %d at %d", size, i)
	case 6:
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		return "removed " + filepath.Base(name)
	case 7:
		b, what = reframe(t, rnd, b)
	case 8:
		b = append(b, make([]byte, rnd.Intn(2*wal.BlockSize))...)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return what + " of " + filepath.Base(name)
}

// reframe drops a record, or changes a byte of one behind its sequence, under good checksums.
func reframe(t *testing.T, rnd *rand.Rand, file []byte) ([]byte, string) {
	t.Helper()
	var records [][]byte
	rd := wal.NewReader(bytes.NewReader(file), "", 0)
	for {
		p, _, err := rd.Next()
		if err != nil {
			break
		}
		records = append(records, bytes.Clone(p))
	}
	if len(records) == 0 {
		return file, "nothing"
	}
	i, what := rnd.Intn(len(records)), ""
	if rnd.Intn(3) == 0 {
		records, what = slices.Delete(records, i, i+1), fmt.Sprintf("record %d dropped", i)
	} else {
		r := records[i]
		at := 8 + rnd.Intn(len(r)-8)
		r[at] ^= 1 << rnd.Intn(8)
		what = fmt.Sprintf("record %d byte %d became 0x%02X", i, at, r[at])
	}
	var b bytes.Buffer
	w := record.NewWriter(&b)
	for _, r := range records {
		rec, err := w.Next()
		if err == nil {
			_, err = rec.Write(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), what
}

// refuses tells whether RocksDB is expected to fail at open.
func refuses(rep *wal.Report) bool {
	return slices.ContainsFunc(rep.Problems, func(p *wal.Problem) bool { return p.Kind == wal.SSTAhead || p.Kind == wal.UnreadableBatch })
}

// Random damage to the WALs of copied live stores: what we replay is what RocksDB recovers, and it fails to open where we
// say so. RocksDB may recover more quietly than we report, never the other way round.
func TestOracleDamage(t *testing.T) {
	const seed, stores, rounds = 7083, 10, 25
	t.Logf("seed %d", seed)
	tally := map[string]int{}
	for st := range stores {
		rnd := rand.New(rand.NewSource(seed + int64(st)))
		dir := filepath.Join(ramDir(t), "store")
		liveStore(t, rnd, dir)
		bare := dir + "-bare"
		copyDir(t, dir, bare, func(name string) bool { return strings.HasSuffix(name, ".log") })
		r, err := openRocks(bare)
		if err != nil {
			t.Fatal(err)
		}
		ssts := r.content()
		r.close()
		for round := range rounds {
			d := fmt.Sprintf("%s-%d", dir, round)
			copyDir(t, dir, d, nil)
			what := "intact"
			if round > 0 {
				what = damage(t, rnd, d)
			}
			label := fmt.Sprintf("store %d round %d: %s", st, round, what)
			before := checksumOf(t, d)
			got, rep := ours(t, d, ssts)
			if before != checksumOf(t, d) {
				t.Fatalf("%s: replay changed the directory", label)
			}
			if round == 0 && (rep.Err() != nil || rep.TornTail) {
				t.Errorf("%s: %v", label, rep.Err())
			}
			if slices.ContainsFunc(rep.Problems, func(p *wal.Problem) bool { return p.Kind == wal.Unsupported || p.Kind == wal.RepeatedSequence }) {
				tally["not comparable"]++
				continue
			}
			r, err := openRocks(d)
			if (err != nil) != refuses(rep) {
				t.Errorf("%s: RocksDB says %v, we %v", label, err, rep.Problems)
				if err == nil {
					r.close()
				}
				continue
			}
			if err != nil {
				tally["does not open"]++
				continue
			}
			if diff := got.diff(r.content()); diff != "" {
				t.Errorf("%s: %s; we say %v", label, diff, rep.Problems)
			}
			if last := r.db.GetLatestSequenceNumber(); last != rep.LastSequence {
				t.Errorf("%s: last sequence %d, RocksDB has %d", label, rep.LastSequence, last)
			}
			r.close()
			switch {
			case rep.Err() != nil:
				tally["opens with a loss"]++
			case rep.TornTail:
				tally["torn tail"]++
			default:
				tally["unharmed"]++
			}
		}
	}
	t.Logf("%v", tally)
	for _, k := range []string{"does not open", "opens with a loss", "torn tail", "unharmed"} {
		if tally[k] < 5 {
			t.Errorf("only %d rounds with outcome %q", tally[k], k)
		}
	}
}

// ramDir is a temporary directory in memory where the system has one: RocksDB syncs a dozen times per open.
func ramDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tikv-repair-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func checksumOf(t *testing.T, dir string) uint32 {
	t.Helper()
	h := crc32.NewIEEE()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d\n", e.Name(), len(b))
		h.Write(b)
	}
	return h.Sum32()
}
