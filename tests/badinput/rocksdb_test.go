package badinput

import (
	"bytes"
	"fmt"
	"path"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// What real RocksDB makes of a MANIFEST or a log that is cut or flipped: where it opens, it has the rows that our reader has; where it
// refuses, our reader has at least something to say.
func TestDamageAsRocksDBSeesIt(t *testing.T) {
	oracle.Available(t, oracle.V8_10)
	l := newLab(t)
	type damage struct {
		name string
		at   int
		flip byte
	}
	var all []damage
	for _, f := range []struct {
		name       string
		cuts, bits []int
	}{
		{"db/MANIFEST-000005", []int{236, 288, 300, 500, 733}, []int{40, 250, 400}},
		{"db/000018.log", []int{0, 1, 7, 500, 1000, 2890}, []int{0, 6, 1000, 2895}},
		{"db/000004.log", []int{2000, 5000, 5500}, []int{3000, 5400}},
	} {
		for _, c := range f.cuts {
			all = append(all, damage{f.name, c, 0})
		}
		for _, b := range f.bits {
			all = append(all, damage{f.name, b, 0x40})
		}
	}
	opened, refused := 0, 0
	for _, d := range all {
		p := path.Join(dataDir, d.name)
		label, b := fmt.Sprintf("%s cut to %d", d.name, d.at), bytes.Clone(l.files[p])
		if d.at >= len(b) {
			t.Errorf("%s: it has %d bytes", label, len(b))
			continue
		}
		if d.flip == 0 {
			b = b[:d.at]
		} else {
			label = fmt.Sprintf("%s, byte %d flipped", d.name, d.at)
			b[d.at] ^= d.flip
		}
		mem := l.store(map[string][]byte{p: b})
		theirs, theirErr := oracle.ReadFS(t, oracle.V8_10, mem, dataDir+"/db", oracle.Options{ReadWrite: true})
		ours, problems, ourErr := rowsOf(base.NewMem(mem))
		switch {
		case theirErr != nil:
			refused++
			if ourErr == nil && !problems {
				t.Errorf("%s: RocksDB refuses (%v), we read on", label, theirErr)
			}
		case ourErr != nil:
			t.Errorf("%s: RocksDB opens it, we do not: %v", label, ourErr)
		default:
			opened++
			for cf, rows := range theirs.Rows {
				if len(rows) != len(ours[cf]) {
					t.Errorf("%s: column family %s has %d rows for RocksDB, %d for us", label, cf, len(rows), len(ours[cf]))
					continue
				}
				for i, kv := range rows {
					if !bytes.Equal(kv.Key, ours[cf][i].Key) || !bytes.Equal(kv.Value, ours[cf][i].Value) {
						t.Errorf("%s: column family %s, row %d: %X for RocksDB, %X for us", label, cf, i, kv.Key, ours[cf][i].Key)
						break
					}
				}
			}
		}
	}
	t.Logf("RocksDB %s opened %d of %d damaged databases and read our rows; it refused %d", oracle.V8_10, opened, len(all), refused)
	if opened == 0 || refused == 0 {
		t.Error("the damages are all of one kind")
	}
}

func rowsOf(fs base.FS) (rows map[string][]oracle.KV, problems bool, err error) {
	db, err := rocks.Open(fs, dataDir+"/db", rocks.Options{})
	if err != nil {
		return nil, false, err
	}
	defer db.Close()
	rows = map[string][]oracle.KV{}
	for _, name := range db.Names() {
		v, err := db.CF(name).NewVisible(nil, nil, nil)
		if err != nil {
			return nil, false, err
		}
		for ok := v.First(); ok; ok = v.Next() {
			rows[name] = append(rows[name], oracle.KV{Key: bytes.Clone(v.User()), Value: bytes.Clone(v.Value())})
		}
		if err := v.Err(); err != nil {
			return nil, false, err
		}
		if err := v.Close(); err != nil {
			return nil, false, err
		}
	}
	return rows, len(db.Log.Problems) > 0, nil
}
