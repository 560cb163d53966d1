package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	bbolt "go.etcd.io/bbolt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// ours reads everything with this package.
func ours(fs base.FS, path string) (string, *File, error) {
	f, err := Open(fs, path)
	if err != nil {
		return "", nil, err
	}
	var b strings.Builder
	err = f.Each(func(bucket string, key, value []byte, _ int64) error {
		fmt.Fprintf(&b, "%s %x %x\n", bucket, key, value)
		return nil
	})
	return b.String(), f, errors.Join(err, f.Close())
}

// library reads everything with bbolt.
func library(t *testing.T, db *bbolt.DB) string {
	t.Helper()
	var b strings.Builder
	must(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			return bucket.ForEach(func(k, v []byte) error {
				fmt.Fprintf(&b, "%s %x %x\n", name, k, v)
				return nil
			})
		})
	}))
	return b.String()
}

// change does one random transaction: puts of all sizes, deletions, ranges of them.
func change(rng *rand.Rand, tx *bbolt.Tx) error {
	for range 1 + rng.Intn(60) {
		b, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "bucket%d", rng.Intn(4)))
		if err != nil {
			return err
		}
		key := fmt.Appendf(nil, "%0*d", 1+rng.Intn(20), rng.Intn(3000))
		switch rng.Intn(5) {
		case 0:
			err = b.Delete(key)
		case 1:
			err = b.Put(key, bytes.Repeat([]byte{7}, rng.Intn(20000)))
		default:
			err = b.Put(key, bytes.Repeat([]byte{8}, rng.Intn(60)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// What bbolt writes, we read as bbolt does: all page sizes, overflow pages, inline buckets, several levels, after every transaction.
func TestAgainstLibrary(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for _, pageSize := range []int{1024, 4096, 16384, 65536} {
		path := filepath.Join(t.TempDir(), "db")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoSync: true, NoFreelistSync: rng.Intn(2) == 0})
		must(t, err)
		for range 25 {
			must(t, db.Update(func(tx *bbolt.Tx) error { return change(rng, tx) }))
			got, f, err := ours(base.NewOS(), path)
			must(t, err)
			if len(f.Notes) != 0 {
				t.Fatalf("page size %d: %v", pageSize, f.Notes)
			}
			if want := library(t, db); got != want {
				t.Fatalf("page size %d: %d bytes, bbolt's %d", pageSize, len(got), len(want))
			}
		}
		must(t, db.Close())
	}
}

// When the newer meta page is damaged the state before the last transaction is read, and that is said; it is whole, since a transaction
// only writes pages that the one before does not use.
func TestOneMetaPageLeft(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096})
	must(t, err)
	var states []string
	for range 9 {
		must(t, db.Update(func(tx *bbolt.Tx) error { return change(rng, tx) }))
		states = append(states, library(t, db))
	}
	must(t, db.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	_, f, err := ours(base.NewOS(), path)
	must(t, err)
	for page := range 2 {
		bad := bytes.Clone(content)
		bad[page*4096+headerSize+50] ^= 1
		fs := base.NewMem(vfs.NewMem())
		must(t, base.WriteFileSync(fs, "/db", bad, ""))
		got, g, err := ours(fs, "/db")
		must(t, err)
		want := states[len(states)-1]
		if g.TxID() != f.TxID() {
			want = states[len(states)-2]
		}
		if got != want || len(g.Notes) != 1 || f.TxID()-g.TxID() > 1 || (g.TxID() == f.TxID()) == (f.TxID()%2 == uint64(page)) {
			t.Errorf("page %d: transaction %d of %d, notes %v, right %v", page, g.TxID(), f.TxID(), g.Notes, got == want)
		}
	}
	for _, c := range []struct {
		what   string
		change func([]byte) []byte
		class  error
	}{
		{"both meta pages", func(b []byte) []byte { b[20] ^= 1; b[4096+20] ^= 1; return b }, base.ErrCorrupt},
		{"no byte", func(b []byte) []byte { return nil }, base.ErrCorrupt},
		{"one page", func(b []byte) []byte { return b[:4096] }, base.ErrCorrupt},
	} {
		fs := base.NewMem(vfs.NewMem())
		must(t, base.WriteFileSync(fs, "/db", c.change(bytes.Clone(content)), ""))
		if _, _, err := ours(fs, "/db"); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// A bucket inside a bucket is refused by name.
func TestNestedBucket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("outer"))
		if err == nil {
			_, err = b.CreateBucket([]byte("inner"))
		}
		return err
	}))
	must(t, db.Close())
	if _, _, err := ours(base.NewOS(), path); !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), "inner") {
		t.Errorf("%v", err)
	}
}

// Pages that refer to each other in a circle, which bbolt follows until the stack is full, end in an error.
func TestCircle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024})
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for i := 0; err == nil && i < 500; i++ {
			err = b.Put(fmt.Appendf(nil, "%03d", i), make([]byte, 30))
		}
		return err
	}))
	must(t, db.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	circles := 0
	for at := 2 * 1024; at+1024 <= len(content); at += 1024 {
		if content[at+8] != flagBranch || content[at] != byte(at/1024) {
			continue
		}
		bad := bytes.Clone(content)
		bad[at+headerSize+8] = byte(at / 1024) // the first child is the page itself
		bad[at+headerSize+9] = byte(at / 1024 >> 8)
		fs := base.NewMem(vfs.NewMem())
		must(t, base.WriteFileSync(fs, "/db", bad, ""))
		_, _, err := ours(fs, "/db")
		if err != nil && errors.Is(err, base.ErrCorrupt) && strings.Contains(err.Error(), "referenced twice") {
			circles++
		}
	}
	if circles == 0 {
		t.Error("no circle was made")
	}
}
