package repair

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Files that wait in snap/ and import/: what holds something above T is moved into the backup and comes back with undo; what does not
// stays. The tables are the store's own write-CF table under the names that TiKV gives to received snapshots and uploads.
func TestWaitingFilesAboveTAreSetAside(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-levels"))
	table, err := base.ReadFile(fs, "/data/db/000162.sst")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"/data/snap/rev_2_6_40.meta": []byte("meta"), "/data/snap/rev_2_6_40_write.sst": table, "/data/snap/rev_2_6_40_lock.sst": nil,
		"/data/snap/rev_4_6_40.meta": []byte("meta"), "/data/snap/rev_4_6_40_lock.sst": nil, // an empty snapshot
		"/data/snap/gen_2_6_40_write.sst": table, // made here for somebody else
		"/data/import/0a_2_1_1_write.sst": table,
	}
	for _, d := range []string{"/data/snap", "/data/import"} {
		if err := fs.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range files {
		if err := base.WriteFileSync(fs, name, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	var shown *Preview
	sp := mvcc.TS(1)
	at := mvcc.TS(470610469876137985)
	o := ResetOptions{RewindOptions: RewindOptions{T: at, SafePoint: &sp, Now: time.Unix(1700000000, 0)}, Preview: func(p *Preview) { shown = p }}
	if _, err := Reset(context.Background(), fs, "/data", scan.Options{}, o); err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, p := range shown.Problems {
		if p.Name() == "pending-snapshot" {
			listed++
		}
	}
	if listed != 4 {
		t.Errorf("%d files are listed in the preview, want 4", listed)
	}
	for name := range files {
		gone := strings.Contains(name, "rev_2_") || strings.Contains(name, "/import/")
		if ok, err := base.Exists(fs, name); err != nil || ok == gone {
			t.Errorf("%s: there %v, %v", name, ok, err)
		}
	}
	if _, err := Undo(fs, "/data", BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := base.ReadFile(fs, name); err != nil || string(got) != string(want) {
			t.Errorf("%s after undo: %d bytes, %v", name, len(got), err)
		}
	}
}
