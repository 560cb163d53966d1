package hand_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// decoded is a region record as kvproto, an encoder of another hand, reads it.
func decoded(t *testing.T, raw []byte) *raft_serverpb.RegionLocalState {
	t.Helper()
	var m raft_serverpb.RegionLocalState
	must(t, m.Unmarshal(raw))
	return &m
}

func marshal(t *testing.T, m *raft_serverpb.RegionLocalState) []byte {
	t.Helper()
	b, err := m.Marshal()
	must(t, err)
	return b
}

// A tombstone is the old record with another state. The tables with the region's data are in the backup, since TiKV deletes them.
func TestTombstone(t *testing.T) {
	for _, c := range []struct {
		name, dir string
		last      bool
	}{
		{"single-levels", dataDir, true}, {"single-raftdb", dataDir, true}, {"single-titan", dataDir, true},
		{"multi3-lost2", "/store1", false}, {"multi4-dr-learner", "/store3", false}, {"multi3-merging-late", "/store2", false},
	} {
		t.Run(c.name+c.dir, func(t *testing.T) {
			mem := only(t, c.name, c.dir)
			b := look(t, mem, c.dir)
			s := open(t, mem, c.dir)
			r := mostData(t, s)
			lower, upper := r.Bounds()
			var tables []string
			for _, name := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
				for _, f := range s.DB.CF(name).Files() {
					if bytes.Compare(f.Largest.User, lower) >= 0 && bytes.Compare(f.Smallest.User, upper) < 0 {
						tables = append(tables, s.DB.TablePath(f.Number))
					}
				}
			}
			s.Close()
			args := repair.HandArgs{Regions: []uint64{r.ID}}
			var force []string
			if c.last {
				refused(t, mem, c.dir, "last-replica", repair.Tombstone, args)
				force = []string{"last-replica"}
			}
			res := do(t, mem, c.dir, repair.Tombstone, args, force...)
			if len(res.Lines) != 1 || res.Lines[0].Region != r.ID || res.Raft != nil {
				t.Errorf("%+v", res)
			}
			s = open(t, mem, c.dir)
			now := regionOf(t, s, r.ID)
			want := decoded(t, r.Raw)
			want.State = raft_serverpb.PeerState_Tombstone
			if !bytes.Equal(marshal(t, decoded(t, now.Raw)), marshal(t, want)) || now.Live() {
				t.Errorf("record %X, was %X", now.Raw, r.Raw)
			}
			allStart(t, c.dir, s, b.broken)
			sameContent(t, c.dir, contentOf(t, s), b.content, map[string]bool{string(raftstate.RegionStateKey(r.ID)): true})
			for id := range b.state {
				if state, entries := raftOf(t, s.Raft, id); state != b.state[id] || !slices.Equal(entries, b.entries[id]) {
					t.Errorf("region %d has changed in the raft store", id)
				}
			}
			s.Close()

			// TiKV deletes the tables of the gap; what the backup has of them is whole.
			saved := map[string]string{}
			plans, err := edit.List(memFS(mem), c.dir)
			must(t, err)
			for _, f := range plans[0].J.Saved {
				saved[mem.PathJoin(c.dir, f.Path)] = mem.PathJoin(c.dir, f.Backup)
			}
			for _, p := range tables {
				old, err := base.ReadFile(memFS(mem), p)
				must(t, err)
				kept, err := base.ReadFile(memFS(mem), saved[p])
				if err != nil || !bytes.Equal(old, kept) {
					t.Errorf("%s is not in the backup: %v", p, err)
				}
			}
			if c.name == "single-levels" && len(tables) == 0 {
				t.Error("no tables")
			}
			blobs := 0
			for p := range saved {
				if strings.HasSuffix(p, ".blob") {
					blobs++
				}
			}
			if (blobs > 0) != (c.name == "single-titan") {
				t.Errorf("%d blob files saved", blobs)
			}
			nothingToDo(t, mem, c.dir, repair.Tombstone, args, force...)
			undo(t, mem, c.dir, b.tree)
		})
	}
}

// mostData is the region in which most records of the write column family lie.
func mostData(t *testing.T, s *scan.Store) scan.Region {
	t.Helper()
	var best scan.Region
	most := -1
	c := contentOf(t, s)
	for _, r := range s.Regions {
		if !r.Live() || r.State.State != raftstate.Normal {
			continue
		}
		lower, upper := r.Bounds()
		if n := len(within(c[scan.CFWrite], lower, upper)); n > most {
			best, most = r, n
		}
	}
	return best
}

// An edit of several regions names each of them and no other.
func TestTombstoneOfNamedRegions(t *testing.T) {
	mem := only(t, "multi5-lost3", "/store1")
	s := open(t, mem, "/store1")
	var live []uint64
	for _, r := range s.Regions {
		if r.Live() {
			live = append(live, r.ID)
		}
	}
	s.Close()
	want := []uint64{live[1], live[4]}
	do(t, mem, "/store1", repair.Tombstone, repair.HandArgs{Regions: want})
	s = open(t, mem, "/store1")
	var gone []uint64
	for _, r := range s.Regions {
		if !r.Live() && slices.Contains(live, r.ID) {
			gone = append(gone, r.ID)
		}
	}
	if !slices.Equal(gone, want) {
		t.Errorf("tombstones: %v, want %v", gone, want)
	}
}

// A peer list is replaced as a whole; everything else in the record stays.
func TestSetPeers(t *testing.T) {
	for _, c := range []struct {
		name, dir string
		// list makes the new list of the old one.
		list  func(own raftstate.Peer, old []raftstate.Peer) []raftstate.Peer
		force []string
	}{
		{"multi3-lost2", "/store0", onlyOwn, []string{"multi-store"}},
		{"multi3-merging-early", "/store0", onlyOwn, []string{"multi-store"}},
		{"multi3-merging-late", "/store1", onlyOwn, []string{"multi-store"}},
		{"multi4-dr-learner", "/store3", func(own raftstate.Peer, _ []raftstate.Peer) []raftstate.Peer {
			own.Role = raftstate.Voter
			return []raftstate.Peer{own}
		}, []string{"multi-store"}},
		{"multi5-lost3", "/store1", func(own raftstate.Peer, old []raftstate.Peer) []raftstate.Peer {
			return []raftstate.Peer{own, {ID: 9001, StoreID: 9000, Role: raftstate.Learner}}
		}, []string{"multi-store"}},
		{"single-raftdb", dataDir, func(own raftstate.Peer, old []raftstate.Peer) []raftstate.Peer {
			return append(slices.Clone(old), raftstate.Peer{ID: 9001, StoreID: 9000})
		}, []string{"multi-store"}},
	} {
		t.Run(c.name+c.dir, func(t *testing.T) {
			mem := only(t, c.name, c.dir)
			b := look(t, mem, c.dir)
			s := open(t, mem, c.dir)
			var r scan.Region
			for _, x := range s.Regions {
				// With a tail if there is one: what waits there must become a no-op.
				if d := b.derived[x.ID]; x.Live() && x.State.State == raftstate.Normal && (r.ID == 0 || d.Last > d.Applied) {
					r = x
				}
			}
			own, _ := r.State.Region.PeerOn(s.Ident.StoreID)
			s.Close()
			args := repair.HandArgs{Regions: []uint64{r.ID}, Peers: c.list(own, r.State.Region.Peers)}
			if c.force != nil {
				refused(t, mem, c.dir, c.force[0], repair.SetPeers, args)
			}
			res := do(t, mem, c.dir, repair.SetPeers, args, c.force...)
			if len(res.Lines) != 1 || res.Raft != nil {
				t.Errorf("%+v", res)
			}
			s = open(t, mem, c.dir)
			now := regionOf(t, s, r.ID)
			want := decoded(t, r.Raw)
			want.Region.Peers = nil
			for _, p := range args.Peers {
				want.Region.Peers = append(want.Region.Peers, &metapb.Peer{Id: p.ID, StoreId: p.StoreID, Role: metapb.PeerRole(p.Role)})
			}
			if now.State.Region.Epoch.ConfVer < r.State.Region.Epoch.ConfVer+100 {
				t.Errorf("epoch %+v, was %+v", now.State.Region.Epoch, r.State.Region.Epoch)
			}
			want.Region.RegionEpoch.ConfVer = now.State.Region.Epoch.ConfVer
			if !bytes.Equal(marshal(t, decoded(t, now.Raw)), marshal(t, want)) {
				t.Errorf("record %X\nwas    %X", now.Raw, r.Raw)
			}
			allStart(t, c.dir, s, b.broken)
			sameContent(t, c.dir, contentOf(t, s), b.content, map[string]bool{string(raftstate.RegionStateKey(r.ID)): true})
			for id := range b.state {
				if state, entries := raftOf(t, s.Raft, id); state != b.state[id] || !slices.Equal(entries, b.entries[id]) {
					t.Errorf("region %d has changed in the raft store", id)
				}
			}
			s.Close()
			nothingToDo(t, mem, c.dir, repair.SetPeers, args, c.force...)
			undo(t, mem, c.dir, b.tree)
		})
	}
}

func onlyOwn(own raftstate.Peer, _ []raftstate.Peer) []raftstate.Peer { return []raftstate.Peer{own} }

// Lists that TiKV or raft would not take.
func TestSetPeersValidates(t *testing.T) {
	const name, dir = "multi3-lost2", "/store0"
	mem := only(t, name, dir)
	s := open(t, mem, dir)
	r, store := mostData(t, s), s.Ident.StoreID
	own, _ := r.State.Region.PeerOn(store)
	s.Close()
	before := tree(t, mem, dir)
	with := func(p raftstate.Peer, change func(p *raftstate.Peer)) raftstate.Peer { change(&p); return p }
	for want, list := range map[string][]raftstate.Peer{
		"this store":                  {{ID: 9001, StoreID: 9000}},
		"peer 0":                      {with(own, func(p *raftstate.Peer) { p.ID = 0 })},
		"on store 0":                  {own, {ID: 9001}},
		"is listed twice":             {own, {ID: own.ID, StoreID: 9000}},
		"store":                       {own, {ID: 9001, StoreID: own.StoreID}},
		"no voter":                    {with(own, func(p *raftstate.Peer) { p.Role = raftstate.Learner })},
		"no voter with data":          {with(own, func(p *raftstate.Peer) { p.IsWitness = true })},
		"a role is voter or learner":  {with(own, func(p *raftstate.Peer) { p.Role = raftstate.IncomingVoter })},
		"a role is voter or learner ": {own, {ID: 9001, StoreID: 9000, Role: raftstate.DemotingVoter}},
		"not in the list":             {},
	} {
		_, err := try(mem, dir, repair.SetPeers, repair.HandArgs{Regions: []uint64{r.ID}, Peers: list}, "multi-store")
		if !errors.Is(err, base.ErrUsage) || !strings.Contains(err.Error(), strings.TrimSpace(want)) || base.Next(err) == "" {
			t.Errorf("%v: %v, want %q", list, err, want)
		}
	}
	if _, err := try(mem, dir, repair.SetPeers, repair.HandArgs{Regions: []uint64{424242}, Peers: []raftstate.Peer{own}}); !errors.Is(err, base.ErrUsage) {
		t.Errorf("%v", err)
	}
	for _, verb := range []repair.HandVerb{repair.SetPeers, repair.Tombstone} {
		if _, err := try(mem, dir, verb, repair.HandArgs{Peers: []raftstate.Peer{own}}, "multi-store", "last-replica"); !errors.Is(err, base.ErrUsage) {
			t.Errorf("%s of no region: %v", verb, err)
		}
	}
	fixtures.SameTree(t, "set-peers, not valid", tree(t, mem, dir), before)
}

// Fields that this tool does not know stay where they are: in the record, in the region, and in a peer that is listed again.
func TestUnknownFieldsStay(t *testing.T) {
	m := &raft_serverpb.RegionLocalState{Region: &metapb.Region{Id: 7, StartKey: []byte("a"), RegionEpoch: &metapb.RegionEpoch{ConfVer: 3, Version: 4}}}
	raw := marshal(t, m)
	// 2 region, its length in one byte: two peers with an unknown field 99 each go into it, and one of the region itself.
	unknown := func(v byte) []byte { return []byte{0x9A, 0x06, 0x01, v} } // field 99, one byte
	peer := func(id byte, u byte) []byte {
		b := append([]byte{0x08, id, 0x10, id + 10}, unknown(u)...)
		return append([]byte{0x2A, byte(len(b))}, b...)
	}
	i := bytes.Index(raw, []byte{0x12})
	region := slices.Concat(raw[i+2:], peer(1, 'x'), peer(2, 'y'), unknown('r'))
	raw = slices.Concat(raw[:i], []byte{0x12, byte(len(region))}, region, unknown('s'))
	st, err := raftstate.ParseRegionLocalState(raw)
	must(t, err)
	if len(st.Region.Peers) != 2 || st.Region.Peers[1] != (raftstate.Peer{ID: 2, StoreID: 12}) {
		t.Fatalf("%+v", st)
	}
	tomb, err := st.WithState(raftstate.Tombstone)
	must(t, err)
	if tomb.State != raftstate.Tombstone || !bytes.Contains(tomb.Raw, region) || !bytes.Contains(tomb.Raw, unknown('s')) {
		t.Errorf("%X of %X", tomb.Raw, raw)
	}
	back, err := tomb.WithState(raftstate.Normal)
	must(t, err)
	if !bytes.Equal(marshal(t, decoded(t, back.Raw)), marshal(t, decoded(t, raw))) {
		t.Errorf("%X of %X", back.Raw, raw)
	}
	next, err := st.WithPeers([]raftstate.Peer{{ID: 2, StoreID: 12, Role: raftstate.Learner}, {ID: 3, StoreID: 13}}, raftstate.Epoch{ConfVer: 103, Version: 4})
	must(t, err)
	for _, c := range []struct {
		b    []byte
		want bool
	}{{unknown('y'), true}, {unknown('r'), true}, {unknown('s'), true}, {unknown('x'), false}} {
		if bytes.Contains(next.Raw, c.b) != c.want {
			t.Errorf("%X in %X: want %v", c.b, next.Raw, c.want)
		}
	}
	if e := next.Region.Epoch; e != (raftstate.Epoch{ConfVer: 103, Version: 4}) || len(next.Region.Peers) != 2 || next.Region.Peers[0].Role != raftstate.Learner {
		t.Errorf("%+v", next)
	}
}

// Real RocksDB of the three lines opens a key-value database after an edit.
func TestRocksDBOpensAfterEdit(t *testing.T) {
	const name, dir = "multi4-dr-learner", "/store3"
	mem := only(t, name, dir)
	do(t, mem, dir, repair.CutTail, repair.HandArgs{KeepHistory: true}, "raft-tail", "multi-store")
	s := open(t, mem, dir)
	c := contentOf(t, s)
	for _, v := range oracle.Versions() {
		for _, db := range []string{"db", "raft"} {
			r, err := oracle.ReadFS(t, v, mem, dir+"/"+db, oracle.Options{ReadWrite: true, Opens: 2})
			must(t, err)
			if db == "raft" {
				continue // compared in TestCutTail
			}
			for cf, rows := range r.Rows {
				if len(rows) != len(c[cf]) {
					t.Errorf("RocksDB %s reads %d rows of %s, we %d", v, len(rows), cf, len(c[cf]))
				}
			}
		}
	}
}
