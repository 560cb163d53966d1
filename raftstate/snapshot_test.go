package raftstate

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// realMetas are the metadata files of received snapshots that real stores left behind, by path.
func realMetas(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range fixtures.Names() {
		if !strings.HasPrefix(name, "multi") {
			continue
		}
		fs := fixtures.Mem(t, name)
		for _, store := range fixtures.Stores(t, name) {
			names, err := fs.List(fs.PathJoin(store, "snap"))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				f, err := fs.Open(fs.PathJoin(store, "snap", n))
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if _, err := b.ReadFrom(f); err != nil {
					t.Fatal(err)
				}
				f.Close()
				out[name+store+"/snap/"+n] = b.Bytes()
			}
		}
	}
	return out
}

// Snapshots that real stores received when their peers were created: every file name and every metadata file reads.
func TestRealSnapshots(t *testing.T) {
	metas := realMetas(t)
	if len(metas) < 30 {
		t.Fatalf("%d snapshots in the fixtures", len(metas))
	}
	for path, b := range metas {
		base := path[strings.LastIndexByte(path, '/')+1:]
		n, ok := ParseSnapshotName(base)
		if !ok || !n.Received || n.CF != "" || n.Suffix != "" || n.Key.Region == 0 || n.Key.Term < InitLogTerm || n.Key.Index < InitLogIndex {
			t.Errorf("%s: %+v %v", path, n, ok)
		}
		m, err := ParseSnapshotMeta(b)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		// The regions were empty when they were copied.
		want := []SnapshotFile{{CF: "default"}, {CF: "lock"}, {CF: "write"}}
		if d := cmp.Diff(want, m.Files); d != "" || m.Size() != 0 || !m.ForBalance || m.Start < 1_700_000_000 || !bytes.Equal(m.Raw, b) {
			t.Errorf("%s: %+v\n%s", path, m, d)
		}
	}
}

func cfFile(cf string, size, sum uint64) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), cf)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), size)
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), sum)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
}

func TestParseSnapshotMeta(t *testing.T) {
	var whole []byte
	for _, f := range [][]byte{cfFile("default", 7, 8), cfFile("default", 9, 10), cfFile("lock", 0, 0), cfFile("write", 1, 0xFFFFFFFF), cfFile("write", 2, 3), cfFile("write", 4, 5)} {
		whole = append(whole, f...)
	}
	// A field that no release has yet.
	future := append(bytes.Clone(whole), "\xfa\x06\x03abc"...)
	for _, b := range [][]byte{whole, future} {
		m, err := ParseSnapshotMeta(b)
		if err != nil {
			t.Fatal(err)
		}
		want := []SnapshotFile{{"default", 0, 7, 8}, {"default", 1, 9, 10}, {"lock", 0, 0, 0}, {"write", 0, 1, 0xFFFFFFFF}, {"write", 1, 2, 3}, {"write", 2, 4, 5}}
		if d := cmp.Diff(want, m.Files); d != "" || m.Size() != 23 || !bytes.Equal(m.Raw, b) {
			t.Errorf("%+v\n%s", m, d)
		}
	}
	for name, b := range map[string][]byte{
		"empty":            nil,
		"cut off":          whole[:len(whole)-1],
		"a family missing": append(cfFile("default", 0, 0), cfFile("lock", 0, 0)...),
		"another order":    append(append(cfFile("lock", 0, 0), cfFile("default", 0, 0)...), cfFile("write", 0, 0)...),
		"a fourth family":  append(bytes.Clone(whole), cfFile("raft", 0, 0)...),
		"a family again":   append(bytes.Clone(whole), cfFile("default", 0, 0)...),
	} {
		if m, err := ParseSnapshotMeta(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestSnapshotNames(t *testing.T) {
	k := SnapshotKey{12, 6, 1 << 40}
	for name, want := range map[string]SnapshotName{
		"rev_12_6_1099511627776.meta":                   {Key: k, Received: true},
		"gen_12_6_1099511627776.meta.tmp":               {Key: k, Suffix: ".tmp"},
		"gen_12_6_1099511627776_default.sst":            {Key: k, CF: "default"},
		"rev_12_6_1099511627776_write_0012.sst":         {Key: k, Received: true, CF: "write", Part: 12},
		"rev_12_6_1099511627776_lock.sst.tmp":           {Key: k, Received: true, CF: "lock", Suffix: ".tmp"},
		"rev_12_6_1099511627776_default_0001.sst.clone": {Key: k, Received: true, CF: "default", Part: 1, Suffix: ".clone"},
	} {
		n, ok := ParseSnapshotName(name)
		if d := cmp.Diff(want, n); !ok || d != "" || n.String() != name {
			t.Errorf("%s: %v %s", name, ok, d)
		}
	}
	for _, name := range []string{"", "del_range_12.sst", "rev_12_6_7", "rev_12_6.meta", "rev_012_6_7.meta", "rev_12_6_-7.meta", "sent_12_6_7.meta", "rev_12_6_7_raft.sst",
		"rev_12_6_7_write_1.sst", "rev_12_6_7_write_0000.sst", "rev_12_6_7_write.meta", "rev_12_6_7.sst", "rev_12_6_7.meta.tmp.clone", "rev_12_6_18446744073709551616.meta"} {
		if n, ok := ParseSnapshotName(name); ok {
			t.Errorf("%q reads as %+v", name, n)
		}
	}
}

// An applying region is moved to the snapshot's entry before its data comes.
func TestAppliedSnapshot(t *testing.T) {
	if k := AppliedSnapshot(12, &RaftApplyState{AppliedIndex: 90, TruncatedState: TruncatedState{90, 8}}); k.String() != "12_8_90" {
		t.Error(k)
	}
	if k := AppliedSnapshot(12, nil); k.String() != "12_5_5" {
		t.Error(k)
	}
}

func TestImportNames(t *testing.T) {
	uuid := Key("0123456789abcdef")
	const text = "30313233-3435-3637-3839-616263646566"
	for name, want := range map[string]ImportName{
		text + "_2_3_4_write.sst":          {UUID: uuid, Region: 2, Epoch: Epoch{ConfVer: 3, Version: 4}, CF: "write"},
		text + "_2_3_4_default_2.sst":      {UUID: uuid, Region: 2, Epoch: Epoch{ConfVer: 3, Version: 4}, CF: "default", More: "2"},
		text + "_2_3_4_default_2_more.sst": {UUID: uuid, Region: 2, Epoch: Epoch{ConfVer: 3, Version: 4}, CF: "default", More: "2_more"},
		text + "_2_3_4.sst":                {UUID: uuid, Region: 2, Epoch: Epoch{ConfVer: 3, Version: 4}},
	} {
		n, ok := ParseImportName(name)
		if d := cmp.Diff(want, n); !ok || d != "" || n.String() != name {
			t.Errorf("%s: %v %s", name, ok, d)
		}
	}
	for _, name := range []string{"", "x.sst", text + ".sst", text + "_2_3.sst", text + "_2_3_4_write", text + "_2_3_x_write.sst", "30313233343536373839616263646566_2_3_4_write.sst",
		strings.ToUpper("abcdefab") + text[8:] + "_2_3_4_write.sst", text + "_02_3_4_write.sst"} {
		if n, ok := ParseImportName(name); ok {
			t.Errorf("%q reads as %+v", name, n)
		}
	}
	if UUIDText([]byte("short")) != "" {
		t.Error("a uuid of 5 bytes")
	}
}

func FuzzSnapshotMeta(f *testing.F) {
	for _, b := range realMetas(f) {
		f.Add(b)
	}
	f.Add(append(append(append(cfFile("default", 7, 8), cfFile("lock", 0, 0)...), cfFile("write", 9, 1)...), cfFile("write", 9, 1)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseSnapshotMeta(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if len(m.Files) < 3 || !bytes.Equal(m.Raw, b) {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzFileNames(f *testing.F) {
	f.Add("rev_12_6_7_write_0001.sst.clone")
	f.Add("gen_12_6_7.meta")
	f.Add("30313233-3435-3637-3839-616263646566_2_3_4_write_2.sst")
	f.Fuzz(func(t *testing.T, name string) {
		if n, ok := ParseSnapshotName(name); ok && n.String() != name {
			t.Errorf("%q is written %q", name, n)
		}
		if n, ok := ParseImportName(name); ok && n.String() != name {
			t.Errorf("%q is written %q", name, n)
		}
	})
}
