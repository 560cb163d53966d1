package plan

import "strings"

// settingDefault is a default of TiKV, where it is known. line is the RocksDB line for which it holds; "" for all.
type settingDefault struct {
	name, value, line string
}

const (
	levelsKV   = `["no", "no", "lz4", "lz4", "lz4", "zstd", "zstd"]`
	levelsNone = `["no", "no", "no", "no", "no", "no", "no"]`
)

// settingDefaults are the defaults of settings that decide how files look, with which a store stays readable whatever they are
// (tikv/tikv 5.4 … master src/config/mod.rs DefaultCfConfig, WriteCfConfig, LockCfConfig, RaftCfConfig, TitanCfConfig,
// RaftEngineConfig). A setting whose default changed within one RocksDB line is not listed for that line.
var settingDefaults = append(columnFamilyDefaults(), []settingDefault{
	{"rocksdb.defaultcf.block-size", "64KiB", "6.4"},
	{"rocksdb.defaultcf.block-size", "32KiB", "8.10"},
	{"rocksdb.writecf.block-size", "64KiB", "6.4"},
	{"rocksdb.writecf.block-size", "32KiB", "8.10"},
	{"rocksdb.lockcf.block-size", "16KiB", ""},
	{"rocksdb.raftcf.block-size", "16KiB", ""},
	{"rocksdb.defaultcf.whole-key-filtering", "true", ""},
	{"rocksdb.writecf.whole-key-filtering", "false", ""},
	{"rocksdb.lockcf.whole-key-filtering", "true", ""},
	{"rocksdb.raftcf.whole-key-filtering", "true", ""},
	{"rocksdb.defaultcf.compression-per-level", levelsKV, ""},
	{"rocksdb.writecf.compression-per-level", levelsKV, ""},
	{"rocksdb.lockcf.compression-per-level", levelsNone, ""},
	{"rocksdb.raftcf.compression-per-level", levelsNone, ""},
	{"rocksdb.defaultcf.bottommost-level-compression", "zstd", ""},
	{"rocksdb.writecf.bottommost-level-compression", "zstd", ""},
	{"rocksdb.lockcf.bottommost-level-compression", "disable", ""},
	{"rocksdb.raftcf.bottommost-level-compression", "disable", ""},
	{"rocksdb.defaultcf.titan.blob-file-compression", "lz4", "6.4"},
	{"rocksdb.defaultcf.titan.blob-file-compression", "zstd", "8.10"},
	{"rocksdb.defaultcf.titan.blob-run-mode", "normal", ""},
	{"rocksdb.defaultcf.titan.level-merge", "false", ""},
	{"raft-engine.format-version", "2", ""},
	{"raft-engine.recovery-read-block-size", "16KiB", ""},
	{"raft-engine.recovery-threads", "4", ""},
	{"raft-engine.target-file-size", "128MiB", ""},
	{"raft-engine.purge-threshold", "10GiB", ""},
	{"raft-engine.purge-rewrite-garbage-ratio", "0.6", ""},
}...)

func columnFamilyDefaults() []settingDefault {
	var out []settingDefault
	for _, cf := range []string{"default", "write", "lock", "raft"} {
		p := "rocksdb." + cf + "cf."
		out = append(out, settingDefault{p + "format-version", "2", ""}, settingDefault{p + "checksum", "crc32c", ""},
			settingDefault{p + "num-levels", "7", ""}, settingDefault{p + "dynamic-level-bytes", "true", ""},
			settingDefault{p + "use-bloom-filter", "true", ""}, settingDefault{p + "bloom-filter-bits-per-key", "10", ""},
			settingDefault{p + "prop-size-index-distance", "4194304", ""}, settingDefault{p + "prop-keys-index-distance", "40960", ""})
	}
	return out
}

// tuning lists values that differ from the known defaults.
func (c *settingsCase) tuning() {
	for _, d := range settingDefaults {
		v := c.last(d.name)
		if v == "" || d.line != "" && d.line != c.in.Line || c.same(v, d.value) || c.in.RaftRocks && strings.HasPrefix(d.name, "raft-engine.") {
			continue
		}
		c.need(d.name, v, SettingRecorded, DangerTuning, d.value, "", "")
	}
}
