package engine_test

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const (
	optionsText = "[Version]\n rocksdb_version=6.29.5\n[DBOptions]\n wal_dir=%WAL%\n[CFOptions \"default\"]\n"
	raftlog     = "raft-engine/0000000000000001.raftlog"
)

// tree is a directory tree: path → content; a path that ends with a slash is a directory.
type tree map[string]string

// with gives a copy with changes; the content "-" takes a file away.
func (tr tree) with(changes tree) tree {
	out := tree{}
	for _, t := range []tree{tr, changes} {
		for p, c := range t {
			if out[p] = c; c == "-" {
				delete(out, p)
			}
		}
	}
	return out
}

func (tr tree) fs(tb testing.TB) base.FS {
	tb.Helper()
	fs := base.NewMem(vfs.NewMem())
	for p, content := range tr {
		dir := path.Dir(p)
		if strings.HasSuffix(p, "/") {
			dir = p
		}
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		if dir != p {
			if err := base.WriteFileSync(fs, p, []byte(content), ""); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return fs
}

// store is a minimal store at /s, started there, with its raft log in raft-engine.
var store = tree{
	"/s/LOCK": "", "/s/db/LOCK": "", "/s/db/CURRENT": "MANIFEST-000001\n", "/s/db/MANIFEST-000001": "",
	"/s/db/OPTIONS-000003": optionsAt(""), "/s/db/OPTIONS-000010": optionsAt(""), "/s/db/OPTIONS-000011.dbtmp": "", "/s/db/000004.log": "",
	"/s/" + raftlog: "", "/s/raft-engine/LOCK": "",
	"/s/last_tikv.toml": toml("/s", ""),
}

func optionsAt(wal string) string { return strings.Replace(optionsText, "%WAL%", wal, 1) }

func toml(dataDir, more string) string {
	return "[storage]\ndata-dir = \"" + dataDir + "\"\n[raft-engine]\nenable = true\ndir = \"" + dataDir + "/raft-engine\"\n" +
		"[raftstore]\nraftdb-path = \"" + dataDir + "/raft\"\n" + more
}

// rocksRaft turns the store into one with a raft RocksDB.
var rocksRaft = tree{"/s/" + raftlog: "-", "/s/raft-engine/LOCK": "-", "/s/raft/CURRENT": "MANIFEST-000001\n", "/s/raft/OPTIONS-000001": optionsAt(""),
	"/s/last_tikv.toml": strings.Replace(toml("/s", ""), "enable = true", "enable = false", 1)}

func discover(t *testing.T, tr tree, dir string, o engine.Overrides) (*engine.Layout, error) {
	t.Helper()
	return engine.Discover(tr.fs(t), dir, o)
}

// Each mistake gets a sentence of its own and, where there is one, the thing to type.
func TestNotAStore(t *testing.T) {
	for name, tc := range map[string]struct {
		tree   tree
		dir    string
		class  error
		reason string
		next   string
	}{
		"missing":         {store, "/nowhere", base.ErrNotStore, "no such directory", ""},
		"a file":          {store, "/s/LOCK", base.ErrNotStore, "a file", ""},
		"empty":           {tree{"/e/": ""}, "/e", base.ErrNotStore, "is empty", "mount"},
		"PD":              {tree{"/p/member/snap/db": "", "/p/region-meta/CURRENT": ""}, "/p", base.ErrNotStore, "PD data directory", "inspect /p"},
		"db given":        {store, "/s/db", base.ErrNotStore, "data directory is /s", "name /s instead"},
		"db given, slash": {store, "/s/db/", base.ErrNotStore, "data directory is /s", "name /s instead"},
		"raft given":      {store.with(rocksRaft), "/s/raft", base.ErrNotStore, "data directory is /s", "name /s instead"},
		"raft-engine":     {store, "/s/raft-engine", base.ErrNotStore, "a raft-engine directory; the data directory is /s", "name /s instead"},
		"titandb given":   {store.with(tree{"/s/db/titandb/000001.blob": ""}), "/s/db/titandb", base.ErrNotStore, "Titan directory; the data directory is /s", ""},
		"parent given":    {tree{"/x/data/db/CURRENT": "", "/x/log/tikv.log": ""}, "/x", base.ErrNotStore, "/x/data looks like", "name /x/data instead"},
		"lone RocksDB":    {tree{"/r/CURRENT": "", "/r/LOCK": ""}, "/r", base.ErrNotStore, "RocksDB inside a store", "storage.data-dir"},
		"something else":  {tree{"/h/notes.txt": ""}, "/h", base.ErrNotStore, "no db/", "storage.data-dir"},
		"db is a file":    {tree{"/f/db": ""}, "/f", base.ErrNotStore, "db is not a directory", ""},
		"never started":   {tree{"/n/db/LOCK": ""}, "/n", base.ErrNotStore, "never started", ""},
		"no CURRENT":      {store.with(tree{"/s/db/CURRENT": "-"}), "/s", base.ErrCorrupt, "CURRENT", "newest MANIFEST"},
		"no OPTIONS":      {store.with(tree{"/s/db/OPTIONS-000003": "-", "/s/db/OPTIONS-000010": "-"}), "/s", base.ErrCorrupt, "no OPTIONS file", "copy"},
		"tablets":         {tree{"/t/tablets/": "", "/t/" + raftlog: ""}, "/t", base.ErrUnsupported, "partitioned-raft-kv", "backup"},
		"both engines":    {store.with(tree{"/s/tablets/": ""}), "/s", base.ErrUnsupported, "db/ and tablets/", "belongs"},
	} {
		_, err := discover(t, tc.tree, tc.dir, engine.Overrides{})
		if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.reason) || !strings.Contains(base.Next(err), tc.next) {
			t.Errorf("%s: %v (next: %s)", name, err, base.Next(err))
		}
	}
}

func TestPlainStore(t *testing.T) {
	l, err := discover(t, store, "/s", engine.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if l.KVDir != "/s/db" || l.KVWALDir != "/s/db" || l.Raft != engine.RaftEngine || l.RaftDir != "/s/raft-engine" || l.RaftWALDir != "" || l.TitanDir != "" ||
		l.HasTitan || l.OptionsFile != "/s/db/OPTIONS-000010" || l.SnapDir != "/s/snap" || l.ImportDir != "/s/import" || len(l.Warnings)+len(l.Foreign) > 0 {
		t.Errorf("%+v", l)
	}
	l, err = discover(t, store.with(rocksRaft), "/s", engine.Overrides{})
	if err != nil || l.Raft != engine.RaftRocks || l.RaftDir != "/s/raft" || l.RaftWALDir != "/s/raft" || len(l.Warnings) > 0 {
		t.Errorf("raft RocksDB: %+v, %v", l, err)
	}
}

// What is odd but survivable is a warning.
func TestWarnings(t *testing.T) {
	for name, tc := range map[string]struct {
		tree tree
		want string
	}{
		"moved":                {store.with(tree{"/s/last_tikv.toml": toml("/elsewhere", "")}), "written for data directory /elsewhere"},
		"not TOML":             {store.with(tree{"/s/last_tikv.toml": "[storage"}), "does not parse"},
		"odd setting":          {store.with(tree{"/s/last_tikv.toml": toml("/s", "[rocksdb]\nwal-dir = 5\n")}), "rocksdb.wal-dir = 5"},
		"trash":                {store.with(tree{"/s/raft.REMOVE/CURRENT": ""}), "/s/raft.REMOVE"},
		"empty raft dir":       {store.with(tree{"/s/raft/": ""}), "/s/raft is empty"},
		"raft dir with rest":   {store.with(tree{"/s/raft/LOCK": ""}), "holds no raft-rocksdb data set"},
		"damaged OPTIONS":      {store.with(tree{"/s/db/OPTIONS-000010": "\x00"}), "OPTIONS file is damaged"},
		"enable is the other":  {store.with(rocksRaft).with(tree{"/s/last_tikv.toml": toml("/s", "")}), "raft-engine.enable is true"},
		"encryption, no dict":  {store.with(tree{"/s/last_tikv.toml": toml("/s", "[security.encryption]\ndata-encryption-method = \"aes128-ctr\"\n")}), "file.dict is not there"},
		"titan not readable":   {store.with(tree{"/s/db/titandb/CURRENT": "MANIFEST-000009\n"}), "blob store is not readable"},
		"stale marker":         {store.with(tree{"/s/MIGRATING-RAFT": "/s/raft//"}), "stale"},
		"marker being written": {store.with(tree{"/s/MIGRATING-RAFT": "/s/raft-eng"}), "incomplete"},
		"empty marker":         {store.with(tree{"/s/MIGRATING-RAFT": ""}), "incomplete"},
	} {
		l, err := discover(t, tc.tree, "/s", engine.Overrides{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], tc.want) {
			t.Errorf("%s: warnings %q", name, l.Warnings)
		}
		if strings.Contains(name, "marker") != (l.Migrating != "") {
			t.Errorf("%s: migrating %q", name, l.Migrating)
		}
		if strings.Contains(name, "titan") != l.HasTitan {
			t.Errorf("%s: HasTitan %v", name, l.HasTitan)
		}
	}
}

func TestPanicMark(t *testing.T) {
	l, err := discover(t, store.with(tree{"/s/panic_mark_file": "x"}), "/s", engine.Overrides{})
	if err != nil || !l.HasPanicMark || string(l.PanicMark) != "x" {
		t.Errorf("%+v, %v", l, err)
	}
}

// Which raft store is the live one: the table above choose, and the ways of placing it.
func TestRaftStore(t *testing.T) {
	both := store.with(tree{"/s/raft/CURRENT": "MANIFEST-000001\n", "/s/raft/OPTIONS-000001": optionsAt("")})
	noToml := tree{"/s/last_tikv.toml": "-"}
	outside := func(enable string) string {
		return "[storage]\ndata-dir = \"/s\"\n[raft-engine]\nenable = " + enable + "\ndir = \"/mnt/re\"\n[raftstore]\nraftdb-path = \"/s/raft\"\n"
	}
	for name, tc := range map[string]struct {
		tree tree
		o    engine.Overrides
		kind engine.RaftKind
		dir  string
		err  string
	}{
		"two sets":                        {both, engine.Overrides{}, "", "", "two raft data sets"},
		"two sets, said which":            {both, engine.Overrides{RaftDir: "/s/raft"}, engine.RaftRocks, "/s/raft", ""},
		"none":                            {store.with(tree{"/s/" + raftlog: "-"}), engine.Overrides{}, "", "", "no raft data"},
		"migrating from raft":             {both.with(tree{"/s/MIGRATING-RAFT": "/s/raft//"}), engine.Overrides{}, engine.RaftRocks, "/s/raft", ""},
		"migrating from raft-engine":      {both.with(tree{"/s/MIGRATING-RAFT": "/s/raft-engine//"}), engine.Overrides{}, engine.RaftEngine, "/s/raft-engine", ""},
		"migrating, moved":                {both.with(tree{"/s/MIGRATING-RAFT": "/o/raft//", "/s/last_tikv.toml": toml("/o", "")}), engine.Overrides{}, engine.RaftRocks, "/s/raft", ""},
		"migrating, no toml":              {both.with(noToml).with(tree{"/s/MIGRATING-RAFT": "/o/raft//"}), engine.Overrides{}, engine.RaftRocks, "/s/raft", ""},
		"migrating from an unknown place": {both.with(tree{"/s/MIGRATING-RAFT": "/o/raft//"}), engine.Overrides{}, "", "", "none of the places"},
		"marker incomplete, two sets":     {both.with(tree{"/s/MIGRATING-RAFT": "/s/raft"}), engine.Overrides{}, "", "", "incomplete"},
		"marker, source only":             {store.with(tree{"/s/MIGRATING-RAFT": "/s/raft-engine//"}), engine.Overrides{}, engine.RaftEngine, "/s/raft-engine", ""},
		"marker, target only":             {store.with(tree{"/s/MIGRATING-RAFT": "/s/raft//"}), engine.Overrides{}, engine.RaftEngine, "/s/raft-engine", ""},
		"marker, source outside and gone": {store.with(rocksRaft).with(tree{"/s/MIGRATING-RAFT": "/mnt/re//", "/s/last_tikv.toml": outside("false")}), engine.Overrides{}, "", "", "not mounted"},
		"configured outside":              {store.with(tree{"/s/" + raftlog: "-", "/mnt/re/0000000000000001.raftlog": "", "/s/last_tikv.toml": outside("true")}), engine.Overrides{}, engine.RaftEngine, "/mnt/re", ""},
		"configured outside, not mounted": {store.with(tree{"/mnt/re/": "", "/s/last_tikv.toml": outside("true")}), engine.Overrides{}, "", "", "says that raft-engine is in /mnt/re"},
		"the other kind, not mounted":     {store.with(rocksRaft).with(tree{"/s/last_tikv.toml": outside("true")}), engine.Overrides{}, "", "", "raft-engine in /mnt/re, which has none"},
		"nested in raft":                  {store.with(tree{"/s/" + raftlog: "-", "/s/raft-engine/LOCK": "-", "/s/raft/" + raftlog: "", "/s/last_tikv.toml": "-"}), engine.Overrides{}, engine.RaftEngine, "/s/raft/raft-engine", ""},
		"two places, no toml":             {store.with(noToml).with(tree{"/s/raft/" + raftlog: ""}), engine.Overrides{}, "", "", "several places"},
		"two places, toml decides":        {store.with(tree{"/s/raft/" + raftlog: ""}), engine.Overrides{}, engine.RaftEngine, "/s/raft-engine", ""},
		"override that is nothing":        {store, engine.Overrides{RaftDir: "/s/db/"}, engine.RaftRocks, "/s/db/", ""},
		"override without data":           {store.with(tree{"/e/": ""}), engine.Overrides{RaftDir: "/e"}, "", "", "neither raft-engine files"},
		"override that is not there":      {store, engine.Overrides{RaftDir: "/nowhere"}, "", "", "--raft-dir names no directory"},
		"only reserved files":             {store.with(tree{"/s/" + raftlog: "-", "/s/" + raftlog + ".reserved": ""}), engine.Overrides{}, "", "", "no raft data"},
		"spill dir":                       {store.with(tree{"/spill/": "", "/s/last_tikv.toml": strings.Replace(toml("/s", ""), "enable = true", "enable = true\nspill-dir = \"/spill\"", 1)}), engine.Overrides{}, engine.RaftEngine, "/s/raft-engine", ""},
		"spill dir missing":               {store.with(tree{"/s/last_tikv.toml": strings.Replace(toml("/s", ""), "enable = true", "enable = true\nspill-dir = \"/spill\"", 1)}), engine.Overrides{}, "", "", "newest raft log files"},
	} {
		l, err := discover(t, tc.tree, "/s", tc.o)
		switch {
		case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v", name, err)
		case err == nil && (l.Raft != tc.kind || l.RaftDir != tc.dir):
			t.Errorf("%s: %s in %s", name, l.Raft, l.RaftDir)
		case err == nil && strings.HasPrefix(name, "spill") && l.SpillDir != "/spill":
			t.Errorf("%s: spill dir %q", name, l.SpillDir)
		case err != nil && !errors.Is(err, base.ErrUsage) && base.Next(err) == "":
			t.Errorf("%s: nothing to do next: %v", name, err)
		}
	}
}

// Where the WALs are.
func TestWALDir(t *testing.T) {
	set := func(dataDir, wal string) tree {
		return tree{"/s/last_tikv.toml": toml(dataDir, "[rocksdb]\nwal-dir = \""+wal+"\"\n"), "/s/db/000004.log": "-"}
	}
	local := tree{"/s/db/000004.log": ""}
	for name, tc := range map[string]struct {
		tree    tree
		o       engine.Overrides
		want    string
		err     string
		foreign bool
	}{
		"outside":                       {store.with(set("/s", "/wal")).with(tree{"/wal/000004.log": ""}), engine.Overrides{}, "/wal", "", false},
		"outside, not mounted":          {store.with(set("/s", "/wal")), engine.Overrides{}, "", "newest writes would be missing", false},
		"outside, not mounted, old log": {store.with(set("/s", "/wal")).with(local), engine.Overrides{}, "", "newest writes would be missing", false},
		"override":                      {store.with(set("/s", "/wal")).with(tree{"/w2/": ""}), engine.Overrides{WALDir: "/w2"}, "/w2", "", false},
		"override missing":              {store, engine.Overrides{WALDir: "/w2"}, "", "--wal-dir names no directory", false},
		"inside":                        {store.with(set("/s", "/s/wal")).with(tree{"/s/wal/000004.log": ""}), engine.Overrides{}, "/s/wal", "", false},
		"inside, moved":                 {store.with(set("/o/s", "/o/s/wal")).with(tree{"/s/wal/000004.log": ""}), engine.Overrides{}, "/s/wal", "", false},
		"similar prefix":                {store.with(set("/o", "/o2/wal")).with(tree{"/o2/wal/000004.log": ""}), engine.Overrides{}, "/o2/wal", "", true},
		"is db, moved":                  {store.with(set("/o", "/o/db")).with(local), engine.Overrides{}, "/s/db", "", false},
		"outside, moved along":          {store.with(set("/o", "/wal")).with(tree{"/wal/000004.log": ""}), engine.Overrides{}, "/wal", "", true},
		"outside, moved into db":        {store.with(set("/o", "/wal")).with(local), engine.Overrides{}, "/s/db", "", false},
		"outside, moved, both":          {store.with(set("/o", "/wal")).with(local).with(tree{"/wal/000004.log": ""}), engine.Overrides{}, "", "there are WALs here", false},
		"no toml, OPTIONS of 6.4":       {store.with(tree{"/s/last_tikv.toml": "-", "/s/db/OPTIONS-000010": optionsAt("/o/tikv/db")}), engine.Overrides{}, "/s/db", "", false},
		"no toml, OPTIONS outside":      {store.with(tree{"/s/last_tikv.toml": "-", "/s/db/000004.log": "-", "/s/db/OPTIONS-000010": optionsAt("/wal"), "/wal/000004.log": ""}), engine.Overrides{}, "/wal", "", true},
		"no toml, OPTIONS lost":         {store.with(tree{"/s/last_tikv.toml": "-", "/s/db/000004.log": "-", "/s/db/OPTIONS-000010": optionsAt("/wal")}), engine.Overrides{}, "", "newest writes would be missing", false},
	} {
		l, err := discover(t, tc.tree, "/s", tc.o)
		switch {
		case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v", name, err)
		case err == nil && (l.KVWALDir != tc.want || (len(l.Foreign) > 0) != tc.foreign):
			t.Errorf("%s: %s, foreign %q", name, l.KVWALDir, l.Foreign)
		}
	}
	raft := store.with(rocksRaft)
	raft["/s/last_tikv.toml"] += "[raftdb]\nwal-dir = \"/rw\"\n"
	if l, err := discover(t, raft.with(tree{"/rw/000004.log": ""}), "/s", engine.Overrides{}); err != nil || l.RaftWALDir != "/rw" || l.KVWALDir != "/s/db" {
		t.Errorf("raft WAL: %+v, %v", l, err)
	}
	if _, err := discover(t, raft, "/s", engine.Overrides{}); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(base.Next(err), "--raft-wal-dir") {
		t.Errorf("raft WAL dir missing: %v", err)
	}
	if l, err := discover(t, raft.with(tree{"/r2/": ""}), "/s", engine.Overrides{RaftWALDir: "/r2"}); err != nil || l.RaftWALDir != "/r2" {
		t.Errorf("raft WAL dir named: %+v, %v", l, err)
	}
}

func TestTitanDir(t *testing.T) {
	set := func(dataDir string) tree {
		return tree{"/s/last_tikv.toml": toml(dataDir, "[rocksdb.titan]\nenabled = true\ndirname = \"/titan\"\n")}
	}
	blob := tree{"/titan/000007.blob": ""}
	for name, tc := range map[string]struct {
		tree tree
		o    engine.Overrides
		dir  string
		has  bool
		err  string
	}{
		"default":             {store.with(tree{"/s/db/titandb/000007.blob": ""}), engine.Overrides{}, "/s/db/titandb", true, ""},
		"never used":          {store.with(tree{"/s/db/titandb/LOCK": ""}), engine.Overrides{}, "/s/db/titandb", false, ""},
		"configured":          {store.with(set("/s")).with(blob), engine.Overrides{}, "/titan", true, ""},
		"configured, missing": {store.with(set("/s")), engine.Overrides{}, "", false, "not there"},
		"moved into db":       {store.with(set("/o")).with(tree{"/s/db/titandb/000007.blob": ""}), engine.Overrides{}, "/s/db/titandb", true, ""},
		"named":               {store.with(blob), engine.Overrides{TitanDir: "/titan"}, "/titan", true, ""},
		"named, missing":      {store, engine.Overrides{TitanDir: "/titan"}, "", false, "--titan-dir names no directory"},
	} {
		l, err := discover(t, tc.tree, "/s", tc.o)
		switch {
		case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v", name, err)
		case err == nil && (l.TitanDir != tc.dir || l.HasTitan != tc.has):
			t.Errorf("%s: %s, %v", name, l.TitanDir, l.HasTitan)
		}
	}
}

// The encrypted store is refused for its WAL, and also when it was renamed; when no file that is needed is encrypted any
// more, the dictionary does not matter.
func TestEncryption(t *testing.T) {
	mem := fixtures.Mem(t, "single-encrypted")
	fs := base.NewMem(mem)
	if err := fs.Rename("/data", "/moved"); err != nil {
		t.Fatal(err)
	}
	_, err := engine.Discover(fs, "/moved", engine.Overrides{})
	if !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), "/moved/db/") {
		t.Errorf("moved: %v", err)
	}
	dict, err := base.ReadFile(fs, "/moved/file.dict")
	if err != nil {
		t.Fatal(err)
	}
	// The plain store's files have none of the dictionary's names but these.
	plain := store.with(tree{"/s/file.dict": string(dict), "/s/db/000004.log": "-", "/s/" + raftlog: "-", "/s/raft-engine/0000000000000077.raftlog": "",
		"/s/db/MANIFEST-000001": "-", "/s/db/MANIFEST-000077": "", "/s/db/CURRENT": "MANIFEST-000077\n"})
	if l, err := discover(t, plain, "/s", engine.Overrides{}); err != nil || l.Raft != engine.RaftEngine {
		t.Errorf("stale dictionary: %v", err)
	}
	for _, p := range []string{"/s/db/000004.log", "/s/" + raftlog, "/s/db/OPTIONS-000015", "/s/db/titandb/CURRENT"} {
		content := ""
		if path.Base(p) == "CURRENT" {
			content = "MANIFEST-000001\n"
		}
		if _, err := discover(t, plain.with(tree{p: content}), "/s", engine.Overrides{}); !errors.Is(err, base.ErrUnsupported) {
			t.Errorf("%s is encrypted: %v", p, err)
		}
	}
	if _, err := discover(t, plain.with(tree{"/s/file.dict": "x"}), "/s", engine.Overrides{}); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("damaged dictionary: %v", err)
	}
}

// On a real disk, through a symbolic link and as a relative path: the store is known to be at home, so paths outside it are right.
func TestSymlinkAndRelativePath(t *testing.T) {
	root := t.TempDir()
	home := filepath.Join(root, "home")
	for p, content := range store {
		name := filepath.Join(home, strings.TrimPrefix(p, "/s"))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wal := filepath.Join(root, "wal")
	if err := os.Mkdir(wal, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "last_tikv.toml"), []byte(toml(home, "[rocksdb]\nwal-dir = \""+wal+"\"\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(home, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(home)
	for _, dir := range []string{home, filepath.Join(root, "link"), ".", "../link", "../home/"} {
		l, err := engine.Discover(base.NewOS(), dir, engine.Overrides{})
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if l.KVWALDir != wal || len(l.Warnings)+len(l.Foreign) > 0 {
			t.Errorf("%s: WAL dir %s, warnings %q", dir, l.KVWALDir, l.Warnings)
		}
	}
	t.Chdir(filepath.Join(home, "db"))
	if _, err := engine.Discover(base.NewOS(), ".", engine.Overrides{}); !errors.Is(err, base.ErrNotStore) || !strings.Contains(base.Next(err), "name .. instead") {
		t.Errorf("in db: %v", err)
	}
}
