// Package options reads RocksDB's OPTIONS-N files: what the engine was told when it last opened the database. From them
// later code chooses how new SSTs are written, so that they look like their siblings.
package options

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Compression is RocksDB's CompressionType, as it stands in a block trailer (tikv/rocksdb 8.10.tikv
// include/rocksdb/compression_type.h).
type Compression uint8

// Compression types.
const (
	NoCompression Compression = 0x00
	Snappy        Compression = 0x01
	Zlib          Compression = 0x02
	BZip2         Compression = 0x03
	LZ4           Compression = 0x04
	LZ4HC         Compression = 0x05
	Xpress        Compression = 0x06
	ZSTD          Compression = 0x07
	ZSTDNotFinal  Compression = 0x40
	// Disabled in BottommostCompression means: as compression_per_level says.
	Disabled Compression = 0xff
)

var compressionNames = map[string]Compression{
	"kNoCompression": NoCompression, "kSnappyCompression": Snappy, "kZlibCompression": Zlib,
	"kBZip2Compression": BZip2, "kLZ4Compression": LZ4, "kLZ4HCCompression": LZ4HC, "kXpressCompression": Xpress,
	"kZSTD": ZSTD, "kZSTDNotFinalCompression": ZSTDNotFinal, "kDisableCompressionOption": Disabled,
}

// String gives RocksDB's name of the type.
func (c Compression) String() string {
	for n, v := range compressionNames {
		if v == c {
			return n
		}
	}
	return fmt.Sprintf("compression 0x%02x", uint8(c))
}

// Options is one OPTIONS file.
type Options struct {
	Path           string
	RocksDBVersion string // "8.10.2"
	// WALDir is DBOptions.wal_dir: the directory of the time of writing, often of another host. Empty: the database's own.
	WALDir string
	// DB holds all of [DBOptions], unescaped.
	DB map[string]string
	// CFs in the order of the file.
	CFs []CF
}

// CF is one column family: [CFOptions "name"] and its [TableOptions/... "name"].
type CF struct {
	Name                  string
	CompressionPerLevel   []Compression // one per level; empty: Compression for all
	Compression           Compression
	BottommostCompression Compression
	Comparator            string
	MergeOperator         string // "" or "nullptr": none
	PrefixExtractor       string // "nullptr": none
	NumLevels             int
	DynamicLevelBytes     bool
	Collectors            []string // table property collectors, e.g. "tikv.mvcc-properties-collector"
	TableFactory          string   // "BlockBasedTable", "TitanTable"
	Table                 Table
	// Values holds all of [CFOptions], unescaped.
	Values map[string]string
}

// Table is the block-based table's part. Titan's table factory writes an empty section, so Known is false there and the
// settings have to come from last_tikv.toml.
type Table struct {
	Known             bool
	BlockSize         int64  // bytes
	FilterPolicy      string // "nullptr": no filter; else e.g. "bloomfilter:10:false"
	WholeKeyFiltering bool
	FormatVersion     int
	Checksum          string // "kCRC32c"
	IndexType         string // "kBinarySearch"
	Values            map[string]string
}

// Lookup finds a column family by name; nil when the file does not list it.
func (o *Options) Lookup(cf string) *CF {
	for i := range o.CFs {
		if o.CFs[i].Name == cf {
			return &o.CFs[i]
		}
	}
	return nil
}

// LevelCompression is what a non-bottommost file of level is compressed with.
func (c *CF) LevelCompression(level int) Compression {
	if len(c.CompressionPerLevel) == 0 || level < 0 {
		return c.Compression
	}
	return c.CompressionPerLevel[min(level, len(c.CompressionPerLevel)-1)]
}

// FileNumber gives N of "OPTIONS-N"; false for any other name, "OPTIONS-N.dbtmp" among them.
func FileNumber(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "OPTIONS-")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// Newest is the name of the OPTIONS file with the highest number in dir; "" when there is none.
func Newest(fs base.FS, dir string) (string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", base.IO("list", dir, err)
	}
	var best string
	var bestN uint64
	for _, n := range names {
		if num, ok := FileNumber(n); ok && (best == "" || num > bestN) {
			best, bestN = n, num
		}
	}
	return best, nil
}

// Load reads and parses an OPTIONS file.
func Load(fs base.FS, name string) (*Options, error) {
	b, err := base.ReadFile(fs, name)
	if err != nil {
		return nil, err
	}
	return Parse(name, b)
}

// Parse decodes an OPTIONS file. Options that it does not know are kept in the maps; a line that is neither a section,
// nor "name=value", nor a comment is corruption. Source: tikv/rocksdb 8.10.tikv options/options_parser.cc,
// options/options_helper.cc.
//
//	# comment until the end of the line; a # of a value is written \#
//	[Version]                          rocksdb_version=, options_file_version=
//	[DBOptions]                        name=value ...
//	[CFOptions "<cf>"]                 name=value ...; lists are joined by ':', nested values stand in {...}
//	[TableOptions/<factory> "<cf>"]    name=value ...; empty for a factory that prints nothing (Titan's)
func Parse(name string, b []byte) (*Options, error) {
	o := &Options{Path: name, DB: map[string]string{}}
	var into map[string]string
	version := map[string]string{}
	off := int64(0)
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line = b[:i+1]
		}
		b = b[len(line):]
		text := strings.TrimSpace(uncomment(string(line)))
		switch {
		case text == "":
		case text[0] == '[':
			var err error
			if into, err = o.section(text, version); err != nil {
				return nil, base.Corruptf(name, off, "%v", err)
			}
		default:
			key, value, ok := strings.Cut(text, "=")
			if !ok || into == nil {
				return nil, base.Corruptf(name, off, "%q is not an option of a section", clip(text))
			}
			into[strings.TrimSpace(key)] = unescape(strings.TrimSpace(value))
		}
		off += int64(len(line))
	}
	if len(version) == 0 || len(o.CFs) == 0 {
		return nil, base.Corruptf(name, off, "no [Version] section or no column family: not a complete OPTIONS file")
	}
	o.RocksDBVersion, o.WALDir = version["rocksdb_version"], o.DB["wal_dir"]
	for i := range o.CFs {
		o.CFs[i].fill()
	}
	return o, nil
}

// section opens the section that the header line names and returns the map that its options go to.
func (o *Options) section(text string, version map[string]string) (map[string]string, error) {
	inner, ok := strings.CutSuffix(text[1:], "]")
	if !ok {
		return nil, fmt.Errorf("section header %q is not closed", clip(text))
	}
	title, arg, _ := strings.Cut(inner, " ")
	cf := unescape(strings.Trim(strings.TrimSpace(arg), `"`))
	switch {
	case title == "Version":
		return version, nil
	case title == "DBOptions":
		return o.DB, nil
	case title == "CFOptions":
		if o.Lookup(cf) != nil {
			return nil, fmt.Errorf("column family %q is listed twice", clip(cf))
		}
		o.CFs = append(o.CFs, CF{Name: cf, Values: map[string]string{}})
		return o.CFs[len(o.CFs)-1].Values, nil
	case strings.HasPrefix(title, "TableOptions/"):
		c := o.Lookup(cf)
		if c == nil {
			return nil, fmt.Errorf("table options of unknown column family %q", clip(cf))
		}
		c.TableFactory = strings.TrimPrefix(title, "TableOptions/")
		c.Table.Values = map[string]string{}
		return c.Table.Values, nil
	}
	return nil, fmt.Errorf("section %q is not known", clip(title))
}

func (c *CF) fill() {
	v := c.Values
	for _, n := range list(v["compression_per_level"]) {
		t, ok := compressionNames[n]
		if !ok {
			c.CompressionPerLevel = nil
			break
		}
		c.CompressionPerLevel = append(c.CompressionPerLevel, t)
	}
	c.Compression = compressionOr(v["compression"], Snappy)
	c.BottommostCompression = compressionOr(v["bottommost_compression"], Disabled)
	c.Comparator, c.MergeOperator, c.PrefixExtractor = v["comparator"], v["merge_operator"], v["prefix_extractor"]
	c.NumLevels, _ = strconv.Atoi(v["num_levels"])
	c.DynamicLevelBytes = v["level_compaction_dynamic_level_bytes"] == "true"
	c.Collectors = list(v["table_properties_collectors"])
	if c.TableFactory == "" {
		c.TableFactory = v["table_factory"]
	}
	t := &c.Table
	if t.Known = t.Values["block_size"] != ""; !t.Known {
		return
	}
	t.BlockSize, _ = strconv.ParseInt(t.Values["block_size"], 10, 64)
	t.FilterPolicy, t.Checksum, t.IndexType = t.Values["filter_policy"], t.Values["checksum"], t.Values["index_type"]
	t.WholeKeyFiltering = t.Values["whole_key_filtering"] == "true"
	t.FormatVersion, _ = strconv.Atoi(t.Values["format_version"])
}

func compressionOr(name string, otherwise Compression) Compression {
	if c, ok := compressionNames[name]; ok {
		return c
	}
	return otherwise
}

func list(s string) []string {
	if s == "" || s == "nullptr" {
		return nil
	}
	return strings.Split(s, ":")
}

// uncomment cuts a comment off; \# is not one.
func uncomment(s string) string {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '#':
			return s[:i]
		}
	}
	return s
}

func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// clip keeps a damaged file from flooding an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
