package engine

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// LastConfig is the file that TiKV writes at each start: the configuration in force, defaults included.
const LastConfig = "last_tikv.toml"

// Defaults of TiKV's property collectors (tikv/tikv master components/engine_rocks/src/properties.rs).
const (
	DefaultPropSizeIndexDistance = 4 << 20
	DefaultPropKeysIndexDistance = 40 << 10
)

// Config is what this tool needs of last_tikv.toml. Paths are as recorded: of the host and directory of the last start.
// A setting that is absent or cannot be read has TiKV's default where one is named, else the zero value.
type Config struct {
	Path       string // of the file
	DataDir    string // storage.data-dir
	Engine     string // storage.engine: "raft-kv", "partitioned-raft-kv"; "" before 6.6
	APIVersion int    // storage.api-version: 1 or 2; default 1
	EnableTTL  bool   // storage.enable-ttl
	// ReserveSpace is storage.reserve-space: bytes of space_placeholder_file.
	ReserveSpace uint64

	KV   DBConfig // [rocksdb]
	Raft DBConfig // [raftdb]

	RaftDBPath string // raftstore.raftdb-path
	RaftEngine RaftEngineConfig
	Titan      TitanConfig
	Encryption EncryptionConfig

	// Warnings are settings that could not be read.
	Warnings []string
}

// DBConfig is [rocksdb] or [raftdb].
type DBConfig struct {
	WALDir string              // wal-dir; empty: the database's directory
	CFs    map[string]CFConfig // by column family name: default, lock, write, raft
}

// CFConfig is one column family's part, e.g. [rocksdb.writecf]. Sizes are bytes.
type CFConfig struct {
	BlockSize                  uint64
	PropSizeIndexDistance      uint64 // default 4 MiB
	PropKeysIndexDistance      uint64 // default 40960
	CompressionPerLevel        []string
	BottommostLevelCompression string // "zstd", "disable"
	HasFilter                  bool   // use-bloom-filter is there
	UseBloomFilter             bool
	BloomFilterBitsPerKey      int
	BlockBasedBloomFilter      bool
	WholeKeyFiltering          bool
	RibbonFilterAboveLevel     int // -1: no ribbon filters
	FormatVersion              int // block table; default 2
	Checksum                   string
	HasHits                    bool // optimize-filters-for-hits is there
	OptimizeFiltersForHits     bool
	DynamicLevelBytes          bool
	MaxBytesForLevelBase       uint64
	MaxBytesForLevelMultiplier int
	NumLevels                  int    // default 7
	MinBlobSize                uint64 // titan.min-blob-size
	BlobRunMode                string // titan.blob-run-mode: "normal", "read-only", "fallback"
	TitanLevelMerge            bool   // titan.level-merge
}

// RaftEngineConfig is [raft-engine].
type RaftEngineConfig struct {
	Enable    bool
	HasEnable bool // the key is there; without it the default is that of the TiKV that starts
	Dir       string
	SpillDir  string
	// RecoveryMode is how raft-engine treats bytes that do not decode, as recorded; raftlog.ParseMode reads it.
	RecoveryMode string
}

// TitanConfig is [rocksdb.titan].
type TitanConfig struct {
	Enabled bool
	Dirname string // empty: <db>/titandb
}

// EncryptionConfig is [security.encryption].
type EncryptionConfig struct {
	Method        string // data-encryption-method: "plaintext", "aes256-ctr", ...
	MasterKeyType string // master-key.type: "plaintext", "file", "kms"
	MasterKeyPath string // master-key.path
}

// LoadConfig reads last_tikv.toml of dir, or the one that a repair has set aside. The result is nil, with a warning, when it does
// not parse, and nil without one when it is not there: both are survivable, the file holds hints.
func LoadConfig(fs base.FS, dir string) (*Config, []string, error) {
	var warnings []string
	name := fs.PathJoin(dir, LastConfig)
	ok, err := base.Exists(fs, name)
	if err == nil && !ok {
		if name, err = setAside(fs, dir); err == nil && name != "" {
			if ok, err = base.Exists(fs, name); ok {
				warnings = append(warnings, fmt.Sprintf("%s has been set aside; the paths are those of %s", LastConfig, name))
			}
		}
	}
	if err != nil || !ok {
		return nil, nil, err
	}
	b, err := base.ReadFile(fs, name)
	if err != nil {
		return nil, nil, err
	}
	c, err := ParseConfig(name, b)
	if err != nil {
		return nil, append(warnings, fmt.Sprintf("%s does not parse and is ignored: %v", name, err)), nil
	}
	return c, append(warnings, c.Warnings...), nil
}

// ParseConfig decodes last_tikv.toml (tikv/tikv master src/config/mod.rs TikvConfig). Settings of an unexpected type
// become warnings; only a text that is not TOML is an error.
func ParseConfig(path string, b []byte) (*Config, error) {
	var tree map[string]any
	if err := toml.Unmarshal(b, &tree); err != nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "parse", Path: path, Offset: -1, Err: err}
	}
	c := &Config{Path: path}
	t := tomlTree{tree: tree, warn: func(s string) { c.Warnings = append(c.Warnings, path+": "+s) }}
	c.DataDir = t.str("storage.data-dir")
	c.Engine = t.str("storage.engine")
	c.APIVersion = int(t.num("storage.api-version", 1))
	c.EnableTTL, _ = t.flag("storage.enable-ttl")
	c.ReserveSpace = t.size("storage.reserve-space", 0)
	c.KV = t.db("rocksdb", "default", "lock", "write", "raft")
	c.Raft = t.db("raftdb", "default")
	c.RaftDBPath = t.str("raftstore.raftdb-path")
	c.RaftEngine.Enable, c.RaftEngine.HasEnable = t.flag("raft-engine.enable")
	c.RaftEngine.Dir, c.RaftEngine.SpillDir = t.str("raft-engine.dir"), t.str("raft-engine.spill-dir")
	c.RaftEngine.RecoveryMode = t.str("raft-engine.recovery-mode")
	c.Titan.Enabled, _ = t.flag("rocksdb.titan.enabled")
	c.Titan.Dirname = t.str("rocksdb.titan.dirname")
	c.Encryption = EncryptionConfig{
		Method:        t.str("security.encryption.data-encryption-method"),
		MasterKeyType: t.str("security.encryption.master-key.type"),
		MasterKeyPath: t.str("security.encryption.master-key.path"),
	}
	return c, nil
}

// tomlTree reads settings by dotted path. Reading key by key keeps one odd value from hiding all the others.
type tomlTree struct {
	tree map[string]any
	warn func(string)
}

func (t tomlTree) get(path string) any {
	var v any = t.tree
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (t tomlTree) odd(path string, v any) {
	t.warn(fmt.Sprintf("%s = %v cannot be read and is ignored", path, v))
}

func (t tomlTree) str(path string) string {
	v := t.get(path)
	s, ok := v.(string)
	if !ok && v != nil {
		t.odd(path, v)
	}
	return s
}

func (t tomlTree) flag(path string) (value, there bool) {
	v := t.get(path)
	b, ok := v.(bool)
	if !ok && v != nil {
		t.odd(path, v)
	}
	return b, ok
}

func (t tomlTree) num(path string, otherwise int64) int64 {
	v := t.get(path)
	if n, ok := v.(int64); ok {
		return n
	}
	if v != nil {
		t.odd(path, v)
	}
	return otherwise
}

func (t tomlTree) size(path string, otherwise uint64) uint64 {
	switch v := t.get(path).(type) {
	case nil:
		return otherwise
	case int64:
		if v >= 0 {
			return uint64(v)
		}
		t.odd(path, v)
	case string:
		if n, err := ParseSize(v); err == nil {
			return n
		}
		t.odd(path, v)
	default:
		t.odd(path, v)
	}
	return otherwise
}

func (t tomlTree) list(path string) []string {
	v := t.get(path)
	if v == nil {
		return nil
	}
	items, ok := v.([]any)
	out := make([]string, 0, len(items))
	for _, it := range items {
		if s, isString := it.(string); isString {
			out = append(out, s)
		}
	}
	if !ok || len(out) != len(items) {
		t.odd(path, v)
		return nil
	}
	return out
}

func (t tomlTree) db(name string, cfs ...string) DBConfig {
	d := DBConfig{WALDir: t.str(name + ".wal-dir"), CFs: map[string]CFConfig{}}
	for _, cf := range cfs {
		p := name + "." + cf + "cf."
		c := CFConfig{
			BlockSize:                  t.size(p+"block-size", 0),
			PropSizeIndexDistance:      t.size(p+"prop-size-index-distance", DefaultPropSizeIndexDistance),
			PropKeysIndexDistance:      t.size(p+"prop-keys-index-distance", DefaultPropKeysIndexDistance),
			CompressionPerLevel:        t.list(p + "compression-per-level"),
			BottommostLevelCompression: t.str(p + "bottommost-level-compression"),
			BloomFilterBitsPerKey:      int(t.num(p+"bloom-filter-bits-per-key", 0)),
			RibbonFilterAboveLevel:     int(t.num(p+"ribbon-filter-above-level", -1)),
			FormatVersion:              int(t.num(p+"format-version", 2)),
			Checksum:                   t.str(p + "checksum"),
			MaxBytesForLevelBase:       t.size(p+"max-bytes-for-level-base", 0),
			MaxBytesForLevelMultiplier: int(t.num(p+"max-bytes-for-level-multiplier", 0)),
			NumLevels:                  int(t.num(p+"num-levels", 7)),
			MinBlobSize:                t.size(p+"titan.min-blob-size", 0),
			BlobRunMode:                t.str(p + "titan.blob-run-mode"),
		}
		c.UseBloomFilter, c.HasFilter = t.flag(p + "use-bloom-filter")
		c.OptimizeFiltersForHits, c.HasHits = t.flag(p + "optimize-filters-for-hits")
		c.DynamicLevelBytes, _ = t.flag(p + "dynamic-level-bytes")
		c.BlockBasedBloomFilter, _ = t.flag(p + "block-based-bloom-filter")
		c.WholeKeyFiltering, _ = t.flag(p + "whole-key-filtering")
		c.TitanLevelMerge, _ = t.flag(p + "titan.level-merge")
		d.CFs[cf] = c
	}
	return d
}

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?) *([A-Za-z]*)$`)

// ParseSize reads TiKV's ReadableSize in bytes: "4MiB", "0.5 GB", "23"; KB and KiB both mean 1024 (tikv/tikv master
// components/tikv_util/src/config.rs).
func ParseSize(s string) (uint64, error) {
	m := sizeText.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	unit := uint64(1)
	if u := m[2]; u != "" && u != "B" {
		i := slices.Index([]string{"K", "M", "G", "T", "P"}, u[:1])
		if i < 0 || u[1:] != "" && u[1:] != "B" && u[1:] != "iB" {
			return 0, fmt.Errorf("%q has an unknown unit", s)
		}
		unit <<= 10 * (i + 1)
	}
	// Whole numbers are exact: "9223372036854775807B" is a default that a float would round.
	if n, err := strconv.ParseUint(m[1], 10, 64); err == nil && n <= math.MaxUint64/unit {
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || f*float64(unit) >= 1<<64 {
		return 0, fmt.Errorf("%q is out of range", s)
	}
	return uint64(f * float64(unit)), nil
}
