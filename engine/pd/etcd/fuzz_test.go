package etcd

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	bbolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

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
	// Small ones: the fuzzer spends its time on making large seeds smaller.
	for _, store := range []string{
		`{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"a1":{"Children":{"raftAttributes":{"Value":"{\"peerURLs\":[\"http://h:1\"]}"},"attributes":{"Value":"{\"name\":\"n\"}"}}}}},"removed_members":{"Children":{"b2":{}}}}}}}}`,
		`{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"x":null}}}}}}}`, `{}`, `[`,
	} {
		f.Add(snapBytes([]byte(store), 7, 2))
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

// snapBytes writes a .snap file.
func snapBytes(store []byte, index, term uint64) []byte {
	number := func(b []byte, n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	content := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	data := content(content(nil, 1, store), 2, number(number(nil, 2, index), 3, term))
	return content(number(nil, 1, uint64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))), 2, data)
}

func TestSnapMembers(t *testing.T) {
	store := `{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"a1":{"Children":{"raftAttributes":{"Value":"{\"peerURLs\":[\"http://h:1\"],\"isLearner\":true}"},"attributes":{"Value":"{\"name\":\"n\",\"clientURLs\":[\"http://h:2\"]}"}}}}},"removed_members":{"Children":{"b2":{}}}}}}}}`
	s, err := decodeSnap(snapBytes([]byte(store), 7, 2))
	must(t, err)
	m, err := s.store.members()
	must(t, err)
	if got, want := fmt.Sprintf("%d.%d %+v %v", s.term, s.index, m.live, m.removed), "2.7 map[161:n] map[178:true]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if x := m.live[0xa1]; !x.Learner || x.PeerURLs[0] != "http://h:1" || x.ClientURLs[0] != "http://h:2" {
		t.Errorf("%#v", x)
	}
	if _, err := decodeSnap(snapBytes(nil, 0, 0)[:5]); err == nil {
		t.Error("a cut file was taken")
	}
}

// oneFile is a file system with one file and no state: with MemFS the fuzzer finds its own inputs hard to repeat.
type oneFile struct {
	base.FS
	content []byte
}

func (o oneFile) Open(string, ...vfs.OpenOption) (vfs.File, error) {
	return contentFile{r: bytes.NewReader(o.content)}, nil
}

type contentFile struct {
	vfs.File
	r *bytes.Reader
}

func (c contentFile) Close() error                            { return nil }
func (c contentFile) ReadAt(p []byte, off int64) (int, error) { return c.r.ReadAt(p, off) }
func (c contentFile) Stat() (vfs.FileInfo, error)             { return contentInfo{size: c.r.Size()}, nil }

type contentInfo struct {
	vfs.FileInfo
	size int64
}

func (c contentInfo) Size() int64 { return c.size }

// Any bytes as backend give a consistent state or a typed error.
func FuzzBackend(f *testing.F) {
	// The smallest file that has all that counts, without what the library reserves behind it.
	path := filepath.Join(f.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoFreelistSync: true})
	must(f, err)
	must(f, db.Update(func(tx *bbolt.Tx) error {
		for bucket, record := range map[string][2]string{
			"key":   {"\x00\x00\x00\x00\x00\x00\x00\x05_\x00\x00\x00\x00\x00\x00\x00\x00", "\x0a\x0e/pd/cluster_id\x10\x05\x18\x05\x20\x01\x2a\x01x"},
			"meta":  {"consistent_index", "\x00\x00\x00\x00\x00\x00\x00\x09"},
			"lease": {"\x00\x00\x00\x00\x00\x00\x00\x03", "\x08\x03\x10\x05"},
		} {
			b, err := tx.CreateBucket([]byte(bucket))
			if err == nil {
				err = b.Put([]byte(record[0]), []byte(record[1]))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	must(f, db.Close())
	content, err := os.ReadFile(path)
	must(f, err)
	f.Add(content[:min(len(content), 8<<10)])
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := readBackend(oneFile{content: data}, "/db")
		if err != nil {
			if !isClass(err, base.ErrCorrupt) && !isClass(err, base.ErrUnsupported) {
				t.Errorf("%v", err)
			}
			return
		}
		b.check(t)
	})
}
