package raftlog

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// memKV is a sorted list of pairs.
type memKV struct{ keys, values [][]byte }

func (m *memKV) Get(key []byte) ([]byte, bool, error) {
	i := sort.Search(len(m.keys), func(i int) bool { return bytes.Compare(m.keys[i], key) >= 0 })
	if i < len(m.keys) && bytes.Equal(m.keys[i], key) {
		return m.values[i], true, nil
	}
	return nil, false, nil
}

func (m *memKV) Scan(start, end []byte, fn func(key, value []byte) error) error {
	for i := range m.keys {
		if bytes.Compare(m.keys[i], start) >= 0 && bytes.Compare(m.keys[i], end) < 0 {
			if err := fn(m.keys[i], m.values[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memKV) put(key, value []byte) {
	i := sort.Search(len(m.keys), func(i int) bool { return bytes.Compare(m.keys[i], key) >= 0 })
	m.keys, m.values = slices.Insert(m.keys, i, key), slices.Insert(m.values, i, value)
}

func loadKV(t testing.TB, name string) *memKV {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &memKV{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		k, v, _ := strings.Cut(line, " ")
		key, err1 := hex.DecodeString(k)
		value, err2 := hex.DecodeString(v)
		if err := errors.Join(err1, err2, sc.Err()); err != nil {
			t.Fatal(err)
		}
		m.put(key, value)
	}
	return m
}

func TestRaftRocksEqualsTikvCtl(t *testing.T) {
	for _, c := range []struct{ archive, store string }{{"single-raftdb", "data"}, {"multi4-dr-learner", "store3"}} {
		t.Run(c.archive, func(t *testing.T) {
			s, err := OpenRocks(loadKV(t, c.archive+"-"+c.store+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			ids, err := s.Regions()
			if err != nil {
				t.Fatal(err)
			}
			infos := slices.DeleteFunc(regionInfos(t, c.archive, c.store), func(r regionInfo) bool {
				return !slices.Contains(ids, r.RegionID)
			})
			if len(infos) != len(ids) || len(ids) < 6 {
				t.Fatalf("%d regions, %d of them in the oracle", len(ids), len(infos))
			}
			if n := checkStore(t, s, infos); n < len(ids) {
				t.Errorf("%d entries in %d regions", n, len(ids))
			}
		})
	}
}

func entryBytes(term, index uint64, data string) []byte {
	b := []byte{}
	for _, f := range []struct {
		tag byte
		v   uint64
	}{{0x10, term}, {0x18, index}} {
		if f.v != 0 {
			b = appendUvarint(append(b, f.tag), f.v)
		}
	}
	if data != "" {
		b = append(appendUvarint(append(b, 0x22), uint64(len(data))), data...)
	}
	return b
}

// Bounds must see what a crash between deletions left above last_index, and find the log's end when the state is gone.
func TestRocksBounds(t *testing.T) {
	state := func(last byte) []byte { return []byte{0x0A, 0x02, 0x08, 6, 0x10, last} }
	for _, c := range []struct {
		name        string
		entries     []uint64
		state       []byte
		first, last uint64
	}{
		{"state at the end", []uint64{7, 8, 9}, state(9), 7, 9},
		{"orphans above last_index", []uint64{7, 8, 9, 12}, state(8), 7, 12},
		{"last_index above all entries", []uint64{7, 8}, state(20), 7, 8},
		{"no state", []uint64{7, 8}, nil, 7, 8},
		{"state does not parse", []uint64{7, 8}, []byte{0xFF}, 7, 8},
		{"no entries", nil, state(5), 0, 0},
	} {
		m := &memKV{}
		for _, i := range c.entries {
			m.put(raftstate.RaftLogKey(3, i), entryBytes(6, i, "x"))
		}
		if c.state != nil {
			m.put(raftstate.RaftStateKey(3), c.state)
		}
		m.put(raftstate.RaftLogKey(4, 1), entryBytes(6, 1, ""))
		s, _ := OpenRocks(m)
		first, last, ok, err := s.Bounds(3)
		if first != c.first || last != c.last || ok != (c.first > 0) || err != nil {
			t.Errorf("%s: %d..%d %v %v", c.name, first, last, ok, err)
		}
	}
}

func TestRocksRefusesForeignKeys(t *testing.T) {
	foreign := append(raftstate.RegionRaftStart(3), 0x07)
	m := &memKV{}
	m.put(foreign, nil)
	s, _ := OpenRocks(m)
	if _, err := s.Regions(); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "01020000000000000003") {
		t.Errorf("got %v", err)
	}
	m = &memKV{}
	m.put(raftstate.RaftLogKey(3, 7), entryBytes(6, 8, ""))
	s, _ = OpenRocks(m)
	err := s.Entries(3, 0, 100, func(raftstate.Entry) error { return nil })
	if !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "index 7 says that it is 8") {
		t.Errorf("got %v", err)
	}
}
