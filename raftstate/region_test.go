package raftstate

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// raftCF reads real records: the raft CF of one store.
func raftCF(t testing.TB) (keys, values [][]byte) {
	t.Helper()
	f, err := os.Open("testdata/single-raftdb-raft-cf.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		k, v, _ := strings.Cut(sc.Text(), " ")
		key, err1 := hex.DecodeString(k)
		value, err2 := hex.DecodeString(v)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		keys, values = append(keys, key), append(values, value)
	}
	return keys, values
}

// The records of a store, through our parser and printed, are what tikv-ctl prints.
func TestRecordsEqualTikvCtl(t *testing.T) {
	var oracle struct {
		Infos map[string]struct {
			Region json.RawMessage `json:"region_local_state"`
			Apply  json.RawMessage `json:"raft_apply_state"`
		} `json:"region_infos"`
	}
	if err := json.Unmarshal(fixtures.File(t, "single-raftdb", "tikv-ctl-regions-data.json"), &oracle); err != nil {
		t.Fatal(err)
	}
	compare := func(region uint64, want json.RawMessage, got any) {
		t.Helper()
		var w, g any
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(want, &w) != nil || json.Unmarshal(b, &g) != nil {
			t.Fatalf("region %d: %s %s", region, want, b)
		}
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("region %d (-tikv-ctl +ours):\n%s", region, diff)
		}
	}
	seen := map[KeyKind]int{}
	keys, values := raftCF(t)
	for i := range keys {
		kind, region, _, ok := ParseLocalKey(keys[i])
		if !ok {
			t.Fatalf("key %X", keys[i])
		}
		seen[kind]++
		want := oracle.Infos[fmt.Sprint(region)]
		switch kind {
		case KeyRegionState:
			s, err := ParseRegionLocalState(values[i])
			if err != nil {
				t.Fatal(err)
			}
			compare(region, want.Region, s)
			if !bytes.Equal(keys[i], RegionStateKey(region)) || !bytes.Equal(s.Raw, values[i]) {
				t.Errorf("region %d: key %X", region, keys[i])
			}
			testWithEpoch(t, values[i])
		case KeyApplyState:
			s, err := ParseRaftApplyState(values[i])
			if err != nil {
				t.Fatal(err)
			}
			compare(region, want.Apply, s)
			if !bytes.Equal(keys[i], ApplyStateKey(region)) {
				t.Errorf("region %d: key %X", region, keys[i])
			}
		}
	}
	if seen[KeyRegionState] != 9 || seen[KeyApplyState] != 9 {
		t.Errorf("records: %v", seen)
	}
}

// Reading tikv-ctl's JSON of every fixture and printing it again changes nothing.
func TestJSONRoundTrip(t *testing.T) {
	n := 0
	for _, archive := range fixtures.Names() {
		if archive == "single-encrypted" || archive == "tablets-v2" {
			continue
		}
		for _, store := range fixtures.Stores(t, archive) {
			var doc struct {
				Infos map[string]struct {
					Region json.RawMessage `json:"region_local_state"`
				} `json:"region_infos"`
			}
			if err := json.Unmarshal(fixtures.File(t, archive, "tikv-ctl-regions-"+path.Base(store)+".json"), &doc); err != nil {
				t.Fatal(err)
			}
			for id, r := range doc.Infos {
				var s RegionLocalState
				if err := json.Unmarshal(r.Region, &s); err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				var compact bytes.Buffer
				if err := json.Compact(&compact, r.Region); err != nil || compact.String() != string(b) {
					t.Errorf("%s%s region %s:\n%s\n%s", archive, store, id, compact.String(), b)
				}
				n++
			}
		}
	}
	if n < 300 {
		t.Errorf("%d regions", n)
	}
}

// strip removes the two epoch numbers from a record and leaves every other byte where it was, written by hand with indexes
// only: what WithEpoch must not touch.
func strip(t testing.TB, b []byte, path []protowire.Number) []byte {
	var out []byte
	for len(b) > 0 {
		n, typ, l := protowire.ConsumeField(b)
		if l < 0 {
			t.Fatal(protowire.ParseError(l))
		}
		field := b[:l]
		b = b[l:]
		switch {
		case len(path) > 0 && n == path[0] && typ == protowire.BytesType:
			_, _, tag := protowire.ConsumeTag(field)
			inner, _ := protowire.ConsumeBytes(field[tag:])
			out = append(out, field[:tag]...)
			out = append(out, '<')
			out = append(out, strip(t, inner, path[1:])...)
			out = append(out, '>')
		case len(path) == 0 && (n == 1 || n == 2) && typ == protowire.VarintType:
		default:
			out = append(out, field...)
		}
	}
	return out
}

func testWithEpoch(t testing.TB, raw []byte) {
	t.Helper()
	s, err := ParseRegionLocalState(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Epoch{{1, 1}, {300, 70000}, {1 << 63, 127}, {128, 1}} {
		b := s.WithEpoch(want.ConfVer, want.Version)
		got, err := ParseRegionLocalState(b)
		if err != nil {
			t.Fatalf("%X became %X: %v", raw, b, err)
		}
		if got.Region.Epoch != want {
			t.Fatalf("epoch is %+v, expected %+v", got.Region.Epoch, want)
		}
		if a, b := strip(t, raw, []protowire.Number{2, 4}), strip(t, b, []protowire.Number{2, 4}); !bytes.Equal(a, b) &&
			s.Region.Epoch.ConfVer != 0 && s.Region.Epoch.Version != 0 {
			t.Fatalf("more than the epoch changed:\n%X\n%X", a, b)
		}
		got.Region.Epoch, got.Raw = s.Region.Epoch, s.Raw
		if diff := cmp.Diff(s, got); diff != "" {
			t.Fatal(diff)
		}
		back, _ := ParseRegionLocalState(b)
		if again := back.WithEpoch(s.Region.Epoch.ConfVer, s.Region.Epoch.Version); s.Region.Epoch.ConfVer != 0 &&
			s.Region.Epoch.Version != 0 && len(again) == len(raw) && !bytes.Equal(again, raw) {
			t.Fatalf("there and back:\n%X\n%X", raw, again)
		}
	}
}

// A record from the future: unknown fields of every wire type before, between and after the known ones, on each of the three
// levels, in an order that no writer of today uses. Only the two numbers change.
func TestWithEpochKeepsUnknownFields(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	record := func(version, confVer string) []byte {
		field := func(tag, body string) string { return fmt.Sprintf("%s%02x%s", tag, len(body)/2, body) }
		epoch := field("5a", "78") + // 11, bytes
			"10" + version + "08" + confVer + // version stands before conf_ver
			"f906" + "0102030405060708" // 111, fixed64
		region := "a00605" + // 100, varint
			field("2a", "08031001") + // a peer before the id
			"0802" +
			field("22", epoch) +
			field("12", "61") + // start key "a"
			"fd06" + "01020304" + // 111, fixed32
			"f00701" // 126, varint
		return unhex(field("c23e", "616263") + // 1000, bytes
			field("12", region) +
			"f80202" + // 47, varint
			"800301" + // 48, varint
			"0803") // state Merging, last
	}
	raw := record("07", "03")
	s, err := ParseRegionLocalState(raw)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != Merging || s.Region.ID != 2 || s.Region.Epoch != (Epoch{3, 7}) || string(s.Region.StartKey) != "a" {
		t.Fatalf("%+v", s)
	}
	want := record("ac02", "c801")
	if got := s.WithEpoch(200, 300); !bytes.Equal(got, want) {
		t.Errorf("got  %X\nwant %X", got, want)
	}
	testWithEpoch(t, raw)
}

func TestWithEpochAddsWhatIsMissing(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"12020802", "1208080222040801" + "1002"},              // region {id 2}
		{"1204080222" + "00", "120808022204" + "08011002"},     // empty epoch
		{"1206080222021009", "120808022204" + "08011002"},      // version only
		{"12060802" + "22020809", "120808022204" + "08011002"}, // conf_ver only
		{"0802", "08021206220408011002"},                       // a tombstone with nothing in it
		{"12060802" + "2a020803", "120c0802" + "220408011002" + "2a020803"},
	} {
		raw, _ := hex.DecodeString(c.raw)
		s, err := ParseRegionLocalState(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(s.WithEpoch(1, 2)); got != c.want {
			t.Errorf("%s: got %s, expected %s", c.raw, got, c.want)
		}
	}
	if b := (RegionLocalState{}).WithEpoch(1, 2); b != nil {
		t.Errorf("a state that was not read from bytes gave %X", b)
	}
}

func TestWithEpochOnRandomRecords(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for i := 0; i < 2000; i++ {
		testWithEpoch(t, randomRecord(rng, 0))
	}
}

// randomRecord makes a message of known and unknown fields in random order; level 0 is the record, 1 the region, 2 the epoch.
func randomRecord(rng *rand.Rand, level int) []byte {
	parts := [][]byte{}
	switch level {
	case 0:
		parts = append(parts, protowire.AppendBytes([]byte{0x12}, randomRecord(rng, 1)), []byte{0x08, byte(rng.Intn(5))})
	case 1:
		parts = append(parts, protowire.AppendBytes([]byte{0x22}, randomRecord(rng, 2)), protowire.AppendVarint([]byte{0x08}, rng.Uint64()))
	case 2:
		parts = append(parts, protowire.AppendVarint([]byte{0x08}, 1+rng.Uint64()%1000), protowire.AppendVarint([]byte{0x10}, 1+rng.Uint64()%1000))
	}
	for n := rng.Intn(5); n > 0; n-- {
		num := protowire.Number(20 + rng.Intn(1000))
		var p []byte
		switch rng.Intn(4) {
		case 0:
			p = protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), rng.Uint64())
		case 1:
			p = protowire.AppendFixed32(protowire.AppendTag(nil, num, protowire.Fixed32Type), rng.Uint32())
		case 2:
			p = protowire.AppendFixed64(protowire.AppendTag(nil, num, protowire.Fixed64Type), rng.Uint64())
		case 3:
			p = protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), make([]byte, rng.Intn(200)))
		}
		parts = append(parts, p)
	}
	rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return bytes.Join(parts, nil)
}

// Why records are edited on the wire: kvproto keeps unknown fields, but moves them to the end.
func TestKvprotoMovesUnknownFields(t *testing.T) {
	raw := append([]byte{0xC2, 0x3E, 0x03, 'a', 'b', 'c'}, 0x08, 0x03)
	var m raft_serverpb.RegionLocalState
	if err := m.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	b, err := m.Marshal()
	if err != nil || len(b) != len(raw) || bytes.Equal(b, raw) {
		t.Errorf("kvproto gives %X of %X (%v): the comment in doc.go is out of date", b, raw, err)
	}
}

func TestLocalKeys(t *testing.T) {
	for _, c := range []struct {
		key           string
		kind          KeyKind
		region, index uint64
	}{
		{"0101", KeyStoreIdent, 0, 0},
		{"0102", KeyBootstrapRegion, 0, 0},
		{"0103", KeyStoreRecoverState, 0, 0},
		{"0102000000000000010001000000000000002a", KeyRaftLog, 256, 42},
		{"0102000000000000010002", KeyRaftState, 256, 0},
		{"0102000000000000010003", KeyApplyState, 256, 0},
		{"0102000000000000010004", KeySnapshotRaftState, 256, 0},
		{"0103000000000000010001", KeyRegionState, 256, 0},
		{"0103000000000000010002", KeyUnknown, 0, 0},
		{"0102000000000000010001", KeyUnknown, 0, 0},
		{"0102000000000000010005", KeyUnknown, 0, 0},
		{"0102000000000000010002000000000000002a", KeyUnknown, 0, 0},
		{"0103000000000000010001000000000000002a", KeyUnknown, 0, 0},
		{"01020000", KeyUnknown, 0, 0},
		{"0104", KeyUnknown, 0, 0},
		{"7a", KeyUnknown, 0, 0},
		{"", KeyUnknown, 0, 0},
	} {
		key, _ := hex.DecodeString(c.key)
		kind, region, index, ok := ParseLocalKey(key)
		if kind != c.kind || region != c.region || index != c.index || ok != (c.kind != KeyUnknown) {
			t.Errorf("%s: %v %d %d %v", c.key, kind, region, index, ok)
		}
		if build := buildKey(kind, region, index); ok && build != nil && !bytes.Equal(build, key) {
			t.Errorf("%v is built as %X, read as %X", kind, build, key)
		}
	}
}

func buildKey(kind KeyKind, region, index uint64) []byte {
	switch kind {
	case KeyStoreIdent:
		return StoreIdentKey()
	case KeyRaftLog:
		return RaftLogKey(region, index)
	case KeyRaftState:
		return RaftStateKey(region)
	case KeyApplyState:
		return ApplyStateKey(region)
	case KeySnapshotRaftState:
		return SnapshotRaftStateKey(region)
	case KeyRegionState:
		return RegionStateKey(region)
	}
	return nil
}
