package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"4MiB": 4 << 20, "0KiB": 0, "32KiB": 32 << 10, " 0.5 PB": 1 << 49, "0.5GB ": 1 << 29, "23": 23, "1024B": 1024, "7T": 7 << 40,
		"1 KiB": 1024, "0.5e6 B": 500000, "1e6B": 1000000, "1e+1MB": 10 << 20, "9223372036854775807B": 1<<63 - 1,
		"18446744073709551615": 1<<64 - 1, "3791477145B": 3791477145,
	} {
		if got, err := engine.ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0.5kb", "0.5Kb", "b", "gb", "1b", "B", "1K24B", " 5_KB", "4B7", "-1", "-1KB", "inf", "nan", "1e30", "16384PiB", "1KiBB"} {
		if got, err := engine.ParseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

// One odd setting costs a warning, not the file; a file that is not TOML is an error.
func TestParseConfig(t *testing.T) {
	c, err := engine.ParseConfig("last_tikv.toml", []byte(`
unknown = 1
[storage]
data-dir = "/srv/tikv0"
api-version = "two"
enable-ttl = true
reserve-space = "5GiB"
[rocksdb]
wal-dir = "/wal/tikv0"
[rocksdb.writecf]
prop-size-index-distance = "8MiB"
prop-keys-index-distance = 100
block-size = -4
compression-per-level = ["no", 5]
bottommost-level-compression = "zstd"
[rocksdb.defaultcf]
compression-per-level = ["no", "lz4"]
format-version = 5
[rocksdb.defaultcf.titan]
level-merge = true
min-blob-size = "1KiB"
[rocksdb.titan]
enabled = true
[raft-engine]
enable = false
recovery-mode = "tolerate-any-corruption"
[security.encryption]
data-encryption-method = "plaintext"
`))
	if err != nil {
		t.Fatal(err)
	}
	w, d := c.KV.CFs["write"], c.KV.CFs["default"]
	if c.DataDir != "/srv/tikv0" || c.APIVersion != 1 || !c.EnableTTL || c.ReserveSpace != 5<<30 || c.KV.WALDir != "/wal/tikv0" ||
		!c.Titan.Enabled || c.RaftEngine.Enable || !c.RaftEngine.HasEnable || c.RaftEngine.RecoveryMode != "tolerate-any-corruption" || c.Encryption.Method != "plaintext" {
		t.Errorf("%+v", c)
	}
	if w.PropSizeIndexDistance != 8<<20 || w.PropKeysIndexDistance != 100 || w.BlockSize != 0 || w.CompressionPerLevel != nil || w.FormatVersion != 2 {
		t.Errorf("write: %+v", w)
	}
	if d.PropSizeIndexDistance != 4<<20 || d.PropKeysIndexDistance != 40960 || len(d.CompressionPerLevel) != 2 || d.FormatVersion != 5 || !d.TitanLevelMerge || d.MinBlobSize != 1024 {
		t.Errorf("default: %+v", d)
	}
	for _, setting := range []string{"api-version", "writecf.block-size", "writecf.compression-per-level"} {
		if !strings.Contains(strings.Join(c.Warnings, "\n"), setting) {
			t.Errorf("no warning about %s in %q", setting, c.Warnings)
		}
	}
	if len(c.Warnings) != 3 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if _, err := engine.ParseConfig("last_tikv.toml", []byte("[storage\n")); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("not TOML: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("[storage]\ndata-dir = \"/x\"\n[rocksdb.writecf]\nblock-size = \"32KiB\"\n"))
	f.Add([]byte("rocksdb = 5\nstorage = [1]\n[raft-engine]\ndir = 1979-05-27\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := engine.ParseConfig("last_tikv.toml", b)
		if (c == nil) != errors.Is(err, base.ErrCorrupt) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
