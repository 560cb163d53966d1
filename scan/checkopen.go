package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/titan"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// open opens every part on its own: one that does not open stays nil and becomes a finding. An error is not about the store.
func (c *checker) open() error {
	s := c.s
	var err error
	if s.DB, err = rocks.Open(s.FS, s.Layout.KVDir, rocks.Options{WALDir: s.Layout.KVWALDir, Spill: s.Spill()}); err != nil {
		s.DB = nil
		if s.noTemp(err) {
			return err
		}
		c.fail("key-value database", err)
		c.skip("the key-value database: regions, data")
	}
	if s.DB != nil {
		for _, cf := range []string{CFDefault, CFLock, CFWrite, CFRaft} {
			if s.DB.CF(cf) == nil {
				c.fail("key-value database", &base.Error{Class: base.ErrCorrupt, Op: "open", Path: s.Layout.KVDir, Offset: -1,
					Reason: fmt.Sprintf("it has no column family %q", cf), Next: "give the data directory of a TiKV store (the parent of db/)"})
				c.skip("the key-value database: regions, data")
				s.DB.Close()
				s.DB = nil
				break
			}
		}
	}
	if s.DB != nil {
		// Findings name the store; whether its identity is sound is looked at later.
		if v, _, ok, err := s.DB.CF(CFDefault).Get(raftstate.StoreIdentKey()); err == nil && ok {
			if id, err := raftstate.ParseStoreIdent(v); err == nil {
				s.Ident = id
			}
		}
		c.wal(s.DB)
	}
	if s.Layout.TitanDir != "" {
		if s.Titan, err = titan.Open(s.FS, s.Layout.TitanDir); err != nil {
			s.Titan = nil
			c.fail("Titan", err)
			c.skip("values in Titan blob files")
		}
	}
	if s.o.NoRaft {
		c.skip("the raft store: left out")
		return nil
	}
	if err := s.openRaft(); err != nil {
		s.Raft = nil
		if s.noTemp(err) {
			return err
		}
		c.fail("raft store", err)
		c.skip("raft logs and start rules: the raft store cannot be read")
	}
	if s.raftDB != nil {
		c.wal(s.raftDB)
	}
	c.raftFiles()
	return nil
}

// noTemp tells whether an error is about the directory for temporary files, which says nothing about the store.
func (s *Store) noTemp(err error) bool {
	e, temp := asError(err), s.Spill().Temp
	return e != nil && temp != "" && e.Path == temp
}

// wal reports the damage that the replay of a database's logs met. A torn end is what a killed process leaves: not reported.
func (c *checker) wal(db *rocks.DB) {
	for _, p := range db.Log.Problems {
		c.add(&plan.WALDamage{Store: c.store(), Path: p.Path, Offset: p.Offset, Reason: p.Kind.String() + ": " + p.Reason})
	}
}

// raftFiles reports what raft-engine's files hold and TiKV would not read.
func (c *checker) raftFiles() {
	for _, p := range c.s.RaftLogDamage(c.store()) {
		c.add(p)
	}
	if c.s.RaftReport == nil {
		return
	}
	for _, path := range c.s.RaftReport.Odd {
		c.fail("raft store", &base.Error{Class: base.ErrUnsupported, Op: "list", Path: path, Offset: -1,
			Reason: "the name of this file is not UTF-8: TiKV panics when it lists the directory", Next: "rename or move the file"})
	}
}

// RaftLogDamage lists the parts of raft-engine's files that TiKV drops without a word when it opens them; store is the id to name.
func (s *Store) RaftLogDamage(store uint64) []plan.Problem {
	rep := s.RaftReport
	if rep == nil {
		return nil
	}
	var ps []plan.Problem
	add := func(path, reason string) {
		ps = append(ps, &plan.RaftLogDamage{Store: store, Path: path, Reason: reason})
	}
	for _, f := range rep.Files {
		switch {
		case f.Skipped:
			add(f.Path, f.SkippedWhat())
		case f.BadHeader != "":
			add(f.Path, "its header does not decode ("+f.BadHeader+"); TiKV empties the file")
		case f.Torn:
			add(f.Path, "the entries of its last batch are damaged; TiKV drops the batch")
		}
	}
	for _, path := range rep.Ignored {
		add(path, "a gap in the file numbers cuts it off")
	}
	if n := rep.DroppedAtomic; n > 0 {
		add(rep.Dir, fmt.Sprintf("%d atomic groups of the rewrite queue never ended", n))
	}
	return ps
}

// identity reads the record that says which store this is.
func (c *checker) identity(context.Context) error {
	s := c.s
	if s.DB == nil {
		return nil
	}
	v, _, ok, err := s.DB.CF(CFDefault).Get(raftstate.StoreIdentKey())
	if err != nil {
		c.fail("store identity", err)
		c.skip("start rules: the store's identity cannot be read")
		return nil
	}
	if !ok {
		c.add(&plan.StoreIdentity{Reason: "there is no store identity: the store was never bootstrapped, or the record is lost"})
		c.skip("start rules: the store has no identity")
		return nil
	}
	if s.Ident, err = raftstate.ParseStoreIdent(v); err != nil {
		c.add(&plan.StoreIdentity{Reason: err.Error()})
		c.skip("start rules: the store's identity does not decode")
		return nil
	}
	if s.Ident.ClusterID == 0 || s.Ident.StoreID == 0 {
		c.add(&plan.StoreIdentity{Reason: fmt.Sprintf("it names cluster %d and store %d; neither can be 0", s.Ident.ClusterID, s.Ident.StoreID)})
		return nil
	}
	c.ident = true
	return nil
}

// loadRegions reads the raft column family. Records that do not decode become findings; the result is false when not all
// regions are known.
func (c *checker) loadRegions() bool {
	s := c.s
	stray := &plan.StrayKeys{CF: CFRaft}
	applies := map[uint64]*raftstate.RaftApplyState{}
	whole := true
	v, err := s.DB.CF(CFRaft).NewVisible(nil, nil, nil)
	if err != nil {
		c.fail("column family raft", err)
		return false
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		key := bytes.Clone(v.User())
		kind, id, _, ok := raftstate.ParseLocalKey(key)
		value, err := s.Value(CFRaft, v.Kind(), key, v.Value())
		if err == nil {
			switch {
			case ok && kind == raftstate.KeyRegionState:
				r := Region{ID: id, Raw: bytes.Clone(value)}
				if r.State, err = raftstate.ParseRegionLocalState(r.Raw); err == nil && r.State.Region.ID != id {
					err = fmt.Errorf("the region state under id %d is that of region %d", id, r.State.Region.ID)
				}
				if err == nil {
					s.Regions = append(s.Regions, r)
				}
			case ok && kind == raftstate.KeyApplyState:
				c.applyStates = append(c.applyStates, id)
				var a raftstate.RaftApplyState
				if a, err = raftstate.ParseRaftApplyState(value); err == nil {
					applies[id] = &a
				}
			case ok && kind == raftstate.KeySnapshotRaftState:
				c.snapStates = append(c.snapStates, id)
				_, err = raftstate.ParseRaftLocalState(value)
			case ok && kind == raftstate.KeyRaftState:
				// TiKV 4.0 wrote the raft state of a region that tikv-ctl recreated into the wrong database.
			default:
				count(stray, key)
			}
		}
		if err != nil {
			whole = whole && kind != raftstate.KeyRegionState
			c.add(&plan.BadRecord{Store: c.store(), CF: CFRaft, Key: upperHex(key), Reason: err.Error()})
			if kind == raftstate.KeyApplyState {
				applies[id] = nil // there, and not usable
			}
		}
	}
	if err := v.Err(); err != nil {
		c.fail("column family raft", err)
		return false
	}
	for i := range s.Regions {
		if a, ok := applies[s.Regions[i].ID]; ok {
			s.Regions[i].Apply = a
			c.badApply[s.Regions[i].ID] = a == nil
		}
	}
	c.stray(stray)
	return whole
}

// count notes a key that should not be there.
func count(p *plan.StrayKeys, key []byte) {
	if p.Records++; p.Records == 1 {
		p.First = upperHex(key)
	}
}

func (c *checker) stray(p *plan.StrayKeys) {
	if p.Records > 0 {
		p.Store = c.store()
		c.add(p)
	}
}

// isInterrupted tells the one class of error that ends a check.
func isInterrupted(err error) bool {
	return errors.Is(err, base.ErrInterrupted) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
