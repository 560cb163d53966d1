package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/crypt"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// CheckOptions of Check.
type CheckOptions struct {
	Open Options
	// Quick reads no data blocks on purpose: files, properties and boundaries, region states, the ends of the raft logs.
	Quick bool
	// Checksums verifies every checksum of every file and looks at nothing else, as fast as that goes.
	Checksums bool
	// SafePoint is the cluster's GC safe point; 0: not known. It tells what garbage collection can have taken from what it cannot.
	SafePoint mvcc.TS
	// Joined: other directories are checked as well, and CheckTogether follows. Gaps are its matter then.
	Joined  bool
	Threads int // 0: one a core
	Meter   *Meter

	apart bool // tables first and then keys, one at a time: what a test compares with
}

// CheckCounts is what was looked at.
type CheckCounts struct {
	Files      int    `json:"files"`
	BlobFiles  int    `json:"blob_files"`
	Bytes      int64  `json:"bytes"` // of the files that were read completely
	Regions    int    `json:"regions"`
	RaftLogs   int    `json:"raft_logs"`
	LogEntries uint64 `json:"log_entries"`
	Writes     uint64 `json:"write_records"`
	Values     uint64 `json:"values"` // rows of the default column family, raw pairs included
	Locks      uint64 `json:"locks"`
	// Snapshots in snap/ and tables in import/, whether anything waits for them or not.
	Snapshots   int `json:"snapshots"`
	ImportFiles int `json:"import_files"`
}

// CheckResult is what a check found.
type CheckResult struct {
	Dir       string
	ClusterID uint64
	StoreID   uint64
	Quick     bool
	Verified  *Verified // of a check of the checksums
	// Findings are sorted, the worst first. At most maxAlike have one name; More counts the others by name.
	Findings []plan.Problem
	More     map[string]uint64
	// NotChecked says what could not be looked at because of a finding, or was left out on purpose.
	NotChecked []string
	Counts     CheckCounts

	regions     []Region // for CheckTogether
	regionsRead bool     // all of them
	readOnce    int      // tables that the join has settled
}

// Worst is the severity of the worst finding; plan.Info without one.
func (r *CheckResult) Worst() plan.Severity {
	worst := plan.Info
	for _, p := range r.Findings {
		worst = max(worst, p.Severity())
	}
	return worst
}

// maxAlike bounds the findings of one name that are kept: damage can come by the million.
const maxAlike = 200

// Check looks at everything in a data directory that can be wrong. What is wrong becomes a finding and ends nothing; an error
// means that there was nothing to check: no store, in use, refused by name, or interrupted.
func Check(ctx context.Context, fs base.FS, dir string, o CheckOptions) (*CheckResult, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.Meter == nil {
		o.Meter = new(Meter)
	}
	c := &checker{o: o, res: &CheckResult{Dir: dir, Quick: o.Quick, More: map[string]uint64{}, Findings: []plan.Problem{}, NotChecked: []string{}},
		alike: map[string]int{}, paths: map[string]*plan.DamagedFile{}, places: map[string]bool{}, badApply: map[uint64]bool{}}
	l, err := engine.Discover(fs, dir, o.Open.Overrides)
	if err != nil {
		// A store of which a part is missing is one finding; no store at all, or one that is refused, is nothing to check.
		if !errors.Is(err, base.ErrCorrupt) {
			return nil, err
		}
		c.fail("data directory", err)
		c.skip("everything: the store cannot be opened")
		return c.done(), nil
	}
	locks, err := l.Lock(fs, o.Open.Mode)
	if err != nil {
		return nil, err
	}
	c.s = &Store{FS: fs, Layout: l, locks: locks, o: o.Open}
	defer c.s.Close()
	if err := c.open(); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{c.marks, c.files, c.blobFiles, c.identity, c.regions, c.raft, c.waiting, c.records}
	if o.Checksums {
		steps = []func(context.Context) error{c.marks, c.checksums}
	}
	for _, step := range steps {
		if err := interrupted(ctx); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c.done(), nil
}

// checker is the state of one Check. What is below mu is shared by goroutines.
type checker struct {
	o CheckOptions
	s *Store // parts that do not open are nil

	ident       bool            // the identity is known
	regionsRead bool            // every region state was read and decodes
	badApply    map[uint64]bool // regions whose apply state is there and does not decode
	applyStates []uint64        // regions with an apply state
	snapStates  []uint64        // regions with the raft state of a snapshot
	ingests     []waitingIngest // of log entries that are not applied
	tailsUnread bool            // not all of those entries were read

	joined *mvccPass // the MVCC part of what has been read already; nil: none

	mu     sync.Mutex
	res    *CheckResult
	alike  map[string]int
	paths  map[string]*plan.DamagedFile // damaged files, by path
	places map[string]bool              // damage inside other files, by path and offset
	bare   plan.StrayKeys               // keys of the default column family that are not transactional
	bad    []span                       // key ranges of the damaged tables of the data column families
}

func (c *checker) store() uint64 { return c.s.Ident.StoreID }

func (c *checker) done() *CheckResult {
	r := c.res
	if c.s != nil {
		r.ClusterID, r.StoreID = c.s.Ident.ClusterID, c.s.Ident.StoreID
		r.regions, r.regionsRead = c.s.Regions, c.regionsRead && c.ident
	}
	plan.Sort(r.Findings)
	slices.SortFunc(r.NotChecked, cmp.Compare)
	r.NotChecked = slices.Compact(r.NotChecked)
	return r
}

// add keeps a finding, or counts it when there are enough of its name.
func (c *checker) add(p plan.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(p)
}

func (c *checker) addLocked(p plan.Problem) {
	if c.alike[p.Name()]++; c.alike[p.Name()] > maxAlike {
		c.res.More[p.Name()]++
		return
	}
	c.res.Findings = append(c.res.Findings, p)
}

// skip notes what is not checked.
func (c *checker) skip(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.res.NotChecked = append(c.res.NotChecked, what)
}

// known tells whether the damage behind an error has its finding already: a damaged file is met again by everything that reads it.
func (c *checker) known(err error) bool {
	var e *base.Error
	for x := err; errors.As(x, &e); x = e.Err {
		c.mu.Lock()
		_, file := c.paths[e.Path]
		place := c.places[placeOf(e)]
		c.mu.Unlock()
		if file || place {
			return true
		}
		if e.Err == nil {
			break
		}
	}
	return false
}

func asError(err error) *base.Error {
	var e *base.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

func placeOf(e *base.Error) string { return fmt.Sprintf("%s@%d", e.Path, e.Offset) }

// fail turns an error into a finding about a part of the store, unless what is behind it has one.
func (c *checker) fail(part string, err error) {
	if c.known(err) {
		c.skip(part + ": it needs what is damaged")
		return
	}
	p := &plan.UnreadablePart{Part: part, Reason: err.Error(), Hint: base.Next(err)}
	if c.s != nil {
		p.Store = c.store()
	}
	var e *base.Error
	if errors.As(err, &e) {
		p.Path = e.Path
		c.mu.Lock()
		c.places[placeOf(e)] = true
		c.mu.Unlock()
	}
	c.add(p)
}

// damaged adds the finding of a file once.
func (c *checker) damaged(p *plan.DamagedFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paths[p.Path] == nil {
		c.paths[p.Path] = p
		c.addLocked(p)
	}
}

// reason is the text of an error without what a finding has in fields of its own.
func reason(err error) string {
	var e *base.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	with := *e
	with.Op, with.Path, with.CF, with.Key, with.Region = "", "", "", nil, 0
	s := with.Error()
	if with.Class != nil {
		s = strings.TrimPrefix(strings.TrimPrefix(s, with.Class.Error()), ": ")
	}
	if e.Offset >= 0 && errors.Is(e.Class, base.ErrCorrupt) {
		s = fmt.Sprintf("at offset %d: %s", e.Offset, s)
	}
	return s
}

// marks looks at what lies beside the databases: TiKV's panic mark or our fence, an unfinished change of the raft store, the
// dictionary of encryption at rest. Discovery has refused a store with encrypted files.
func (c *checker) marks(context.Context) error {
	s := c.s
	f, err := engine.ReadFence(s.FS, s.Layout.Dir)
	switch {
	case err != nil:
		c.fail(engine.PanicMark, err)
	case f != nil && f.Ours:
		c.add(&plan.Fenced{Store: c.store(), PlanID: f.PlanID})
	case f != nil:
		c.add(&plan.PanicMark{Store: c.store(), Path: s.FS.PathJoin(s.Layout.Dir, engine.PanicMark), Text: string(f.Raw)})
	}
	d, err := crypt.Load(s.FS, s.Layout.Dir)
	switch {
	case err != nil:
		c.fail("file dictionary of encryption", err)
	case d != nil:
		c.add(&plan.EncryptionLeftover{Path: d.Path, Entries: d.Len(), Torn: d.Torn})
	}
	return nil
}
