package etcd

import (
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

// check tests the invariants that machine states.
func (m *machine) check(t *testing.T) {
	t.Helper()
	if !slices.IsSorted(m.keys) || len(m.keys) != len(m.live) {
		t.Fatalf("%d keys, %d live, sorted %v", len(m.keys), len(m.live), slices.IsSorted(m.keys))
	}
	attached := 0
	for id, set := range m.byLease {
		if _, known := m.leases[id]; !known || len(set) == 0 {
			t.Fatalf("lease %x has keys %v, known %v", id, set, known)
		}
		attached += len(set)
	}
	leased := 0
	for _, k := range m.keys {
		kv, ok := m.live[k]
		if !ok || kv.Create <= 0 || kv.Create > kv.Mod || kv.Mod > m.revision || kv.Version <= 0 {
			t.Fatalf("%q: %+v at revision %d", k, kv, m.revision)
		}
		if m.byLease[kv.Lease][k] {
			leased++
		}
	}
	if leased != attached {
		t.Fatalf("%d keys with leases, %d attached", leased, attached)
	}
}

// Any data of an entry changes the keys consistently, or is refused.
func FuzzApply(f *testing.F) {
	fs := small(f).mem(f)
	log, err := wal.Read(fs, memberDir+"/wal", 0)
	must(f, err)
	for _, e := range log.Entries {
		f.Add(e.Data)
	}
	start, err := readBackend(fs, memberDir+"/snap/db")
	must(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := start.clone()
		m.check(t)
		before := m.revision
		err := m.apply(data)
		if err != nil && m.revision != before {
			t.Errorf("refused (%v), and revision %d became %d", err, before, m.revision)
		}
		if m.revision > before+1 {
			t.Errorf("revision %d became %d", before, m.revision)
		}
		m.check(t)
		members := newMembership()
		for _, kind := range []uint64{wal.EntryNormal, wal.EntryConfChange} {
			_ = members.entry(kind, data) // refused or not; it must end
		}
		for id := range members.live {
			if members.removed[id] {
				t.Errorf("member %x is there and removed", id)
			}
		}
	})
}

// Any content of a .snap file gives a member list or an error.
func FuzzSnap(f *testing.F) {
	for name, content := range small(f) {
		if strings.HasSuffix(name, ".snap") {
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSnap(data)
		if err != nil {
			return
		}
		if m, err := s.store.members(); err == nil {
			for i, x := range m.list() {
				if i > 0 && m.list()[i-1].ID >= x.ID {
					t.Error("members out of order")
				}
			}
		}
	})
}

// Any bytes as backend give a consistent state or a typed error.
func FuzzBackend(f *testing.F) {
	f.Add(small(f)["snap/db"])
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := base.NewMem(vfs.NewMem())
		must(t, base.WriteFileSync(fs, "/db", data, ""))
		b, err := readBackend(fs, "/db")
		if err != nil {
			if !isClass(err, base.ErrCorrupt) && !isClass(err, base.ErrUnsupported) {
				t.Errorf("%v", err)
			}
			return
		}
		b.check(t)
	})
}
