// Package scan reads a stopped TiKV store: it joins the key-value database, the raft store and Titan into one read view, and
// runs the passes over it. It writes nothing.
package scan

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/titan"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// The column families of TiKV's key-value database (tikv/tikv components/engine_traits/src/cf_defs.rs).
const (
	CFDefault = "default"
	CFLock    = "lock"
	CFWrite   = "write"
	CFRaft    = "raft"
)

// Options of Open.
type Options struct {
	Overrides engine.Overrides
	// Mode of the locks: shared for readers, exclusive for writers.
	Mode base.LockMode
	// Memory bounds what the records of the write-ahead logs take, in bytes, where there is a place for the rest; 0 is no bound.
	Memory int64
	// SpillDir is that place. Empty means the data directory's own for a writer. A reader, which must not write there, has TempDir.
	SpillDir string
	// TempDir is a directory for nobody but this process, made when it is needed; each store that is open for reading has a part of it of
	// its own. Empty: readers keep everything in memory.
	TempDir string
	// Stop is asked now and then while the store is opened; its error ends that. Nil goes on.
	Stop func() error
	// NoRaft leaves the raft store closed: Raft stays nil.
	NoRaft bool
	// NoRegions leaves Store.Regions empty: EachRegion reads them when they are wanted.
	NoRegions bool
}

// Store is one opened data directory. Its parts are read views and may be used from several goroutines, the raft store and
// Titan's handles excepted.
type Store struct {
	FS     base.FS
	Layout *engine.Layout
	DB     *rocks.DB
	Titan  *titan.Store // nil when the store has no Titan directory
	Raft   raftlog.Store
	// RaftReport says what reading raft-engine's files met; nil for a raft RocksDB.
	RaftReport *raftlog.Report
	Ident      raftstate.StoreIdent
	// Regions are all region states of the raft column family, by id.
	Regions []Region

	boundsMu sync.Mutex
	bounds   map[string]*TimeBounds
	logged   map[string]newestLogged

	locks  *engine.Locks
	raftDB *rocks.DB
	o      Options
	temp   string // name of its part of o.TempDir
}

// Region joins what the key-value database says about one region. Raw bytes are kept: an edit changes them, not a re-encoding.
type Region struct {
	ID    uint64
	State raftstate.RegionLocalState
	Raw   []byte
	Apply *raftstate.RaftApplyState // nil when the record is missing
}

// Live tells whether the region owns data on this store: any state but tombstone, with a range.
func (r Region) Live() bool {
	return r.State.State != raftstate.Tombstone && r.State.Region.Initialized()
}

// Bounds are the region's first and last (exclusive) database keys; the range of the last region ends at 'z'+1.
func (r Region) Bounds() (lower, upper []byte) {
	lower = append([]byte{'z'}, r.State.Region.StartKey...)
	if len(r.State.Region.EndKey) == 0 {
		return lower, []byte{'z' + 1}
	}
	return lower, append([]byte{'z'}, r.State.Region.EndKey...)
}

// Open finds out what dir is, takes its locks and opens every part. Close must be called.
func Open(fs base.FS, dir string, o Options) (*Store, error) {
	l, err := engine.Discover(fs, dir, o.Overrides)
	if err != nil {
		return nil, err
	}
	locks, err := l.Lock(fs, o.Mode)
	if err != nil {
		return nil, err
	}
	s := &Store{FS: fs, Layout: l, locks: locks, o: o}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open() error {
	var err error
	o := rocks.Options{WALDir: s.Layout.KVWALDir, Spill: s.Spill(), HeadProps: mvcc.PropTSNames[:], Bound: boundOf, Stop: s.o.Stop}
	if s.DB, err = rocks.Open(s.FS, s.Layout.KVDir, o); err != nil {
		return err
	}
	for _, cf := range []string{CFDefault, CFLock, CFWrite, CFRaft} {
		if s.DB.CF(cf) == nil {
			return &base.Error{Class: base.ErrNotStore, Op: "open", Path: s.Layout.KVDir, Offset: -1,
				Reason: fmt.Sprintf("it has no column family %q", cf), Next: "give the data directory of a TiKV store (the parent of db/)"}
		}
	}
	if s.Layout.TitanDir != "" {
		if ok, err := base.Exists(s.FS, s.FS.PathJoin(s.Layout.TitanDir, "CURRENT")); err != nil {
			return err
		} else if ok {
			if s.Titan, err = titan.Open(s.FS, s.Layout.TitanDir); err != nil {
				return err
			}
		}
	}
	if err := s.loadIdent(); err != nil {
		return err
	}
	if err := s.loadRegions(); err != nil {
		return err
	}
	if s.o.NoRaft {
		return nil
	}
	return s.openRaft()
}

func (s *Store) loadIdent() error {
	v, _, ok, err := s.DB.CF(CFDefault).Get(raftstate.StoreIdentKey())
	if err != nil {
		return err
	}
	if lost := s.DB.Log.Err(); !ok && lost != nil {
		return &base.Error{Class: base.ErrCorrupt, Op: "read store identity", Path: s.Layout.KVDir, Offset: -1, CF: CFDefault,
			Reason: "there is none in what is readable, and part of the write-ahead log is not", Err: lost, Next: "tikv-repair check " + s.Layout.Dir}
	}
	if !ok {
		return &base.Error{Class: base.ErrNotStore, Op: "read store identity", Path: s.Layout.KVDir, Offset: -1, CF: CFDefault,
			Reason: "there is none: this store was never bootstrapped", Next: "a store without identity holds no data to repair"}
	}
	if s.Ident, err = raftstate.ParseStoreIdent(v); err != nil {
		return &base.Error{Class: base.ErrCorrupt, Op: "read store identity", Path: s.Layout.KVDir, Offset: -1, CF: CFDefault, Err: err}
	}
	return nil
}

func (s *Store) loadRegions() error {
	if s.o.NoRegions {
		return nil
	}
	defer base.Begin(s.FS, "reading the region records").End()
	err := s.readRegions(func(r Region) error {
		s.Regions = append(s.Regions, r)
		return nil
	})
	s.Regions = slices.Clip(s.Regions)
	return err
}

// EachRegion calls fn for all regions, by id. A store that was opened without them reads them once more each time: there can be very many.
func (s *Store) EachRegion(fn func(Region) error) error {
	if s.o.NoRegions {
		return s.readRegions(fn)
	}
	for _, r := range s.Regions {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// readRegions walks the region and apply states of the raft column family. Errors of fn are returned as they are.
func (s *Store) readRegions(fn func(Region) error) error {
	lower, upper := raftstate.RegionStateRange()
	v, err := s.DB.CF(CFRaft).NewVisible(lower, upper, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		kind, id, _, ok := raftstate.ParseLocalKey(v.User())
		if !ok || kind != raftstate.KeyRegionState {
			continue
		}
		r := Region{ID: id}
		if r.State, err = raftstate.ParseRegionLocalState(v.Value()); err != nil {
			return &base.Error{Class: base.ErrCorrupt, Op: "read region state", Path: s.Layout.KVDir, Offset: -1, CF: CFRaft, Region: id, Err: err}
		}
		r.Raw = r.State.Raw // the same bytes: there can be very many regions
		b, _, ok, err := s.DB.CF(CFRaft).Get(raftstate.ApplyStateKey(id))
		if err != nil {
			return err
		}
		if ok {
			a, err := raftstate.ParseRaftApplyState(b)
			if err != nil {
				return &base.Error{Class: base.ErrCorrupt, Op: "read apply state", Path: s.Layout.KVDir, Offset: -1, CF: CFRaft, Region: id, Err: err}
			}
			r.Apply = &a
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return v.Err()
}

func (s *Store) openRaft() error {
	var err error
	if s.Layout.Raft == engine.RaftEngine {
		mode, err := s.recoveryMode()
		if err != nil {
			return err
		}
		e, rep, err := raftlog.OpenEngineMode(s.FS, s.Layout.RaftDir, s.Layout.SpillDir, mode)
		if err != nil {
			return err // a nil *Engine must not become a Store
		}
		s.Raft, s.RaftReport = e, rep
		return nil
	}
	if s.raftDB, err = rocks.Open(s.FS, s.Layout.RaftDir, rocks.Options{WALDir: s.Layout.RaftWALDir, Spill: s.raftSpill(), Stop: s.o.Stop}); err != nil {
		return err
	}
	s.Raft, err = raftlog.OpenDB(s.raftDB)
	return err
}

// recoveryMode is what the TiKV that starts here does with damaged raft-engine files: what last_tikv.toml says, else the default.
func (s *Store) recoveryMode() (raftlog.Mode, error) {
	c := s.Layout.Config
	if c == nil {
		return raftlog.TolerateTail, nil
	}
	mode, err := raftlog.ParseMode(c.RaftEngine.RecoveryMode)
	if err != nil {
		err := base.Unsupportedf(c.Path, "%s: %v", raftlog.ModeSetting, err)
		err.Next = fmt.Sprintf("set it to %q, TiKV's default", raftlog.TolerateTail)
		return "", err
	}
	return mode, nil
}

// OpenLocked opens a store whose locks the caller holds and keeps.
func OpenLocked(fs base.FS, l *engine.Layout, o Options) (*Store, error) {
	s := &Store{FS: fs, Layout: l, o: o}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Reopen reads everything anew, after an edit, without letting the locks go in between.
func (s *Store) Reopen() error {
	if err := s.closeParts(); err != nil {
		return err
	}
	s.DB, s.Raft, s.raftDB, s.Titan, s.Regions, s.bounds, s.logged = nil, nil, nil, nil, nil, nil, nil
	return s.open()
}

// Close gives everything back, the locks last.
func (s *Store) Close() error {
	err := s.closeParts()
	if s.locks != nil {
		err = errors.Join(err, s.locks.Close())
	}
	return err
}

func (s *Store) closeParts() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if s.Raft != nil {
		add(s.Raft.Close())
	}
	if s.raftDB != nil {
		add(s.raftDB.Close())
	}
	if s.Titan != nil {
		add(s.Titan.Close())
	}
	if s.DB != nil {
		add(s.DB.Close())
	}
	return errors.Join(errs...)
}

// Value resolves the value of a visible record: itself, or for a blob index what Titan holds for the key.
func (s *Store) Value(cf string, kind ikey.Kind, user, value []byte) ([]byte, error) {
	if kind != ikey.KindBlobIndex {
		return value, nil
	}
	if s.Titan == nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "read value", Path: s.Layout.KVDir, Offset: -1, CF: cf, Key: user,
			Reason: "the value lies in a Titan blob file, but the store has no Titan directory",
			Next:   "give the directory with --titan-dir"}
	}
	return s.Titan.Get(value, user)
}

// HasRawV2 tells whether the store may hold API V2 raw entries.
func (s *Store) HasRawV2() bool { return s.Ident.APIVersion == raftstate.APIV2 }

// Fenced tells whether the panic_mark_file is our own fence.
func (s *Store) Fenced() bool {
	f, err := engine.ReadFence(s.FS, s.Layout.Dir)
	return err == nil && f != nil && f.Ours
}
