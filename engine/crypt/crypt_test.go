package crypt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/encryptionpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/crypt"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// The dictionary that TiKV wrote: 28 records, 10 of them removes.
func TestRealDictionary(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-encrypted"))
	d, err := crypt.Load(fs, "/data")
	if err != nil {
		t.Fatal(err)
	}
	if d.Version != 2 || d.Torn != 0 || d.Len() == 0 {
		t.Fatalf("version %d, %d files, %d torn", d.Version, d.Len(), d.Torn)
	}
	const home = "/srv/tikv/single-encrypted/tikv0/"
	for _, e := range d.Entries() {
		if e.Method != crypt.AES256CTR || len(e.IV) != 16 || e.KeyID == 0 || !strings.HasPrefix(e.Path, home) {
			t.Errorf("entry %+v", e)
		}
	}
	// Every file that is there is found by its place below the data directory, wherever that is; CURRENT and LOCK are
	// always plain, and so is what the dictionary has removed.
	for _, dir := range []string{"db", "db/titandb", "raft-engine"} {
		names, err := fs.List("/data/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			plain := n == "CURRENT" || n == "LOCK" || n == "titandb"
			e, ok := d.Find("/data/" + dir + "/" + n)
			if ok == plain {
				t.Errorf("%s/%s: found %v", dir, n, ok)
			}
			if _, exact := d.Get(home + dir + "/" + n); exact != ok || ok && e.Path != home+dir+"/"+n {
				t.Errorf("%s/%s: entry %+v", dir, n, e)
			}
		}
	}
	if _, ok := d.Find("/data/db/000000.dbtmp"); ok {
		t.Error("a removed file is still there")
	}
}

// TestTornTail cuts the real dictionary everywhere: the records before the cut stay, and only whole ones count.
func TestTornTail(t *testing.T) {
	whole := fixtures.File(t, "single-encrypted", "data/file.dict")
	edges := 0
	for cut := 16; cut <= len(whole); cut++ {
		d, err := crypt.Parse("file.dict", whole[:cut])
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if d.Torn == 0 {
			edges++
		}
	}
	if edges != 29 {
		t.Errorf("%d cuts fall between records, want 29 for 28 records", edges)
	}
	for cut := range 16 {
		if _, err := crypt.Parse("file.dict", whole[:cut]); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("header cut at %d: %v", cut, err)
		}
	}
	last := bytes.Clone(whole)
	last[len(last)-1] ^= 1
	if d, err := crypt.Parse("file.dict", last); err != nil || d.Torn == 0 {
		t.Errorf("damaged last record: %v", err)
	}
	middle := bytes.Clone(whole)
	middle[40] ^= 1
	if _, err := crypt.Parse("file.dict", middle); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "offset 16") {
		t.Errorf("damaged first record: %v", err)
	}
}

func TestHeaderDamage(t *testing.T) {
	content := marshal(t, dictionary(map[string]encryptionpb.EncryptionMethod{"/d/db/000004.log": encryptionpb.EncryptionMethod_AES128_CTR}))
	good := file(2, content)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		d, err := crypt.Parse("file.dict", bad)
		reserved := i >= 1 && i <= 3
		if reserved != (err == nil) {
			t.Errorf("byte %d: %v", i, err)
		}
		if reserved && d.Len() != 1 {
			t.Errorf("byte %d: %d files", i, d.Len())
		}
	}
}

type message interface{ Marshal() ([]byte, error) }

func marshal(tb testing.TB, m message) []byte {
	tb.Helper()
	b, err := m.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func dictionary(files map[string]encryptionpb.EncryptionMethod) *encryptionpb.FileDictionary {
	d := &encryptionpb.FileDictionary{Files: map[string]*encryptionpb.FileInfo{}}
	for n, m := range files {
		d.Files[n] = &encryptionpb.FileInfo{KeyId: 7, Iv: make([]byte, 16), Method: m}
	}
	return d
}

func file(version byte, content []byte) []byte {
	b := []byte{version, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(content))
	b = binary.BigEndian.AppendUint64(b, uint64(len(content)))
	return append(b, content...)
}

// Version 1 wraps the dictionary; an encrypted entry wins over a plain one of the same place.
func TestVersion1(t *testing.T) {
	inner := marshal(t, dictionary(map[string]encryptionpb.EncryptionMethod{
		"/old/db/000004.log":   encryptionpb.EncryptionMethod_PLAINTEXT,
		"/older/db/000004.log": encryptionpb.EncryptionMethod_SM4_CTR,
		"/old/db/000005.log":   encryptionpb.EncryptionMethod_PLAINTEXT,
	}))
	sealed := &encryptionpb.EncryptedContent{Metadata: map[string][]byte{"method": []byte("plaintext")}, Content: inner}
	d, err := crypt.Parse("file.dict", file(1, marshal(t, sealed)))
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := d.Find("/new/db/000004.log"); !ok || e.Method != crypt.SM4CTR || !e.Method.Encrypted() {
		t.Errorf("000004.log: %+v", e)
	}
	if e, ok := d.Find("/old/db/000004.log"); !ok || e.Method != crypt.Plaintext {
		t.Errorf("exact path: %+v", e)
	}
	if e, ok := d.Find("/new/db/000005.log"); !ok || e.Method.Encrypted() {
		t.Errorf("000005.log: %+v", e)
	}
	if _, ok := d.Find("/new/raft/000004.log"); ok {
		t.Error("raft/000004.log is not in the dictionary")
	}
	if _, err := crypt.Parse("file.dict", append(file(1, marshal(t, sealed)), 0)); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("trailing byte: %v", err)
	}
	sealed.Metadata["method"] = []byte("aes256-gcm")
	if _, err := crypt.Parse("file.dict", file(1, marshal(t, sealed))); !errors.Is(err, base.ErrUnsupported) {
		t.Errorf("sealed dictionary: %v", err)
	}
	if _, err := crypt.Parse("file.dict", file(3, inner)); !errors.Is(err, base.ErrUnsupported) {
		t.Errorf("version 3: %v", err)
	}
}

func TestNoDictionary(t *testing.T) {
	if d, err := crypt.Load(base.NewMem(vfs.NewMem()), "/"); d != nil || err != nil {
		t.Errorf("%v, %v", d, err)
	}
}

func FuzzFileDict(f *testing.F) {
	f.Add(fixtures.File(f, "single-encrypted", "data/file.dict"))
	inner := marshal(f, dictionary(map[string]encryptionpb.EncryptionMethod{"/d/db/1.log": encryptionpb.EncryptionMethod_AES192_CTR}))
	f.Add(file(2, inner))
	f.Add(file(1, marshal(f, &encryptionpb.EncryptedContent{Metadata: map[string][]byte{"method": []byte("plaintext")}, Content: inner})))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum is made to fit half of the time, or nothing would get past it.
		if len(b) > 16 && b[1]&1 == 1 {
			size := min(binary.BigEndian.Uint64(b[8:]), uint64(len(b)-16))
			b = bytes.Clone(b)
			binary.BigEndian.PutUint64(b[8:], size)
			binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[16:16+size]))
		}
		d, err := crypt.Parse("file.dict", b)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		for _, e := range d.Entries() {
			if got, ok := d.Find(e.Path); !ok || got.Path != e.Path {
				t.Errorf("%q is not found", e.Path)
			}
		}
	})
}
