package engine_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func TestSettings(t *testing.T) {
	got, err := engine.Settings("f", []byte(`
top = 1
[rocksdb.defaultcf]
compression-per-level = ["no", "lz4"]
[rocksdb.defaultcf.titan]
min-blob-size = "32KiB"
discardable-ratio = 0.5
[server]
labels = { zone = "east" }
[raft-engine]
enable = true
dir = ""
`))
	want := map[string]string{"top": "1", "rocksdb.defaultcf.compression-per-level": `["no", "lz4"]`, "rocksdb.defaultcf.titan.min-blob-size": "32KiB",
		"rocksdb.defaultcf.titan.discardable-ratio": "0.5", "server.labels.zone": "east", "raft-engine.enable": "true", "raft-engine.dir": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := engine.Settings("f", []byte("[rocksdb")); !errors.Is(err, base.ErrCorrupt) {
		t.Error(err)
	}
	raw, err := base.ReadFile(base.NewMem(fixtures.Mem(t, "single-titan")), "/data/last_tikv.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got, err = engine.Settings("f", raw); err != nil || len(got) < 500 || got["rocksdb.defaultcf.titan.min-blob-size"] != "1KiB" {
		t.Errorf("%d settings, %v", len(got), err)
	}
}

// A store whose raft log lies outside is found without last_tikv.toml as long as a backup has it; of several backups the newest counts.
func TestSetAsideConfigStillNamesPaths(t *testing.T) {
	outside := store.with(tree{"/s/" + raftlog: "-", "/s/raft-engine/LOCK": "-", "/raft/0000000000000001.raftlog": "", "/s/last_tikv.toml": "-"})
	if _, err := discover(t, outside, "/s", engine.Overrides{}); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("without a backup: %v", err)
	}
	backup := func(id, started, moved, dir string) tree {
		return tree{
			"/s/tikv-repair/" + id + "/files/last_tikv.toml": strings.ReplaceAll(toml("/s", ""), "/s/raft-engine", dir),
			"/s/tikv-repair/" + id + "/journal.json": `{"started": "` + started + `", "saved": [{"path": "last_tikv.toml", "backup": "tikv-repair/` + id +
				`/files/last_tikv.toml"}], "moved": ["` + moved + `"]}`,
		}
	}
	with := outside.with(backup("clean-1", "2026-01-03T00:00:00Z", "last_tikv.toml", "/raft")).
		with(backup("clean-2", "2026-01-02T00:00:00Z", "last_tikv.toml", "/other")).
		with(backup("reset-3", "2026-01-04T00:00:00Z", "import/x.sst", "/other")).
		with(tree{"/s/tikv-repair/torn/journal.json": "{", "/s/tikv-repair/empty/plan.json": "{}"})
	l, err := discover(t, with, "/s", engine.Overrides{})
	if err != nil || l.RaftDir != "/raft" || !slices.ContainsFunc(l.Warnings, func(w string) bool { return strings.Contains(w, "has been set aside") }) {
		t.Fatalf("%+v, %v", l, err)
	}
	// The file in its place comes before every backup.
	l, err = discover(t, with.with(tree{"/s/last_tikv.toml": toml("/s", ""), "/s/" + raftlog: ""}), "/s", engine.Overrides{})
	if err != nil || l.RaftDir != "/s/raft-engine" {
		t.Errorf("%+v, %v", l, err)
	}
}
