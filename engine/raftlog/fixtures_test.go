package raftlog

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// regionInfo is one region of "tikv-ctl raft region --all-regions".
type regionInfo struct {
	RegionID uint64                      `json:"region_id"`
	Region   *raftstate.RegionLocalState `json:"region_local_state"`
	Raft     *raftstate.RaftLocalState   `json:"raft_local_state"`
	Apply    *raftstate.RaftApplyState   `json:"raft_apply_state"`
}

// regionInfos reads the oracle of one store, ordered by region.
func regionInfos(t *testing.T, archive, store string) []regionInfo {
	t.Helper()
	var doc struct {
		Infos map[string]regionInfo `json:"region_infos"`
	}
	if err := json.Unmarshal(fixtures.File(t, archive, "tikv-ctl-regions-"+path.Base(store)+".json"), &doc); err != nil {
		t.Fatal(err)
	}
	var list []regionInfo
	for id, r := range doc.Infos {
		if id != strconv.FormatUint(r.RegionID, 10) {
			t.Fatalf("region %s is called %d inside", id, r.RegionID)
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b regionInfo) int { return int(a.RegionID) - int(b.RegionID) })
	return list
}

// storeID finds the store that has a peer in every region of a list: the fixtures do not name it otherwise.
func storeID(t *testing.T, infos []regionInfo) uint64 {
	t.Helper()
	votes := map[uint64]int{}
	live := 0
	for _, r := range infos {
		if r.Region.State == raftstate.Tombstone {
			continue
		}
		live++
		for _, p := range r.Region.Region.Peers {
			if r.Raft != nil {
				votes[p.StoreID]++
			}
		}
	}
	best := uint64(0)
	for id, n := range votes {
		if n == live && (best == 0 || id < best) {
			best = id
		}
	}
	if best == 0 && live > 0 {
		t.Fatalf("no store has a peer in all of %d regions: %v", live, votes)
	}
	return best
}

// checkStore compares a raft store with the oracle: states, complete logs, start rules, invariants.
func checkStore(t *testing.T, s Store, infos []regionInfo) (entries int) {
	t.Helper()
	ids, err := s.Regions()
	if err != nil {
		t.Fatal(err)
	}
	store := storeID(t, infos)
	known := map[uint64]bool{}
	for _, r := range infos {
		raw, ok, err := s.RaftState(r.RegionID)
		if err != nil {
			t.Fatal(err)
		}
		if ok != (r.Raft != nil) {
			t.Fatalf("region %d: raft state %v, oracle has %v", r.RegionID, ok, r.Raft)
		}
		if !ok {
			continue
		}
		known[r.RegionID] = true
		got, err := raftstate.ParseRaftLocalState(raw)
		if err != nil {
			t.Fatal(err)
		}
		got.Raw = nil
		if diff := cmp.Diff(*r.Raft, got); diff != "" {
			t.Fatalf("region %d: raft state (-oracle +got):\n%s", r.RegionID, diff)
		}
		entries += checkLog(t, s, r)
		terms := &Terms{Store: s, Region: r.RegionID}
		violations := raftstate.StartCheck(raftstate.StartInput{StoreID: store, Region: *r.Region, Raft: r.Raft, Apply: r.Apply,
			EntryTerm: terms.Term})
		if terms.Err != nil {
			t.Fatal(terms.Err)
		}
		unpersisted := r.Apply.AppliedIndex > r.Raft.LastIndex // multi3-merging-late has one
		for _, v := range violations {
			if !unpersisted || v.Consequence != raftstate.StopsOldLines {
				t.Errorf("%v (%v)", v, v.Consequence)
			}
		}
		if unpersisted != (len(violations) > 0) {
			t.Errorf("region %d: applied %d, last %d, violations %v", r.RegionID, r.Apply.AppliedIndex, r.Raft.LastIndex, violations)
		}
		if broken := raftstate.Derive(r.Raft, r.Apply).Invariants(); !unpersisted && len(broken) > 0 {
			t.Errorf("region %d: %v", r.RegionID, broken)
		}
	}
	for _, id := range ids {
		if !known[id] {
			t.Errorf("region %d is not in the oracle", id)
		}
	}
	return entries
}

// checkLog demands every entry in (truncated, last], with terms that never fall, and decodes them all.
func checkLog(t *testing.T, s Store, r regionInfo) int {
	t.Helper()
	next, term := r.Apply.TruncatedState.Index+1, r.Apply.TruncatedState.Term
	n := 0
	err := s.Entries(r.RegionID, next, r.Raft.LastIndex+1, func(e raftstate.Entry) error {
		if e.Index != next || e.Term < term || e.Term > r.Raft.HardState.Term {
			return fmt.Errorf("entry %d of term %d follows term %d, expected index %d", e.Index, e.Term, term, next)
		}
		if e.Index == r.Apply.CommitIndex && e.Term != r.Apply.CommitTerm {
			return fmt.Errorf("entry %d has term %d, the apply state says %d", e.Index, e.Term, r.Apply.CommitTerm)
		}
		c, err := raftstate.Decode(e)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if c.Unknown || c.Kind == raftstate.CommandOther || c.HasHeader && c.Header.RegionID != r.RegionID {
			return fmt.Errorf("entry %d: %+v", e.Index, c)
		}
		next, term = e.Index+1, e.Term
		n++
		return nil
	})
	if err != nil {
		t.Fatalf("region %d: %v", r.RegionID, err)
	}
	if next != r.Raft.LastIndex+1 {
		t.Fatalf("region %d: log ends before %d, last index is %d", r.RegionID, next, r.Raft.LastIndex)
	}
	if first, last, ok, err := s.Bounds(r.RegionID); err != nil || n > 0 && (!ok || first > r.Apply.TruncatedState.Index+1 ||
		last != r.Raft.LastIndex) {
		t.Fatalf("region %d: bounds %d..%d %v %v", r.RegionID, first, last, ok, err)
	}
	return n
}

func TestRaftEngineEqualsTikvCtl(t *testing.T) {
	total := 0
	for _, archive := range fixtures.Names() {
		if archive == "single-encrypted" || archive == "tablets-v2" {
			continue
		}
		mem := fixtures.Mem(t, archive)
		for _, dir := range fixtures.Stores(t, archive) {
			if ok, _ := base.Exists(base.NewMem(mem), dir+"/raft-engine"); !ok {
				continue
			}
			t.Run(archive+dir, func(t *testing.T) {
				e, rep, err := OpenEngine(base.NewMem(mem), dir+"/raft-engine", "")
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				n := checkStore(t, e, regionInfos(t, archive, dir))
				total += n
				for _, f := range rep.Files {
					if f.Version != 2 || f.Valid == 0 || f.Torn || f.BadHeader != "" {
						t.Errorf("%+v", f)
					}
				}
				if len(rep.Ignored)+len(rep.Reserved)+len(rep.Odd) > 0 {
					t.Errorf("%+v", rep)
				}
				if err := e.VerifyBlocks(nil, func(region uint64, err error) error { return err }); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Logf("%d live entries", total)
	if total < 3000 {
		t.Errorf("only %d live entries in all fixtures", total)
	}
}

func TestEncryptedIsRefusedByName(t *testing.T) {
	_, _, err := OpenEngine(base.NewMem(fixtures.Mem(t, "single-encrypted")), "/data/raft-engine", "")
	if err == nil || !strings.Contains(err.Error(), "encrypted at rest") || base.ErrUnsupported != err.(*base.Error).Class {
		t.Fatalf("got %v", err)
	}
}
