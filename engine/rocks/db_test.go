package rocks_test

import (
	"bytes"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Directories that a killed TiKV left behind: the version is whole, the logs replay, and the merged view keeps its own rules.
func TestOpenRealStores(t *testing.T) {
	for _, name := range []string{"single-default", "single-levels", "single-lz4-ranges", "single-titan", "raw-v2"} {
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name))
			db, err := rocks.Open(fs, "/data/db", rocks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Log.Err(); err != nil {
				t.Fatal(err)
			}
			for _, f := range db.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
				t.Error(f)
			}
			for _, cf := range db.Names() {
				all, seen := countAll(t, db.CF(cf)), countVisible(t, db.CF(cf))
				t.Logf("%s: %d files, %d records, %d visible", cf, len(db.CF(cf).Files()), all, seen)
				if seen > all {
					t.Errorf("%s: %d visible of %d records", cf, seen, all)
				}
			}
		})
	}
}

func countAll(t *testing.T, cf *rocks.CF) int {
	it, err := cf.NewIter(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	var last ikey.Key
	for ok := it.First(); ok; ok = it.Next() {
		if n > 0 && ikey.Compare(last, it.Key()) >= 0 {
			t.Fatalf("%s after %s", it.Key(), last)
		}
		last = it.Key().Clone()
		n++
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return n
}

// countVisible also checks that Get and a seek agree with the walk.
func countVisible(t *testing.T, cf *rocks.CF) int {
	v, err := cf.NewVisible(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	n := 0
	for ok := v.First(); ok; ok = v.Next() {
		if n++; n%50 != 1 {
			continue
		}
		got, kind, found, err := cf.Get(v.User())
		if err != nil || !found || kind != v.Kind() || !bytes.Equal(got, v.Value()) {
			t.Fatalf("Get(%X) = %X, %v, %v, %v; the walk has %X, %v", v.User(), got, kind, found, err, v.Value(), v.Kind())
		}
	}
	if v.Err() != nil {
		t.Fatal(v.Err())
	}
	return n
}
