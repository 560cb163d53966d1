package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const (
	manyTables = 100_000
	// linksOfOne is below what ext4 allows for one file.
	linksOfOne = 50_000
)

// manyFiles gives a store 100,000 tables of the write column family: hard links of one of its own that holds nothing above ts, each with a
// range of keys of its own in the MANIFEST. Their content is never looked at.
func manyFiles(t *testing.T, dir string, ts mvcc.TS) {
	t.Helper()
	fs := base.NewOS()
	s, err := scan.Open(fs, dir, scan.Options{Mode: base.LockExclusive})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db := s.DB
	bounds, err := s.TimeBounds(scan.CFWrite)
	if err != nil {
		t.Fatal(err)
	}
	var oldest rocks.LevelFile
	for _, f := range db.CF(scan.CFWrite).Files() {
		if b := bounds.Of(f.Number); b.Trust && b.Max <= ts {
			oldest = f
		}
	}
	if oldest.FileMeta == nil {
		t.Fatal("no table without anything above T")
	}
	next, err := db.FreeNumber()
	if err != nil {
		t.Fatal(err)
	}
	c := rocks.Change{LastSeq: db.LastSeq}
	source := db.TablePath(oldest.Number)
	key := func(i int) ikey.Key {
		return ikey.Key{User: mvcc.DataKey(fmt.Appendf(nil, "u%07d", i), 5), Seq: oldest.SmallestSeq, Kind: ikey.KindPut}
	}
	for i := range manyTables {
		path := filepath.Join(db.Dir, manifest.TableName(next))
		if i%linksOfOne == 0 {
			b, err := os.ReadFile(source)
			if err == nil {
				err = os.WriteFile(path, b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			source = path
		} else if err := os.Link(source, path); err != nil {
			t.Skipf("hard links: %v", err)
		}
		f := *oldest.FileMeta
		f.Number, f.Smallest, f.Largest = next, key(2*i), key(2*i+1)
		c.Add = append(c.Add, rocks.Added{CF: scan.CFWrite, Level: 6, Meta: &f})
		next++
	}
	c.NextNumber = next + 1
	after, records, err := db.Draft(c, next)
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.Write(fs, filepath.Join(db.Dir, manifest.ManifestName(next)), records, db.State.Path); err != nil {
		t.Fatal(err)
	}
	if err := base.WriteFileSync(fs, filepath.Join(db.Dir, "CURRENT"), []byte(manifest.ManifestName(after.Number)+"\n"), ""); err != nil {
		t.Fatal(err)
	}
}

// A store of 100,000 tables opens and answers at the cost of its MANIFEST and one read a table; a rewind of what is in its logs and top
// levels does not read the others.
func TestManyTables(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 hard links")
	}
	dir := filepath.Join(fixtures.Dir(t, "single-levels"), "data")
	ts := mvcc.TS(fixtures.Facts(t, "single-levels").T3)
	manyFiles(t, dir, ts)
	run := func(into any, args ...string) time.Duration {
		t.Helper()
		cmd := exec.Command("tikv-repair", append(args, "--json", "--progress=none", dir)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		began := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, errs.String())
		}
		took := time.Since(began)
		if err := json.Unmarshal(out.Bytes(), into); err != nil {
			t.Fatal(err)
		}
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		t.Logf("%s took %.2f s, %.2f s of processor", args[0], took.Seconds(), cpu.Seconds())
		return cpu
	}
	var inspected any
	run(&inspected, "inspect") // the first one may find the directory entries on the disk
	cpu := run(&inspected, "inspect")
	var res struct {
		State   string `json:"state"`
		Kept    int    `json:"files_kept"`
		Removed int64  `json:"versions_removed"`
		Read    int64  `json:"bytes_read"`
	}
	run(&res, "reset", "--to-ts", ts.String(), "--safe-point", "1", "--yes")
	if res.State != repair.StateDone || res.Kept < manyTables || res.Removed == 0 || res.Read > 1<<20 {
		t.Errorf("%+v", res)
	}
	// The goal is one second of wall clock on two cores. The time of the processor depends less on what else the machine does; a tool
	// that opens every table needs three times the limit there.
	if limit := 6 * time.Second; cpu > limit {
		t.Errorf("inspect took %v of processor time", cpu)
	}
}
