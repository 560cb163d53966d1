// Package oracle lets real RocksDB judge directories and files: the three lines of RocksDB that TiKV forked (Maven Central's
// org.rocksdb:rocksdbjni, driven by Oracle.java) and Debian's ldb and sst_dump. "make oracle-deps" fetches the jars.
//
// A judge that is not installed skips the test and says so; with TIKV_REPAIR_ORACLE=1 in the environment it fails the test
// instead. With -short no judge is asked. Judges work on copies: what a test hands over is never written to.
//
// Stock RocksDB cannot read a Titan value (record type 0x11): name such keys in Options.Blobs.
package oracle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Version is a release of stock RocksDB.
type Version string

// The stock releases from which TiKV's forks come.
const (
	V6_4  Version = "6.4.6"  // TiKV up to 5.3 (fork 6.4.tikv)
	V6_29 Version = "6.29.5" // TiKV up to 8.3 (fork 6.29.tikv)
	V8_10 Version = "8.10.2" // TiKV from 8.4 (fork 8.10.tikv)
)

// Versions lists the three lines, oldest first.
func Versions() []Version { return []Version{V6_4, V6_29, V8_10} }

// timeout ends a judge that hangs on the bytes it was given.
const timeout = 2 * time.Minute

// KV is one row: a database key (with TiKV's data prefix) and its value.
type KV struct{ Key, Value []byte }

// Options says how a database is opened and read. The zero value reads everything from a read-only open.
type Options struct {
	// ReadWrite opens for writing, as TiKV does at its start: the WAL is replayed and flushed, a new MANIFEST is written.
	ReadWrite bool
	// Opens is how often the database is opened and read; every time has to give the same. 0 means 1.
	Opens int
	// Compact names column families to compact whole before they are read; needs ReadWrite.
	Compact []string
	// Blobs has per column family the keys whose newest record is a Titan blob index. They are stepped over; it is an error
	// if one of them can be read after all.
	Blobs map[string][][]byte
	// Prefixes gives column families a prefix extractor: "fixed:N" or "capped:N".
	Prefixes map[string]string
	// Asks are put after everything else; those of a group have counters of their own.
	Asks []Ask
}

// Ask is one question: a Get of a key, or a Seek to it that stays within its prefix and finds any row that begins with it.
type Ask struct {
	Group, CF string
	Seek      bool
	Key       []byte
}

// Answers of a group of questions.
type Answers struct {
	Found, Missing uint64
	Tickers        map[string]uint64
}

// Result is what a version of RocksDB read.
type Result struct {
	Rows    map[string][]KV    // by column family, in key order; a family without rows has an empty entry
	SHA256  map[string]string  // by column family: over "KEY TAB VALUE NEWLINE" in upper-case hex
	Tickers map[string]uint64  // statistics of the first open, as BLOOM_FILTER_USEFUL
	Asked   map[string]Answers // by group
	// Dir is the copy that was opened: after a ReadWrite open it holds what RocksDB wrote.
	Dir string
}

func notShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("asks real RocksDB: not in a short run")
	}
}

// missing ends a test whose judge is not there.
func missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("TIKV_REPAIR_ORACLE") == "1" {
		tb.Fatalf("TIKV_REPAIR_ORACLE=1 and no judge: %s", reason)
	}
	tb.Skipf("SKIPPED, NOT CHECKED AGAINST REAL ROCKSDB: %s", reason)
}

func jar(v Version) (string, error) {
	root, err := fixtures.ModuleRoot()
	return filepath.Join(root, ".cache", "oracle", "rocksdbjni-"+string(v)+".jar"), err
}

// classes compiles Oracle.java against the jar and returns the directory of the classes. They stay beside the jar under the
// hash of the source: starting from source takes three times as long.
func classes(v Version) (string, error) {
	root, err := fixtures.ModuleRoot()
	if err != nil {
		return "", err
	}
	jarFile, err := jar(v)
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "tests", "oracle", "rocksdb", "Oracle.java")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(jarFile), fmt.Sprintf("classes-%s-%016x", v, xxhash.Sum64(text)))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(jarFile), "javac-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := run("javac", "-cp", jarFile, "-d", tmp, source); err != nil {
		return "", err
	}
	// Test processes run side by side: whoever is first wins, the others find the same classes.
	if err := os.Rename(tmp, dir); err != nil {
		if _, err2 := os.Stat(dir); err2 != nil {
			return "", err
		}
	}
	return dir, nil
}

// Available skips the test (or fails it, see the package comment) unless Java and the jars of the versions, all of them when
// none is named, are here.
func Available(tb testing.TB, versions ...Version) {
	tb.Helper()
	notShort(tb)
	for _, tool := range []string{"java", "javac"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(tb, "%v", err)
		}
	}
	if len(versions) == 0 {
		versions = Versions()
	}
	for _, v := range versions {
		file, err := jar(v)
		if err == nil {
			_, err = os.Stat(file)
		}
		if err != nil {
			missing(tb, "%v; run: make oracle-deps", err)
		}
	}
}

// Dump reads all rows of the database at dir, read-only, and ends the test when RocksDB finds anything wrong.
func Dump(tb testing.TB, v Version, dir string) map[string][]KV {
	tb.Helper()
	r, err := Read(tb, v, dir, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return r.Rows
}

// Read opens a copy of the database at dir (a directory with CURRENT in it: TiKV's db/, raft/ or one tablet), and reads each
// column family by iterator in both directions and by Get of each key and of a key that is not there. The error is what
// RocksDB said, or what it answered differently on two ways.
func Read(tb testing.TB, v Version, dir string, o Options) (*Result, error) {
	tb.Helper()
	Available(tb, v)
	tmp := tb.TempDir()
	db := filepath.Join(tmp, "db")
	copyDB(tb, dir, db)
	return readCopy(tb, v, tmp, db, o)
}

// ReadFS is Read of a database in another file system, as in memory.
func ReadFS(tb testing.TB, v Version, fs vfs.FS, dir string, o Options) (*Result, error) {
	tb.Helper()
	Available(tb, v)
	tmp := tb.TempDir()
	whole, db := filepath.Join(tmp, "whole"), filepath.Join(tmp, "db")
	fixtures.CopyToDisk(tb, fs, dir, whole)
	copyDB(tb, whole, db)
	return readCopy(tb, v, tmp, db, o)
}

func readCopy(tb testing.TB, v Version, tmp, db string, o Options) (*Result, error) {
	tb.Helper()
	jarFile, err := jar(v)
	if err != nil {
		tb.Fatal(err)
	}
	classDir, err := classes(v)
	if err != nil {
		tb.Fatal(err)
	}
	out := filepath.Join(tmp, "rows.tsv")
	args := []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ErrorFile=" + filepath.Join(tmp, "hs_err.log"),
		"-Djava.io.tmpdir=" + tmp, "-cp", jarFile + string(filepath.ListSeparator) + classDir, "Oracle", db, "out=" + out}
	if o.ReadWrite {
		args = append(args, "mode=rw")
	}
	if o.Opens > 1 {
		args = append(args, "opens="+strconv.Itoa(o.Opens))
	}
	for _, cf := range o.Compact {
		args = append(args, "compact="+cf)
	}
	if len(o.Blobs) > 0 {
		var b bytes.Buffer
		for cf, keys := range o.Blobs {
			for _, k := range keys {
				fmt.Fprintf(&b, "%s\t%X\n", cf, k)
			}
		}
		file := filepath.Join(tmp, "blobs.tsv")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "blobs="+file)
	}
	for cf, prefix := range o.Prefixes {
		args = append(args, "prefix="+cf+":"+prefix)
	}
	if len(o.Asks) > 0 {
		var b bytes.Buffer
		for _, a := range o.Asks {
			fmt.Fprintf(&b, "%s\t%s\t%s\t%X\n", a.Group, a.CF, map[bool]string{false: "get", true: "seek"}[a.Seek], a.Key)
		}
		file := filepath.Join(tmp, "asks.tsv")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "ask="+file)
	}
	stdout, err := run("java", args...)
	if err != nil {
		return nil, fmt.Errorf("RocksDB %s: %w", v, err)
	}
	r := &Result{Rows: map[string][]KV{}, SHA256: map[string]string{}, Tickers: map[string]uint64{}, Asked: map[string]Answers{}, Dir: db}
	if err := r.parse(stdout, out); err != nil {
		tb.Fatalf("output of Oracle.java: %v", err)
	}
	return r, nil
}

// copyDB copies the files of a database but its OPTIONS files, which no stock RocksDB can parse, and its LOG files.
func copyDB(tb testing.TB, src, dest string) {
	tb.Helper()
	if err := os.Mkdir(dest, 0o755); err != nil {
		tb.Fatal(err)
	}
	names, err := os.ReadDir(src)
	if err != nil {
		tb.Fatal(err)
	}
	for _, n := range names {
		if !n.Type().IsRegular() || strings.HasPrefix(n.Name(), "OPTIONS-") || strings.HasPrefix(n.Name(), "LOG") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(src, n.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dest, n.Name()), b, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *Result) parse(stdout []byte, rowsFile string) error {
	count := map[string]int{}
	for line := range strings.Lines(string(stdout)) {
		w := strings.Fields(line)
		switch {
		case len(w) == 4 && w[0] == "cf":
			n, err := strconv.Atoi(w[2])
			if err != nil {
				return err
			}
			count[w[1]], r.SHA256[w[1]] = n, w[3]
			r.Rows[w[1]] = make([]KV, 0, n)
		case len(w) == 3 && w[0] == "ticker":
			n, err := strconv.ParseUint(w[2], 10, 64)
			if err != nil {
				return err
			}
			r.Tickers[w[1]] = n
		case len(w) == 4 && w[0] == "asked":
			a := Answers{Tickers: map[string]uint64{}}
			if _, err := fmt.Sscan(w[2]+" "+w[3], &a.Found, &a.Missing); err != nil {
				return err
			}
			r.Asked[w[1]] = a
		case len(w) == 4 && w[0] == "ticker":
			n, err := strconv.ParseUint(w[3], 10, 64)
			if err != nil {
				return err
			}
			r.Asked[w[1]].Tickers[w[2]] = n
		default:
			return fmt.Errorf("unexpected line %q", line)
		}
	}
	f, err := os.Open(rowsFile)
	if err != nil {
		return err
	}
	defer f.Close()
	for b := bufio.NewReader(f); ; {
		line, err := b.ReadString('\n')
		if err == io.EOF && line == "" {
			break
		}
		if err != nil {
			return err
		}
		w := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(w) != 3 {
			return fmt.Errorf("unexpected row %q", line)
		}
		kv, err := parseKV(w[1], w[2])
		if err != nil {
			return err
		}
		r.Rows[w[0]] = append(r.Rows[w[0]], kv)
	}
	for cf, n := range count {
		if len(r.Rows[cf]) != n {
			return fmt.Errorf("%d rows of %s, %d announced", len(r.Rows[cf]), cf, n)
		}
	}
	return nil
}

func parseKV(key, value string) (kv KV, err error) {
	if kv.Key, err = hex.DecodeString(key); err != nil {
		return kv, err
	}
	kv.Value, err = hex.DecodeString(value)
	return kv, err
}

// run executes a judge and returns its standard output. The error has what it said.
func run(name string, args ...string) ([]byte, error) {
	stdout, _, err := runBoth(name, args...)
	return stdout, err
}

func runBoth(name string, args ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var o, e bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(e.String())
		if said == "" {
			said = strings.TrimSpace(o.String())
		}
		return nil, nil, fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return o.Bytes(), e.Bytes(), nil
}
