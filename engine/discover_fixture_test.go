package engine_test

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Every real directory is either understood or refused for the reason that it was made for.
func TestDiscoverFixtures(t *testing.T) {
	for _, name := range fixtures.Names() {
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name))
			for _, store := range fixtures.Stores(t, name) {
				dir := "/" + strings.TrimPrefix(store, "/")
				l, err := engine.Discover(fs, dir, engine.Overrides{})
				if name == "tablets-v2" || name == "single-encrypted" {
					if !errors.Is(err, base.ErrUnsupported) {
						t.Fatalf("%s: got %v, want a refusal", dir, err)
					}
					if want := map[string]string{"tablets-v2": "partitioned-raft-kv", "single-encrypted": "aes256-ctr"}[name]; !strings.Contains(err.Error(), want) {
						t.Errorf("refusal %q does not say %q", err, want)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", dir, err)
				}
				rocksRaft := name == "single-raftdb" || name == "multi4-dr-learner"
				if want := map[bool]engine.RaftKind{true: engine.RaftRocks, false: engine.RaftEngine}[rocksRaft]; l.Raft != want {
					t.Errorf("%s: raft store is %s, want %s", dir, l.Raft, want)
				}
				if want := path.Join(dir, map[bool]string{true: "raft", false: "raft-engine"}[rocksRaft]); l.RaftDir != want {
					t.Errorf("%s: raft dir is %s, want %s", dir, l.RaftDir, want)
				}
				if l.HasTitan != (name == "single-titan") {
					t.Errorf("%s: HasTitan is %v", dir, l.HasTitan)
				}
				if l.KVWALDir != l.KVDir || !strings.HasPrefix(l.OptionsFile, l.KVDir+"/OPTIONS-0000") || l.HasPanicMark || len(l.Foreign) > 0 {
					t.Errorf("%s: layout %+v", dir, l)
				}
				checkRealConfig(t, name, l)
			}
		})
	}
}

func checkRealConfig(t *testing.T, name string, l *engine.Layout) {
	t.Helper()
	c := l.Config
	if c == nil || len(c.Warnings) > 0 {
		t.Fatalf("config: %+v", c)
	}
	wantAPI, wantTTL := 1, false
	switch name {
	case "raw-v2":
		wantAPI, wantTTL = 2, true
	case "raw-v1ttl":
		wantTTL = true
	}
	w := c.KV.CFs["write"]
	if c.APIVersion != wantAPI || c.EnableTTL != wantTTL || w.PropSizeIndexDistance != 4<<20 || w.PropKeysIndexDistance != 40960 || w.BlockSize != 32<<10 {
		t.Errorf("config of %s: %+v", l.Dir, c)
	}
	if len(w.CompressionPerLevel) != 7 {
		t.Errorf("compression of write CF: %v", w.CompressionPerLevel)
	}
	// The archives were unpacked elsewhere than they were written.
	if !strings.HasPrefix(c.DataDir, "/srv/tikv/") || len(l.Warnings) == 0 || !strings.Contains(l.Warnings[0], c.DataDir) {
		t.Errorf("data-dir %q, warnings %q", c.DataDir, l.Warnings)
	}
	o := l.Options
	if o == nil || o.RocksDBVersion != "8.10.2" || len(o.CFs) != 4 || o.Lookup("write").PrefixExtractor != "FixedSuffixSliceTransform" {
		t.Errorf("options of %s: %+v", l.Dir, o)
	}
}
