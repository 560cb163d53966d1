package engine

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/crypt"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
)

// walDirs finds the WALs of the kv database and of the raft RocksDB.
func (d *discovery) walDirs() (err error) {
	var kvSetting string
	var raftSetting string
	if c := d.l.Config; c != nil {
		kvSetting, raftSetting = c.KV.WALDir, c.Raft.WALDir
	}
	optionsDir := ""
	if d.l.Options != nil {
		optionsDir = d.l.Options.WALDir
	}
	d.l.KVWALDir, err = d.walDir(wal{
		db: d.l.KVDir, override: d.o.WALDir, flag: "--wal-dir", setting: kvSetting, name: "rocksdb.wal-dir", options: optionsDir,
	})
	if err != nil || d.l.Raft != RaftRocks {
		if err == nil && d.o.RaftWALDir != "" {
			d.warnf("--raft-wal-dir is not needed: the raft log is in raft-engine")
		}
		return err
	}
	optionsDir = ""
	if name, err := options.Newest(d.fs, d.l.RaftDir); err != nil {
		return err
	} else if name != "" {
		if o, err := options.Load(d.fs, d.join(d.l.RaftDir, name)); err == nil {
			optionsDir = o.WALDir
		} else {
			d.warnf("the raft RocksDB's OPTIONS file is not readable and is ignored: %v", err)
		}
	} else {
		d.warnf("%s has no OPTIONS file", d.l.RaftDir)
	}
	d.l.RaftWALDir, err = d.walDir(wal{
		db: d.l.RaftDir, override: d.o.RaftWALDir, flag: "--raft-wal-dir", setting: raftSetting, name: "raftdb.wal-dir", options: optionsDir,
	})
	return err
}

// wal is what is known about the WAL directory of one database.
type wal struct {
	db             string // directory of the database
	override, flag string
	setting, name  string // of last_tikv.toml
	options        string // wal_dir of OPTIONS
}

// walDir decides where the WALs are. last_tikv.toml, written at the last start, comes first; without it OPTIONS, written
// at the last open. RocksDB 6.4 writes the database's own directory there, later ones leave it empty then.
func (d *discovery) walDir(w wal) (string, error) {
	if w.override != "" {
		if !isDir(d.fs, w.override) {
			return "", notADir(w.flag, w.override)
		}
		return w.override, nil
	}
	recorded, source := w.setting, w.name+" of last_tikv.toml"
	if d.l.Config == nil {
		recorded, source = w.options, "wal_dir of OPTIONS"
	}
	path := d.resolve(recorded)
	if recorded == "" || sameDir(d.fs, path, w.db) {
		return w.db, nil
	}
	there := isDir(d.fs, path)
	if there && d.inside(path) || there && !d.moved {
		return path, nil
	}
	local, err := hasFile(d.fs, w.db, ".log")
	if err != nil {
		return "", err
	}
	switch {
	case there && local:
		return "", missingPart(w.db, fmt.Sprintf("there are WALs here, and %s names %s", source, path), "say which directory is right with "+w.flag)
	case there:
		d.useOutside(path, source)
		return path, nil
	case d.moved && (local || d.l.Config == nil && filepath.Base(path) == filepath.Base(w.db)):
		d.warnf("%s is %s, which is not there; the WALs in %s are used", source, path, w.db)
		return w.db, nil
	}
	return "", missingPart(w.db, fmt.Sprintf("%s is %s, which is not there: newest writes would be missing", source, path),
		"mount it, or name the directory with the WALs with "+w.flag)
}

// encryption refuses a store of which a needed file is encrypted.
func (d *discovery) encryption() error {
	dict, err := crypt.Load(d.fs, d.l.Dir)
	if err != nil {
		return err
	}
	if dict == nil {
		if c := d.l.Config; c != nil && c.Encryption.Method != "" && c.Encryption.Method != "plaintext" {
			d.warnf("encryption is on (%s) but %s is not there: if it was lost, no file is readable", c.Encryption.Method, crypt.FileDict)
		}
		return nil
	}
	if dict.Torn > 0 {
		d.warnf("%s ends with an incomplete record of %d bytes, which is ignored", dict.Path, dict.Torn)
	}
	files, err := d.neededFiles()
	if err != nil {
		return err
	}
	for _, f := range files {
		if e, ok := dict.Find(f); ok && e.Method.Encrypted() {
			return refused(d.l.Dir, fmt.Sprintf("the store is encrypted at rest (%s is %s), which is not supported", f, e.Method),
				"restore an encrypted store from a backup, or use TiKV's own tools")
		}
	}
	return nil
}

// neededFiles lists the files that have to be readable: CURRENT's MANIFEST, OPTIONS, WALs, SSTs, blob files, the raft
// log. Which SSTs are live is not known yet; one that is not costs nothing here.
func (d *discovery) neededFiles() ([]string, error) {
	dirs := []string{d.l.KVDir, d.l.TitanDir, d.l.RaftDir, d.l.SpillDir, d.o.WALDir, d.o.RaftWALDir}
	if c := d.l.Config; c != nil {
		dirs = append(dirs, d.resolve(c.KV.WALDir), d.resolve(c.Raft.WALDir))
	}
	var out []string
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		names, err := list(d.fs, dir)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			switch filepath.Ext(n) {
			case ".log", ".sst", ".ldb", ".blob", ".raftlog", ".rewrite":
				out = append(out, d.join(dir, n))
			}
			if _, ok := options.FileNumber(n); ok {
				out = append(out, d.join(dir, n))
			}
		}
		manifest, err := d.currentManifest(dir)
		if err != nil {
			return nil, err
		}
		if manifest != "" {
			out = append(out, manifest)
		}
	}
	return out, nil
}

func (d *discovery) currentManifest(dir string) (string, error) {
	b, err := base.ReadFile(d.fs, d.join(dir, "CURRENT"))
	if err != nil {
		if ok, statErr := base.Exists(d.fs, d.join(dir, "CURRENT")); statErr == nil && !ok {
			return "", nil
		}
		return "", err
	}
	n := len(b)
	if n > 0 && b[n-1] == '\n' {
		n--
	}
	name := string(b[:n])
	if name == "" || name != filepath.Base(name) || os.IsPathSeparator(name[0]) {
		return "", nil // the reader of the database says what is wrong with it
	}
	return d.join(dir, name), nil
}
