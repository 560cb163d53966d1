package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// VerifyOptions of Verify.
type VerifyOptions struct {
	T       mvcc.TS
	Threads int
	// Full reads every table completely and looks at every record: fences, owners of default rows. Without it only the files that
	// could hold something above T are looked at.
	Full bool
	// Cluster: the store was rewound together with all others that stay, so that the tails of regions with peers elsewhere count as well.
	Cluster bool
	// Quick does not open the tables that can hold nothing above T: what has been read back before it was published.
	Quick bool
}

// Finding is one truth of a finished rewind that does not hold.
type Finding struct {
	Truth  string `json:"truth"` // short and stable
	CF     string `json:"cf,omitempty"`
	Region uint64 `json:"region_id,omitempty"`
	Path   string `json:"path,omitempty"`
	Key    string `json:"key,omitempty"` // upper-case hex
	What   string `json:"what"`
}

// truthStarts: TiKV starts every region. truthTails: no log entry brings anything back.
const (
	truthStarts = "tikv-starts"
	truthTails  = "tail-is-neutral"
)

func (f Finding) String() string {
	s := f.Truth + ": " + f.What
	if f.CF != "" {
		s += ", column family " + f.CF
	}
	if f.Region != 0 {
		s += fmt.Sprintf(", region %d", f.Region)
	}
	if f.Path != "" {
		s += ", " + f.Path
	}
	if f.Key != "" {
		s += ", key " + f.Key
	}
	return s
}

// Verify tests the truths of a rewind to T on an opened store: the version is sound, nothing above T is left in any file or log, no
// lock and no fence above T is left, every value has its row and every row its owner, TiKV would start every region, and no log tail
// can bring anything back.
func Verify(ctx context.Context, s *scan.Store, o VerifyOptions) ([]Finding, error) {
	w, err := NewRewinder(ctx, s, RewindOptions{T: o.T, Threads: o.Threads})
	if err != nil {
		return nil, err
	}
	v := &verifier{w: w, s: s, o: o}
	deep := func(_ string, f rocks.LevelFile) bool { return o.Full || w.set[f.Number] || w.rawSet[f.Number] }
	check := rocks.SelfCheckOptions{Deep: deep, Threads: w.threads()}
	if o.Quick {
		check.Skip = func(cf string, f rocks.LevelFile) bool { return !deep(cf, f) }
	}
	for _, f := range s.DB.SelfCheckWith(check) {
		if errors.Is(f.Err, base.ErrIO) {
			return nil, f.Err // says nothing about the version
		}
		v.add(Finding{Truth: "sound-version", CF: f.CF, Path: f.Path, What: f.String()})
	}
	for _, step := range []func(context.Context) error{v.above, v.locks, v.records, v.regions} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(v.out, func(i, j int) bool { return v.out[i].Truth < v.out[j].Truth })
	return v.out, nil
}

type verifier struct {
	w   *Rewinder
	s   *scan.Store
	o   VerifyOptions
	mu  sync.Mutex
	out []Finding
}

func (v *verifier) add(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.out = append(v.out, f)
}

// above looks for physical entries above T, tombstones and hidden ones included.
func (v *verifier) above(ctx context.Context) error {
	for _, name := range []string{scan.CFWrite, scan.CFDefault} {
		rule := v.w.rule(name) // is for one goroutine: each table gets its own
		if rule == nil {
			continue
		}
		set := v.w.set
		if name == scan.CFDefault {
			set = v.w.rawSet
		}
		cf := v.s.DB.CF(name)
		if err := v.scanFor(ctx, cf.Log().Iter(), name, "the write-ahead logs", rule); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(v.w.threads())
		for _, f := range cf.Files() {
			if !set[f.Number] {
				continue
			}
			g.Go(func() error {
				r, done, err := cf.Table(f.FileMeta)
				if err != nil {
					return err
				}
				defer done()
				return v.scanFor(ctx, r.NewIter(), name, r.Path(), v.w.rule(name))
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) scanFor(ctx context.Context, it ikey.Iter, cf, path string, rule ruleFunc) error {
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		f, _, err := rule(it.Key(), it.Value())
		if err != nil {
			v.add(Finding{Truth: "records-decode", CF: cf, Path: path, Key: fmt.Sprintf("%X", it.Key().User), What: err.Error()})
			return nil
		}
		if f != keep {
			what := "a record above T is left"
			if f == change {
				what = "a gc_fence above T is left"
			}
			v.add(Finding{Truth: "nothing-above-t", CF: cf, Path: path, Key: fmt.Sprintf("%X", it.Key().User), What: what})
			return nil // one a file is enough to refuse
		}
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return it.Err()
}

// maxLockFindings bounds what is said about locks: a store that was not rewound can have millions.
const maxLockFindings = 1000

func (v *verifier) locks(context.Context) error {
	n := 0
	err := v.s.EachLock(func(l scan.LockAt) error {
		if n++; n <= maxLockFindings {
			v.add(Finding{Truth: "no-locks", CF: scan.CFLock, Key: fmt.Sprintf("%X", mvcc.LockKey(l.User)), What: "a lock is left"})
		}
		return nil
	})
	if n > maxLockFindings {
		v.add(Finding{Truth: "no-locks", CF: scan.CFLock, What: fmt.Sprintf("%d more locks are left", n-maxLockFindings)})
	}
	return err
}

// records joins the write and default column families row by row.
func (v *verifier) records(ctx context.Context) error {
	if !v.o.Full {
		return nil
	}
	w, err := v.s.DB.CF(scan.CFWrite).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return err
	}
	defer w.Close()
	d, err := v.s.DB.CF(scan.CFDefault).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	j := rowJoin{v: v, d: d, more: d.First()}
	n := 0
	for ok := w.First(); ok; ok = w.Next() {
		prefix, ts, txn := mvcc.SplitKey(w.User())
		if !txn {
			v.add(Finding{Truth: "records-decode", CF: scan.CFWrite, Key: fmt.Sprintf("%X", w.User()), What: "not a transactional key"})
			continue
		}
		if !bytes.Equal(prefix, j.row) {
			if err := j.finish(prefix); err != nil {
				return err
			}
		}
		rec, err := mvcc.ParseWrite(w.Value())
		if err != nil {
			v.add(Finding{Truth: "records-decode", CF: scan.CFWrite, Key: fmt.Sprintf("%X", w.User()), What: err.Error()})
			continue
		}
		if rec.GCFence > v.o.T && ts <= v.o.T {
			v.add(Finding{Truth: "no-fence-above-t", CF: scan.CFWrite, Key: fmt.Sprintf("%X", w.User()), What: "gc_fence " + rec.GCFence.String()})
		}
		if rec.NeedsDefault() {
			j.want[rec.StartTS] = true
		}
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := w.Err(); err != nil {
		return err
	}
	return j.finish(nil)
}

// rowJoin walks the default column family beside the write records.
type rowJoin struct {
	v    *verifier
	d    *rocks.Visible
	more bool
	row  []byte
	want map[mvcc.TS]bool
}

// finish compares the rows of the current key with what its write records ask for, reports rows of keys in between, and begins the next.
func (j *rowJoin) finish(next []byte) error {
	for ; j.more; j.more = j.d.Next() {
		prefix, ts, ok := mvcc.SplitKey(j.d.User())
		if !ok || mvcc.IsRawV2Prefix(prefix) && j.v.w.rawV2 {
			continue
		}
		if next != nil && bytes.Compare(prefix, next) >= 0 {
			break
		}
		if j.row != nil && bytes.Equal(prefix, j.row) && j.want[ts] {
			delete(j.want, ts)
			continue
		}
		j.v.add(Finding{Truth: "no-orphan", CF: scan.CFDefault, Key: fmt.Sprintf("%X", j.d.User()), What: "no write record owns this row"})
	}
	for ts := range j.want {
		j.v.add(Finding{Truth: "every-value-is-there", CF: scan.CFDefault, Key: fmt.Sprintf("%X", mvcc.AppendTS(bytes.Clone(j.row), ts)), What: "a Put has no value"})
	}
	j.row, j.want = append(j.row[:0], next...), map[mvcc.TS]bool{}
	return j.d.Err()
}

// regions tests the start rules, and that no entry of a tail passes the epoch check with something to say.
func (v *verifier) regions(context.Context) error {
	rs, ps, err := planRegions(v.s, v.o.T, TailAuto)
	if err != nil {
		return err
	}
	for _, p := range ps {
		if p, ok := p.(*plan.RegionStart); ok {
			v.add(Finding{Truth: truthStarts, Region: p.Region, What: p.Reason})
		}
	}
	for _, r := range rs {
		if !r.inert() && (!r.shared || v.o.Cluster) && r.region.State.State == raftstate.Normal {
			v.add(Finding{Truth: truthTails, Region: r.region.ID,
				What: fmt.Sprintf("%d log entries after applied index %d would still be applied", r.tail.Entries, r.derived.Applied)})
		}
	}
	return nil
}

// checkStaged reads the staged tables back: the version with them in place keeps the seven rules, and none of them holds anything
// above T.
func (w *Rewinder) checkStaged(ctx context.Context, after *manifest.State, d *Draft) error {
	s := w.store
	db, err := rocks.Open(s.FS, s.Layout.KVDir, rocks.Options{WALDir: s.Layout.KVWALDir, State: after, TablePath: func(n uint64) string {
		if p, ok := d.Outputs[n]; ok {
			return p + edit.StagedSuffix
		}
		return ""
	}})
	if err != nil {
		return err
	}
	defer db.Close()
	// The tables have been read back as they were written; those that have not, by a sink of another kind, are read now.
	unread := func(_ string, f rocks.LevelFile) bool {
		_, ours := d.Outputs[f.Number]
		return ours && !d.checked[f.Number]
	}
	others := func(_ string, f rocks.LevelFile) bool { _, ours := d.Outputs[f.Number]; return !ours }
	left := &leftover{w: w, ctx: ctx}
	if err := w.stagedError(db.SelfCheckWith(rocks.SelfCheckOptions{Deep: unread, Skip: others, Seen: s.DB, Batch: left.look, Threads: w.threads()})); err != nil {
		return err
	}
	if db.Log.Emitted > 0 {
		return w.stagedError([]rocks.Finding{{Path: db.WALDir, Reason: "the logs would still be replayed"}})
	}
	return nil
}

// stagedError makes an error of what was found in staged tables.
func (w *Rewinder) stagedError(found []rocks.Finding) error {
	if len(found) == 0 {
		return nil
	}
	if err := found[0].Err; errors.Is(err, base.ErrIO) || errors.Is(err, context.Canceled) {
		return err
	}
	return &base.Error{Class: base.ErrCorrupt, Op: "check staged", Path: found[0].Path, Offset: -1, Reason: found[0].String(), Next: "tikv-repair undo " + w.store.Layout.Dir}
}

// leftover looks for records that the rule would change in tables that are read anyway.
type leftover struct {
	w     *Rewinder
	ctx   context.Context
	rules sync.Map // file number to its ruleFunc: each file is read by one goroutine
}

var errLeft = errors.New("it holds a record above T, or a gc_fence")

func (l *leftover) look(cf string, f rocks.LevelFile, n int, b *sst.Batches) error {
	var rule ruleFunc
	if n == 0 {
		rule = l.w.rule(cf)
		l.rules.Store(f.Number, rule)
	} else if v, ok := l.rules.Load(f.Number); ok {
		rule = v.(ruleFunc)
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	if rule == nil {
		return nil
	}
	for i := range b.Len() {
		fate, _, err := rule(b.Key(i), b.Value(i))
		if err != nil {
			return err
		}
		if fate != keep {
			return fmt.Errorf("%w: %s", errLeft, b.Key(i))
		}
	}
	return nil
}
