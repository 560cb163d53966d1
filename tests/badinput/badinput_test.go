package badinput

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// memoryBound is what one damaged file may make the tool allocate, in total: the undamaged store takes a few megabytes.
const memoryBound = 128 << 20

// classes are all that an error may be.
var classes = []error{base.ErrProblems, base.ErrCorrupt, base.ErrUnsupported, base.ErrPartial, base.ErrIO, base.ErrNotStore, base.ErrPlanMismatch, base.ErrUsage}

// lab has the undamaged store and what every command says about it.
type lab struct {
	t     *testing.T
	ts    mvcc.TS
	files map[string][]byte // by path
	good  outcome

	mu     sync.Mutex
	counts map[string]int
	told   map[string]bool
	// tails are the sums of the records with the raft log cut somewhere in its last batches.
	tails  map[uint64]bool
	trials atomic.Int64
}

// outcome is what a store looks like to each command.
type outcome struct {
	open            error
	reported        string // damage that was noticed: torn tails, problems
	walk, rows, all uint64 // sums: of every record, of the rows at T, of the store after the reset
	walkErr         error
	dumpErr         error
	reset           error
	state           string
	written         string // what a reset that failed has changed, besides backup and fence
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, ts: mvcc.TS(fixtures.Facts(t, fixture).T2), files: map[string][]byte{}, counts: map[string]int{}, told: map[string]bool{}, tails: map[uint64]bool{}}
	l.load(smallStore(t), dataDir)
	l.good = l.try(nil)
	g := l.good
	if g.open != nil || g.walkErr != nil || g.dumpErr != nil || g.reset != nil || g.reported != "" || g.state != repair.StateDone {
		t.Fatalf("the undamaged store: %+v", g)
	}
	return l
}

func (l *lab) load(fs vfs.FS, dir string) {
	l.t.Helper()
	names, err := fs.List(dir)
	must(l.t, err)
	for _, n := range names {
		p := path.Join(dir, n)
		st, err := fs.Stat(p)
		must(l.t, err)
		if st.IsDir() {
			l.load(fs, p)
			continue
		}
		b, err := base.ReadFile(base.NewMem(fs), p)
		must(l.t, err)
		l.files[p] = b
	}
}

// store builds the store with some files replaced; a nil content takes the file away.
func (l *lab) store(damage map[string][]byte) *vfs.MemFS {
	mem := vfs.NewMem()
	for p, b := range l.files {
		if d, ok := damage[p]; ok {
			b = d
		}
		if b == nil {
			continue
		}
		if err := mem.MkdirAll(path.Dir(p), 0o755); err != nil {
			panic(err)
		}
		if err := base.WriteFileSync(base.NewMem(mem), p, b, ""); err != nil {
			panic(err)
		}
	}
	return mem
}

// try runs every command on a damaged store.
func (l *lab) try(damage map[string][]byte) outcome {
	var o outcome
	mem := l.store(damage)
	fs := base.NewMem(mem)
	o.walk, o.rows, o.reported, o.open, o.walkErr, o.dumpErr = l.read(fs)
	safe := mvcc.TS(1)
	var res *repair.Result
	res, o.reset = repair.Reset(context.Background(), fs, dataDir, scan.Options{}, repair.ResetOptions{
		RewindOptions: repair.RewindOptions{T: l.ts, SafePoint: &safe, Now: now, Threads: 1}, Force: map[string]bool{"multi-store": true}})
	if o.reset != nil {
		o.written = l.changed(mem, damage)
		return o
	}
	o.state = res.State
	var err error
	if o.all, _, _, _, err, _ = l.read(fs); err != nil {
		o.reset = fmt.Errorf("after the reset: %w", err)
	}
	return o
}

// changed names a file of the store that is not what it was.
func (l *lab) changed(mem *vfs.MemFS, damage map[string][]byte) string {
	for p, b := range l.files {
		if d, ok := damage[p]; ok {
			b = d
		}
		got, err := mem.UnsafeGetFileDataBuffer(p)
		if b == nil && err != nil {
			continue
		}
		if err != nil || !bytes.Equal(got, b) {
			return p
		}
	}
	f, err := engine.ReadFence(base.NewMem(mem), dataDir)
	if err != nil {
		return err.Error()
	}
	names, err := mem.List(dataDir)
	if err != nil {
		return err.Error()
	}
	if f == nil && slices.Contains(names, "tikv-repair") {
		return "a backup without a fence"
	}
	return ""
}

// read opens the store and looks at everything: each record of each column family, the raft states and log entries, the rows at T.
func (l *lab) read(fs base.FS) (walk, rows uint64, reported string, open, walkErr, dumpErr error) {
	s, err := scan.Open(fs, dataDir, scan.Options{Mode: base.LockShared})
	if err != nil {
		return 0, 0, "", err, nil, nil
	}
	defer s.Close()
	if len(s.DB.Log.Problems) > 0 {
		reported += s.DB.Log.Problems[0].Error() + "; "
	}
	if s.DB.Log.TornTail || s.DB.State.TornTail {
		reported += "torn tail; "
	}
	for _, f := range s.DB.SelfCheck(nil) {
		reported += f.String() + "; "
	}
	walk, walkErr = sumRecords(s)
	var out bytes.Buffer
	v, err := s.NewView(l.ts)
	if err == nil {
		_, err = v.Dump(context.Background(), &out, scan.DumpOptions{T: l.ts, Format: scan.TSV})
	}
	return walk, xxhash.Sum64(out.Bytes()), reported, nil, walkErr, err
}

func sumRecords(s *scan.Store) (uint64, error) {
	h := xxhash.New()
	for _, name := range s.DB.Names() {
		v, err := s.DB.CF(name).NewVisible(nil, nil, nil)
		if err != nil {
			return 0, err
		}
		for ok := v.First(); ok; ok = v.Next() {
			fmt.Fprintf(h, "%s %d %X %X\n", name, v.Kind(), v.User(), v.Value())
		}
		err = v.Err()
		if e := v.Close(); err == nil {
			err = e
		}
		if err != nil {
			return 0, err
		}
	}
	for _, r := range s.Regions {
		raw, ok, err := s.Raft.RaftState(r.ID)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(h, "region %d %v %X\n", r.ID, ok, raw)
		first, last, ok, err := s.Raft.Bounds(r.ID)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		err = s.Raft.Entries(r.ID, first, last+1, func(e raftstate.Entry) error {
			fmt.Fprintf(h, "entry %d %d %X\n", e.Index, e.Term, e.Data)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return h.Sum64(), nil
}

// typed tells whether an error is of a class.
func typed(err error) bool {
	return slices.ContainsFunc(classes, func(c error) bool { return errors.Is(err, c) })
}

// judge says what kind of outcome it is; wrong ones have a second word.
//
//	refused   opening gives a typed error
//	noticed   it opens, and the reset says what is wrong and writes nothing
//	torn      it looks like a file whose last record was being written when the process was killed: RocksDB and raft-engine drop that
//	          record, and so does the tool, which knows it
//	shorter   the same, but the cut is between two records: nobody can know
//	same      the damage is in bytes without meaning: every command does the same
func (l *lab) judge(o outcome, mayBeShorter bool) (kind, wrong string) {
	for what, err := range map[string]error{"open": o.open, "walk": o.walkErr, "dump": o.dumpErr, "reset": o.reset} {
		if err != nil && !typed(err) {
			return "", fmt.Sprintf("%s: error without a class: %v", what, err)
		}
	}
	if o.written != "" {
		return "", fmt.Sprintf("the reset failed (%v) and has written %s", o.reset, o.written)
	}
	if o.reset != nil && base.Next(o.reset) == "" && !errors.Is(o.reset, base.ErrCorrupt) && !errors.Is(o.reset, base.ErrUnsupported) {
		return "", fmt.Sprintf("no word about what to do next: %v", o.reset)
	}
	if o.open != nil {
		if o.reset == nil {
			return "", fmt.Sprintf("reading refuses (%v), the reset does not", o.open)
		}
		return "refused", ""
	}
	g := l.good
	readsSame := o.walk == g.walk && o.walkErr == nil && o.rows == g.rows && o.dumpErr == nil
	resetSame := o.reset == nil && o.all == g.all
	switch {
	case readsSame && resetSame:
		return "same", ""
	case o.reset != nil:
		return "noticed", ""
	case o.reported != "" || l.tails[o.walk]:
		return "torn", ""
	case mayBeShorter:
		return "shorter", ""
	}
	return "", fmt.Sprintf("wrong data and no word: records %v, rows %v, after the reset %v (walk: %v, dump: %v)", o.walk == g.walk, o.rows == g.rows, o.all == g.all, o.walkErr, o.dumpErr)
}

// trial tries one damage.
func (l *lab) trial(label, kind string, damage map[string][]byte, mayBeShorter bool) {
	l.trials.Add(1)
	defer func() {
		if p := recover(); p != nil {
			l.wrong(label, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	before := allocated()
	o := l.try(damage)
	// Other trials run at the same time: only when all together took more than one may, this one is asked alone.
	if allocated()-before > memoryBound {
		l.mu.Lock()
		before = allocated()
		o = l.try(damage)
		if n := allocated() - before; n > 3*memoryBound {
			l.mu.Unlock()
			l.wrong(label, fmt.Sprintf("%d MB allocated", n>>20))
			l.mu.Lock()
		}
		l.mu.Unlock()
	}
	k, wrong := l.judge(o, mayBeShorter)
	if wrong != "" {
		l.wrong(label, wrong)
		return
	}
	l.mu.Lock()
	l.counts[kind+" "+k]++
	l.mu.Unlock()
}

func (l *lab) wrong(label, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, label+what)
	if l.told[key] {
		l.t.Fail()
		return
	}
	l.told[key] = true
	l.t.Errorf("%s: %s", label, what)
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// parallel runs fn for the jobs on all cores.
func parallel[T any](jobs []T, fn func(T)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= len(jobs) {
					return
				}
				fn(jobs[i])
			}
		})
	}
	wg.Wait()
}

// file is how a file is damaged: every flip-th byte and every cut-th length.
type file struct {
	name      string // below the data directory
	flip, cut int
	// tail: its end is not known to any other file, so that a clean cut there is no damage that anybody could see.
	tail bool
}

type job struct {
	file
	at   int
	flip byte // 0: cut
}

// Every file of the store, byte by byte.
func TestDamage(t *testing.T) {
	began := time.Now()
	l := newLab(t)
	files := []file{
		{name: "db/CURRENT", flip: 1, cut: 1},
		{name: "db/MANIFEST-000005", flip: 1, cut: 1, tail: true},
		{name: "db/000004.log", flip: 1, cut: 3, tail: true},
		{name: "db/000018.log", flip: 1, cut: 3, tail: true},
		{name: "db/000020.sst", flip: 1, cut: 5},
		{name: "db/000021.sst", flip: 1, cut: 5},
		{name: "db/000022.sst", flip: 1, cut: 5},
		{name: "raft-engine/0000000000000001.raftlog", flip: 2, cut: 7, tail: true},
		{name: "raft-engine/0000000000000001.rewrite", flip: 1, cut: 1},
		{name: "db/titandb/CURRENT", flip: 1, cut: 1},
		{name: "db/titandb/MANIFEST-000001", flip: 1, cut: 1},
		{name: "db/IDENTITY", flip: 5, cut: 5},
		{name: "db/OPTIONS-000015", flip: 101, cut: 503},
		{name: "last_tikv.toml", flip: 101, cut: 503},
	}
	stride := 1
	if testing.Short() {
		stride = 23
	}
	// raft-engine drops a last batch that does not check, whatever is wrong with it, as if the file ended before it.
	raftLog := path.Join(dataDir, "raft-engine/0000000000000001.raftlog")
	end := len(bytes.TrimRight(l.files[raftLog], "\x00"))
	for at := end - 200; at < end; at++ {
		if o := l.try(map[string][]byte{raftLog: l.files[raftLog][:at:at]}); o.open == nil && o.walkErr == nil {
			l.tails[o.walk] = true
		}
	}
	// Nine tenths of last_tikv.toml say nothing about where the data is. Reading them four times in each of 30,000 trials would be a
	// quarter of the time, so that the damage of other files is tried without them.
	toml := path.Join(dataDir, "last_tikv.toml")
	short := shortConfig(l.files[toml])
	if o := l.try(map[string][]byte{toml: short}); o != l.good {
		t.Fatalf("with the short configuration: %+v", o)
	}
	var jobs []job
	for _, f := range files {
		b, ok := l.files[path.Join(dataDir, f.name)]
		if !ok {
			t.Fatalf("%s is not there: %v", f.name, slices.Sorted(maps.Keys(l.files)))
		}
		for at := 0; at < len(b); at += f.flip * stride {
			// One bit, all bits, or another digit: what a flip means differs.
			jobs = append(jobs, job{f, at, []byte{0x01, 0x80, 0xff, 0x10}[at%4]})
		}
		for at := 0; at < len(b); at += f.cut * stride {
			jobs = append(jobs, job{file: f, at: at})
		}
		jobs = append(jobs, job{file: f, at: -1})
	}
	parallel(jobs, func(j job) {
		p := path.Join(dataDir, j.name)
		b := l.files[p]
		damage := map[string][]byte{toml: short}
		switch {
		case j.at < 0:
			damage[p] = nil
			l.trial(j.name+" is missing", j.name+" missing:", damage, j.tail)
		case j.flip == 0:
			damage[p] = b[:j.at:j.at]
			l.trial(fmt.Sprintf("%s cut to %d of %d bytes", j.name, j.at, len(b)), j.name+" cut:", damage, j.tail)
		default:
			damage[p] = bytes.Clone(b)
			damage[p][j.at] ^= j.flip
			l.trial(fmt.Sprintf("%s, byte %d of %d ^ %02x", j.name, j.at, len(b), j.flip), j.name+" flipped:", damage, false)
		}
	})
	for _, k := range slices.Sorted(maps.Keys(l.counts)) {
		t.Logf("%-55s %d", k, l.counts[k])
	}
	t.Logf("%d trials, %.1f s", l.trials.Load(), time.Since(began).Seconds())
}

// shortConfig keeps the parts of a TiKV configuration that say where the data is.
func shortConfig(b []byte) []byte {
	var out []byte
	table := ""
	for line := range bytes.Lines(b) {
		if name, ok := bytes.CutPrefix(line, []byte("[")); ok {
			table = string(bytes.TrimRight(name, "]\n"))
		}
		switch table {
		case "", "storage", "rocksdb", "rocksdb.titan", "raftdb", "raft-engine", "security":
		case "raftstore":
			if !bytes.HasPrefix(line, []byte("[")) && !bytes.HasPrefix(line, []byte("raftdb-path")) {
				continue
			}
		default:
			continue
		}
		out = append(out, line...)
	}
	return out
}

// The text files, which no checksum protects, are read by discovery alone: with any byte changed the store is found in the same places, or the
// tool refuses, or it warns.
func TestDamagedText(t *testing.T) {
	began := time.Now()
	l := newLab(t)
	want, err := engine.Discover(base.NewMem(l.store(nil)), dataDir, engine.Overrides{})
	must(t, err)
	places := func(l *engine.Layout) string {
		return fmt.Sprint(l.KVDir, l.KVWALDir, l.TitanDir, l.HasTitan, l.Raft, l.RaftDir, l.RaftWALDir, l.SpillDir, l.Foreign, l.Migrating)
	}
	counts := map[string]int{}
	var mu sync.Mutex
	stride := 3
	if testing.Short() {
		stride = 67
	}
	for _, name := range []string{"db/OPTIONS-000015", "last_tikv.toml"} {
		p := path.Join(dataDir, name)
		var jobs []job
		for at := 0; at < len(l.files[p]); at += stride {
			jobs = append(jobs, job{file{name: name}, at, []byte{0x01, 0x80, 0xff, 0x10, 0x20}[at%5]})
		}
		parallel(jobs, func(j job) {
			c := bytes.Clone(l.files[p])
			c[j.at] ^= j.flip
			label := fmt.Sprintf("%s, byte %d ^ %02x", name, j.at, j.flip)
			defer func() {
				if r := recover(); r != nil {
					l.wrong(label, fmt.Sprintf("panic: %v\n%s", r, debug.Stack()))
				}
			}()
			got, err := engine.Discover(base.NewMem(l.store(map[string][]byte{p: c})), dataDir, engine.Overrides{})
			kind := ""
			switch {
			case err != nil && !typed(err):
				l.wrong(label, fmt.Sprintf("error without a class: %v", err))
			case err != nil:
				kind = "refused"
			case len(got.Warnings) != len(want.Warnings):
				kind = "warned"
			case places(got) == places(want):
				kind = "same places"
			default:
				l.wrong(label, fmt.Sprintf("other places without a word: %s, want %s", places(got), places(want)))
			}
			mu.Lock()
			defer mu.Unlock()
			counts[name+" "+kind]++
		})
	}
	t.Logf("%v, %.1f s", counts, time.Since(began).Seconds())
}
