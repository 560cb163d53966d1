package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// checkStore tells a TiKV data directory (raft-kv) from everything else that an operator may name by mistake.
func checkStore(fs base.FS, dir string) error {
	st, err := fs.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return notStore(dir, "there is no such directory", "")
	case err != nil:
		return base.IO("open store", dir, err)
	case !st.IsDir():
		return notStore(dir, "this is a file; name the TiKV data directory (storage.data-dir)", "")
	}
	names, err := list(fs, dir)
	if err != nil {
		return err
	}
	has := func(name string) bool { return slices.Contains(names, name) }
	switch {
	case has("tablets") && has("db"):
		return refused(dir, "db/ and tablets/ are both there: TiKV does not start on such a directory",
			"find out which of the two belongs here and move the other one away")
	case has("tablets"):
		return refused(dir, "this is a store of storage.engine = \"partitioned-raft-kv\" (tablets/), which is not supported",
			"restore such a store from a backup, or use TiKV's own tools")
	case has("db"):
		return checkKV(fs, dir)
	case len(names) == 0:
		return notStore(dir, "the directory is empty", "if a file system is to be mounted here, mount it")
	case isDir(fs, fs.PathJoin(dir, "member", "snap")) || isDir(fs, fs.PathJoin(dir, "member", "wal")):
		return notStore(dir, "this is a PD data directory, not a TiKV one", "tikv-repair inspect "+shellQuote(dir))
	}
	if what := insideStore(names); what != "" {
		// db/titandb and raft/raft-engine are two levels deep.
		for _, up := range []string{above(dir), above(above(dir))} {
			if isDir(fs, fs.PathJoin(up, "db")) {
				return notStore(dir, fmt.Sprintf("this is %s; the data directory is %s", what, up), "name "+shellQuote(up)+" instead")
			}
		}
		return notStore(dir, fmt.Sprintf("this is %s, not a data directory", what), "name the data directory (storage.data-dir) instead")
	}
	for _, n := range names {
		if child := fs.PathJoin(dir, n); isDir(fs, fs.PathJoin(child, "db")) {
			return notStore(dir, "there is no db/ in it; "+child+" looks like a data directory", "name "+shellQuote(child)+" instead")
		}
	}
	return notStore(dir, "there is no db/ in it", "name the TiKV data directory (storage.data-dir)")
}

// checkKV tells a kv database from a directory that is called db.
func checkKV(fs base.FS, dir string) error {
	kv := fs.PathJoin(dir, "db")
	if !isDir(fs, kv) {
		return notStore(dir, "db is not a directory", "")
	}
	// There can be very many names.
	if ok, err := base.Exists(fs, fs.PathJoin(kv, "CURRENT")); err == nil && ok {
		return nil
	}
	names, err := list(fs, kv)
	if err != nil {
		return err
	}
	if slices.Contains(names, "CURRENT") {
		return nil
	}
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST-") || strings.HasSuffix(n, ".sst") {
			return missingPart(kv, "CURRENT is not there, so RocksDB does not know its MANIFEST",
				"if the copy is incomplete, copy again; else write the name of the newest MANIFEST and a line feed into CURRENT")
		}
	}
	return notStore(dir, "db/ holds no RocksDB: TiKV has never started here", "")
}

// insideStore names the part of a data directory that a directory with these names is; "" when it is none.
func insideStore(names []string) string {
	ends := func(suffix string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, suffix) })
	}
	switch {
	case ends(".raftlog") || ends(".rewrite"):
		return "a raft-engine directory"
	case ends(".blob"):
		return "a Titan directory"
	case slices.Contains(names, "CURRENT"):
		return "a RocksDB inside a store"
	}
	return ""
}

func notStore(dir, reason, next string) error {
	return &base.Error{Class: base.ErrNotStore, Op: "open store", Path: dir, Offset: -1, Reason: reason, Next: next}
}

// above is the parent of dir, also when dir is relative.
func above(dir string) string {
	dir = filepath.Clean(dir)
	if base := filepath.Base(dir); base == "." || base == ".." {
		return filepath.Join(dir, "..")
	}
	return filepath.Dir(dir)
}
