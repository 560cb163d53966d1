package manifest

import (
	"fmt"
	"strconv"
	"strings"
)

// FileKind is what the name of a file in a RocksDB directory says.
type FileKind uint8

const (
	// FileCurrent is CURRENT: the name of the MANIFEST and a newline.
	FileCurrent FileKind = iota + 1
	// FileManifest is MANIFEST-N.
	FileManifest
	// FileOptions is OPTIONS-N.
	FileOptions
	// FileLog is N.log, a WAL.
	FileLog
	// FileTable is N.sst, or its old form N.ldb.
	FileTable
	// FileBlob is N.blob. In db/ it would be native BlobDB's, which TiKV does not use; Titan's are in titandb/.
	FileBlob
	// FileTemp is N.dbtmp or OPTIONS-N.dbtmp; the engine purges it.
	FileTemp
	// FileIdentity is IDENTITY.
	FileIdentity
	// FileLock is LOCK.
	FileLock
	// FileInfoLog is LOG or LOG.old.*.
	FileInfoLog
)

// ParseFileName takes a base name apart. ok is false for names that the engine ignores. The number is 0 for kinds without
// one. Any count of digits is accepted: %06d is a minimum width. All numbered kinds draw from one counter.
// Source: tikv/rocksdb 8.10.tikv file/filename.cc (ParseFileName).
func ParseFileName(name string) (kind FileKind, number uint64, ok bool) {
	switch name {
	case "CURRENT":
		return FileCurrent, 0, true
	case "IDENTITY":
		return FileIdentity, 0, true
	case "LOCK":
		return FileLock, 0, true
	}
	if name == "LOG" || strings.HasPrefix(name, "LOG.old.") {
		return FileInfoLog, 0, true
	}
	if rest, is := strings.CutPrefix(name, "MANIFEST-"); is {
		number, ok = parseNumber(rest)
		return FileManifest, number, ok
	}
	if rest, is := strings.CutPrefix(name, "OPTIONS-"); is {
		kind = FileOptions
		if rest, is = strings.CutSuffix(rest, ".dbtmp"); is {
			kind = FileTemp
		}
		number, ok = parseNumber(rest)
		return kind, number, ok
	}
	digits, suffix, _ := strings.Cut(name, ".")
	number, ok = parseNumber(digits)
	if !ok {
		return 0, 0, false
	}
	switch suffix {
	case "log":
		return FileLog, number, true
	case "sst", "ldb":
		return FileTable, number, true
	case "blob":
		return FileBlob, number, true
	case "dbtmp":
		return FileTemp, number, true
	}
	return 0, 0, false
}

func parseNumber(s string) (uint64, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// ManifestName is the base name of MANIFEST number n.
func ManifestName(n uint64) string { return fmt.Sprintf("MANIFEST-%06d", n) }

// TableName is the base name of SST number n.
func TableName(n uint64) string {
	var b [24]byte
	digits := strconv.AppendUint(append(b[:0], "00000"[:max(0, 6-digitsOf(n))]...), n, 10)
	return string(append(digits, ".sst"...))
}

func digitsOf(n uint64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}
