package oracle

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Record is one entry of an SST as sst_dump prints it: hidden entries and tombstones are there too.
type Record struct {
	Key   ikey.Key
	Value []byte
}

// Properties are the table properties of an SST as sst_dump prints them: RocksDB's own by their printed name ("# entries",
// "column family name"), and the user-collected ones ("tikv.max_ts"), decoded.
type Properties struct {
	Table map[string]string
	User  map[string][]byte
}

func needTool(tb testing.TB, name string) {
	tb.Helper()
	notShort(tb)
	if _, err := exec.LookPath(name); err != nil {
		missing(tb, "%v; install Debian's rocksdb-tools", err)
	}
}

// ldbCopy makes a copy of the database for ldb, with an OPTIONS file that says what ldb has no flag for: a MANIFEST that
// lists WALs aborts a read-only open of RocksDB 7 and 8 unless the list is to be checked.
func ldbCopy(tb testing.TB, dir string) string {
	tb.Helper()
	needTool(tb, "ldb")
	db := filepath.Join(tb.TempDir(), "db")
	copyDB(tb, dir, db)
	out, err := run("ldb", "--db="+db, "list_column_families")
	if err != nil {
		tb.Fatal(err)
	}
	// Column families in DIR: \n{default, lock}
	_, list, ok := strings.Cut(string(out), "{")
	if !ok {
		tb.Fatalf("ldb list_column_families says %q", out)
	}
	list, _, _ = strings.Cut(list, "}")
	var o strings.Builder
	o.WriteString("[Version]\n  rocksdb_version=7.8.3\n  options_file_version=1.1\n[DBOptions]\n  track_and_verify_wals_in_manifest=true\n")
	for cf := range strings.SplitSeq(list, ", ") {
		fmt.Fprintf(&o, "[CFOptions %q]\n[TableOptions/BlockBasedTable %q]\n", cf, cf)
	}
	if err := os.WriteFile(filepath.Join(db, "OPTIONS-000001"), []byte(o.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	return db
}

// LDBCheckConsistency runs "ldb checkconsistency" on a copy of the database at dir: RocksDB opens it and compares the
// MANIFEST with the files and their sizes.
func LDBCheckConsistency(tb testing.TB, dir string) error {
	tb.Helper()
	out, err := run("ldb", "--db="+ldbCopy(tb, dir), "--try_load_options", "checkconsistency")
	if err == nil && strings.TrimSpace(string(out)) != "OK" {
		err = fmt.Errorf("ldb checkconsistency: %s", out)
	}
	return err
}

// LDBScan reads the rows of one column family of the database at dir by "ldb scan".
func LDBScan(tb testing.TB, dir, cf string) ([]KV, error) {
	tb.Helper()
	out, err := run("ldb", "--db="+ldbCopy(tb, dir), "--try_load_options", "--hex", "--column_family="+cf, "scan")
	if err != nil {
		return nil, err
	}
	var rows []KV
	for line := range strings.Lines(string(out)) {
		// 0x7A74 : 0x5026
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " : ")
		if !ok {
			return nil, fmt.Errorf("ldb scan: unexpected line %q", line)
		}
		kv, err := parseKV(strings.TrimPrefix(k, "0x"), strings.TrimPrefix(v, "0x"))
		if err != nil {
			return nil, fmt.Errorf("ldb scan: line %q: %w", line, err)
		}
		rows = append(rows, kv)
	}
	return rows, nil
}

// LDBManifestDump returns what "ldb manifest_dump --verbose" prints of one MANIFEST file.
func LDBManifestDump(tb testing.TB, file string) (string, error) {
	tb.Helper()
	needTool(tb, "ldb")
	out, err := run("ldb", "manifest_dump", "--verbose", "--path="+file)
	return string(out), err
}

// SSTVerify lets "sst_dump --command=verify" check every block checksum of an SST file.
func SSTVerify(tb testing.TB, file string) error {
	tb.Helper()
	out, err := sstDump(tb, file, "--command=verify")
	if err == nil && !strings.Contains(out, "The file is ok") {
		err = fmt.Errorf("sst_dump verify: %s", out)
	}
	return err
}

var sstRecord = regexp.MustCompile(`^'([0-9A-F]*)' seq:(\d+), type:(\d+) => ?([0-9A-F]*)$`)

// SSTScan returns every point record of an SST file in its order, by "sst_dump --command=scan".
func SSTScan(tb testing.TB, file string) ([]Record, error) {
	tb.Helper()
	out, err := sstDump(tb, file, "--command=scan", "--output_hex")
	if err != nil {
		return nil, err
	}
	var all []Record
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "'") {
			if all != nil {
				return nil, fmt.Errorf("sst_dump scan: unexpected line %q", line)
			}
			continue // what it says before the first record
		}
		r, err := parseRecord(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func parseRecord(line string) (r Record, err error) {
	m := sstRecord.FindStringSubmatch(line)
	if m == nil {
		return r, fmt.Errorf("sst_dump scan: unexpected line %q", line)
	}
	kv, err := parseKV(m[1], m[4])
	if err != nil {
		return r, err
	}
	seq, err := strconv.ParseUint(m[2], 10, 64)
	if err != nil {
		return r, err
	}
	kind, err := strconv.ParseUint(m[3], 10, 8)
	if err != nil {
		return r, err
	}
	return Record{Key: ikey.Key{User: kv.Key, Seq: seq, Kind: ikey.Kind(kind)}, Value: kv.Value}, nil
}

// SSTProperties returns the table properties of an SST file by "sst_dump --show_properties".
func SSTProperties(tb testing.TB, file string) (Properties, error) {
	tb.Helper()
	p := Properties{Table: map[string]string{}, User: map[string][]byte{}}
	out, err := sstDump(tb, file, "--show_properties", "--command=none")
	if err != nil {
		return p, err
	}
	table, user, ok := strings.Cut(out, "Raw user collected properties\n")
	if !ok {
		return p, fmt.Errorf("sst_dump: no properties: %s", out)
	}
	for line := range strings.Lines(table) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(line, "  ") {
			p.Table[k] = v
		}
	}
	for line := range strings.Lines(user) {
		k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), ": 0x")
		if !ok {
			continue
		}
		if p.User[k], err = hex.DecodeString(v); err != nil {
			return p, fmt.Errorf("sst_dump: property %s: %w", k, err)
		}
	}
	return p, nil
}

// sstDump runs sst_dump with block checksums checked: without --verify_checksum even its verify command overlooks a flipped
// bit in a data block (7.8.3). It may exit 0 on damage, but then complains on standard error.
func sstDump(tb testing.TB, file string, args ...string) (string, error) {
	tb.Helper()
	needTool(tb, "sst_dump")
	stdout, stderr, err := runBoth("sst_dump", append([]string{"--file=" + file, "--verify_checksum"}, args...)...)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(stderr)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "options.env is") {
			return "", fmt.Errorf("sst_dump: %s", line)
		}
	}
	return string(stdout), nil
}
