package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Danger says what happens when a setting that last_tikv.toml held is lost.
type Danger string

// Dangers, the worst first.
const (
	// DangerData: TiKV starts and does not find data that is there, or reads it wrongly.
	DangerData Danger = "data"
	// DangerStart: TiKV notices and refuses to start.
	DangerStart Danger = "start"
	// DangerChange: TiKV starts and behaves differently; the data is safe.
	DangerChange Danger = "change"
	// DangerTuning: a value that differs from TiKV's default, and no more.
	DangerTuning Danger = "tuning"
)

var dangerOrder = []Danger{DangerData, DangerStart, DangerChange, DangerTuning}

// SettingSource says what last_tikv.toml has to do with a setting.
type SettingSource string

const (
	// SettingInherited: where the configuration file is silent, TiKV takes the value from last_tikv.toml (Titan, from 7.6 on).
	SettingInherited SettingSource = "inherited"
	// SettingCompared: TiKV compares last_tikv.toml with its configuration at each start and refuses when they differ. Without the
	// file nobody compares.
	SettingCompared SettingSource = "compared"
	// SettingRecorded: last_tikv.toml only tells what was in force.
	SettingRecorded SettingSource = "recorded"
)

// Setting is one value of last_tikv.toml that has to be in the configuration file, or that changes, once the file is gone.
type Setting struct {
	Name   string        `json:"name"`
	Value  string        `json:"value"`
	Source SettingSource `json:"source"`
	Danger Danger        `json:"danger"`
	// Without is what holds at the next start when the configuration file does not name the setting.
	Without string `json:"without"`
	Why     string `json:"why,omitempty"`
	// Evidence is what the directory itself proves.
	Evidence string `json:"evidence,omitempty"`
	// InConfig is the value in the configuration file that was given, when that has another one.
	InConfig string `json:"in_config,omitempty"`
	// Section and Line are what to write into the configuration file.
	Section string `json:"section,omitempty"`
	Line    string `json:"line,omitempty"`
}

// RawFormat is the form of the values in the default column family that an OPTIONS file proves, by its property collectors.
type RawFormat string

// Forms of raw values.
const (
	RawFormatPlain RawFormat = "V1"
	RawFormatTTL   RawFormat = "V1 with TTL"
	RawFormatV2    RawFormat = "V2"
)

// SettingsInput is what is known about a store whose last_tikv.toml is to go.
type SettingsInput struct {
	Last map[string]string // flattened, as engine.Settings gives it
	// Config is the file with which TiKV is going to be started, flattened; nil when it was not given.
	Config map[string]string
	Dir    string // the data directory, where it is now
	// Line is the RocksDB line that wrote the store: "6.4" (TiKV before 6.3), "6.29" (6.3 to 8.3), "8.10" (8.4 and later); "" when unknown.
	Line      string
	RaftRocks bool // the raft log on disk is a RocksDB; else raft-engine
	Blobs     bool // Titan's blob files hold data
	// Raw is what OPTIONS proves; "" when it is not readable.
	Raw RawFormat
	// Bytes reads a size such as "32KiB"; sizes that are written differently are the same.
	Bytes func(string) (uint64, error)
}

// Settings lists what is lost with last_tikv.toml, the most dangerous first. Of the keys of [security] only those that say where a key
// is are looked at, never one that may hold a secret.
//
// Sources: tikv/tikv master src/config/mod.rs (check_critical_cfg_with, optional_default_cfg_adjust_with, infer_raft_db_path,
// infer_raft_engine_path, defaults).
func Settings(in SettingsInput) []Setting {
	c := settingsCase{in: in}
	c.paths()
	c.raft()
	c.format()
	c.titan()
	c.encryption()
	c.tuning()
	slices.SortStableFunc(c.out, func(a, b Setting) int {
		return slices.Index(dangerOrder, a.Danger) - slices.Index(dangerOrder, b.Danger)
	})
	return c.out
}

type settingsCase struct {
	in  SettingsInput
	out []Setting
}

// last is a value of last_tikv.toml; "" when it is absent or empty.
func (c *settingsCase) last(name string) string { return c.in.Last[name] }

// recorded is storage.data-dir as last_tikv.toml has it.
func (c *settingsCase) recorded() string { return path.Clean(c.last("storage.data-dir")) }

// below tells whether a recorded path is one of these places below the recorded data directory: their defaults.
func (c *settingsCase) below(p string, names ...string) bool {
	for _, n := range names {
		if path.Clean(p) == path.Join(c.recorded(), n) {
			return true
		}
	}
	return false
}

// need adds a setting that the configuration file must have, unless it has it.
func (c *settingsCase) need(name, value string, source SettingSource, danger Danger, without, why, evidence string) {
	s := Setting{Name: name, Value: c.last(name), Source: source, Danger: danger, Without: without, Why: why, Evidence: evidence}
	i := strings.LastIndexByte(name, '.')
	s.Section, s.Line = "["+name[:i]+"]", name[i+1:]+" = "+tomlValue(value)
	if got, there := c.in.Config[name]; there {
		if c.same(got, value) {
			return
		}
		s.InConfig = got
	}
	c.out = append(c.out, s)
}

// tomlValue is the form of a flattened value in a configuration file.
func tomlValue(v string) string {
	if v == "true" || v == "false" || strings.HasPrefix(v, "[") || v != "" && strings.Trim(v, "0123456789") == "" {
		return v
	}
	return fmt.Sprintf("%q", v)
}

// same compares two flattened values.
func (c *settingsCase) same(a, b string) bool {
	if a == b {
		return true
	}
	if strings.HasPrefix(a, "/") && strings.HasPrefix(b, "/") {
		return path.Clean(a) == path.Clean(b)
	}
	if c.in.Bytes == nil {
		return false
	}
	x, errX := c.in.Bytes(a)
	y, errY := c.in.Bytes(b)
	return errX == nil && errY == nil && x == y
}

func (c *settingsCase) paths() {
	evidence := ""
	if dir := c.last("storage.data-dir"); dir != "" {
		if path.Clean(dir) != path.Clean(c.in.Dir) {
			evidence = "the directory is now " + c.in.Dir
		}
		c.need("storage.data-dir", c.in.Dir, SettingCompared, DangerData, "./",
			"TiKV makes a new, empty store in its working directory", evidence)
	}
	if dir := c.last("rocksdb.wal-dir"); dir != "" && !c.below(dir, "db") {
		c.need("rocksdb.wal-dir", dir, SettingCompared, DangerData, "the directory of the database",
			"the write-ahead logs there are not replayed: the newest writes are missing, and nothing says so", "")
	}
	if dir := c.last("rocksdb.titan.dirname"); dir != "" && !c.below(dir, "db/titandb") {
		danger, evidence := DangerChange, "no blob file holds data"
		if c.in.Blobs {
			danger, evidence = DangerData, "blob files hold data"
		}
		c.need("rocksdb.titan.dirname", dir, SettingRecorded, danger, "titandb in the directory of the database",
			"long values lie in blob files there and are not found", evidence)
	}
}

func (c *settingsCase) raft() {
	const refuses = "TiKV says \"Cannot find raft data set\" and does not start"
	kind := "the raft log on disk is in raft-engine"
	if c.in.RaftRocks {
		kind = "the raft log on disk is a raft RocksDB"
		if dir := c.last("raftstore.raftdb-path"); dir != "" && !c.below(dir, "raft") {
			c.need("raftstore.raftdb-path", dir, SettingCompared, DangerStart, "raft in the data directory", refuses, kind)
		}
		if dir := c.last("raftdb.wal-dir"); dir != "" && !c.same(dir, c.last("raftstore.raftdb-path")) && !c.below(dir, "raft") {
			c.need("raftdb.wal-dir", dir, SettingCompared, DangerData, "the directory of the raft RocksDB",
				"the newest raft log entries are missing, and nothing says so", kind)
		}
		// The default became true with 6.1; the line says no more than "before 6.3".
		c.need("raft-engine.enable", "false", SettingRecorded, DangerChange, "true, from 6.1 on",
			"TiKV moves the whole raft log into raft-engine at its next start, and no undo takes that back", kind)
		return
	}
	raftdb := c.last("raftstore.raftdb-path")
	nested := raftdb != "" && path.Clean(c.last("raft-engine.dir")) == path.Join(path.Clean(raftdb), "raft-engine")
	switch dir := c.last("raft-engine.dir"); {
	case dir == "" || c.below(dir, "raft-engine"):
	case nested:
		// From 8.1 on the default follows raftdb-path. Writing both is right for every release.
		if !c.below(raftdb, "raft") {
			c.need("raftstore.raftdb-path", raftdb, SettingCompared, DangerStart, "raft in the data directory", refuses, kind)
		}
		c.need("raft-engine.dir", dir, SettingCompared, DangerStart, "raft-engine in the data directory", refuses, kind)
	default:
		c.need("raft-engine.dir", dir, SettingCompared, DangerStart, "raft-engine in the data directory", refuses, kind)
	}
	if dir := c.last("raft-engine.spill-dir"); dir != "" {
		c.need("raft-engine.spill-dir", dir, SettingRecorded, DangerData, "none", "log files there are not found", kind)
	}
	if c.in.Line == "6.4" {
		c.need("raft-engine.enable", "true", SettingRecorded, DangerChange, "false before 6.1",
			"TiKV moves the whole raft log into a raft RocksDB at its next start, and no undo takes that back", kind)
	}
}

// format is what decides how bytes are read.
func (c *settingsCase) format() {
	evidence := ""
	if c.in.Raw != "" {
		evidence = "the OPTIONS file says: API " + string(c.in.Raw)
	}
	if v := c.last("storage.api-version"); v != "" && v != "1" {
		c.need("storage.api-version", v, SettingCompared, DangerStart, "1",
			"TiKV compares it with the store's identity and does not start", evidence)
	}
	switch ttl := c.last("storage.enable-ttl"); {
	case ttl == "true" && c.last("storage.api-version") == "2":
		c.need("storage.enable-ttl", ttl, SettingCompared, DangerStart, "false", "API V2 needs it, TiKV does not start", evidence)
	case ttl == "true":
		c.need("storage.enable-ttl", ttl, SettingCompared, DangerData, "false",
			"only last_tikv.toml tells the two forms of a value apart: expiry times are returned as part of the values, and expired ones come back", evidence)
	case c.in.Config["storage.enable-ttl"] == "true" && c.in.Config["storage.api-version"] != "2":
		c.need("storage.enable-ttl", "false", SettingCompared, DangerData, "false",
			"only last_tikv.toml tells the two forms of a value apart: the last 8 bytes of each value would be taken for its expiry time", evidence)
	}
}

// titan has the settings that TiKV takes from last_tikv.toml itself, from 7.6 on.
func (c *settingsCase) titan() {
	if c.last("rocksdb.titan.enabled") != "true" {
		return
	}
	source := SettingInherited
	if c.in.Line == "6.4" {
		source = SettingRecorded
	}
	switch {
	case !c.in.Blobs:
		c.need("rocksdb.titan.enabled", "true", source, DangerChange, "false",
			"a store without blob files starts with Titan off: long values are written into the tables", "no blob file holds data")
	case source == SettingRecorded:
		c.need("rocksdb.titan.enabled", "true", source, DangerStart, "false", "TiKV does not start without Titan while there are blob files", "blob files hold data")
	case c.in.Line != "8.10":
		c.need("rocksdb.titan.enabled", "true", source, DangerStart, "true from 7.6 on, false before",
			"before 7.6 TiKV does not start without Titan while there are blob files", "blob files hold data")
	}
	size := map[string]string{"6.4": "1KiB", "8.10": "32KiB"}[c.in.Line]
	shown := size
	if size == "" {
		shown = "32KiB from 7.6 on, 1KiB before"
	}
	const name = "rocksdb.defaultcf.titan.min-blob-size"
	if v := c.last(name); v != "" && !c.same(v, size) {
		c.need(name, v, source, DangerChange, shown, "values between the two sizes go to another place when they are written the next time; all are read as before", "")
	}
}

func (c *settingsCase) encryption() {
	const p = "security.encryption."
	if m := c.last(p + "data-encryption-method"); m != "" && m != "plaintext" {
		c.need(p+"data-encryption-method", m, SettingRecorded, DangerStart, "plaintext", "new files are not encrypted, or TiKV does not start", "")
	}
	for _, n := range []string{"master-key.type", "master-key.path", "master-key.vendor", "master-key.key-id", "master-key.region", "master-key.endpoint",
		"previous-master-key.type", "previous-master-key.path", "previous-master-key.key-id"} {
		if v := c.last(p + n); v != "" && v != "plaintext" {
			c.need(p+n, v, SettingRecorded, DangerStart, "none", "without the master key no file can be read", "")
		}
	}
}
