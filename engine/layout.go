// Package engine knows a stopped TiKV data directory as a whole: what is where, who may be using it, and how it is kept
// from starting while it is repaired.
package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/titan"
)

// Overrides are directories that the operator names; an empty one is found out.
type Overrides struct {
	WALDir     string // kv WAL
	RaftDir    string // raft-engine's directory or the raft RocksDB's
	RaftWALDir string // WAL of the raft RocksDB
	TitanDir   string
}

// RaftKind is the engine that holds the raft log.
type RaftKind string

// Kinds of raft store.
const (
	RaftEngine RaftKind = "raft-engine"
	RaftRocks  RaftKind = "raft-rocksdb"
)

// Layout is what a data directory is, from its files and from last_tikv.toml where that helps. All paths exist unless
// said otherwise.
type Layout struct {
	Dir      string // the data directory, as it was given
	KVDir    string // <Dir>/db
	KVWALDir string // KVDir unless wal-dir is set
	TitanDir string // "" when there is no such directory
	// HasTitan: titandb's MANIFEST has live blob files, or there are *.blob files.
	HasTitan bool

	Raft       RaftKind
	RaftDir    string
	RaftWALDir string // RaftDir unless raftdb.wal-dir is set; raft RocksDB only
	SpillDir   string // raft-engine's second directory; "" when there is none

	SnapDir   string // may not exist
	ImportDir string // may not exist

	Config      *Config          // nil without a readable last_tikv.toml
	OptionsFile string           // newest OPTIONS-N of the kv database
	Options     *options.Options // its content; nil when it does not parse (a warning says so)

	PanicMark    []byte // content of panic_mark_file
	HasPanicMark bool

	// Migrating is the text of MIGRATING-RAFT: TiKV was changing between raft-engine and raft RocksDB, or had just done
	// so. RaftDir is the authoritative side, but the next start goes on with it: a writer must refuse.
	Migrating string

	// Foreign are directories outside Dir that a last_tikv.toml or OPTIONS file of another place names and that exist
	// here. They may belong to another store on this machine: a writer must have the operator name them.
	Foreign []string

	// Warnings are sentences for the operator.
	Warnings []string
}

// migratingMarker is TiKV's marker of an unfinished change between raft-engine and raft RocksDB.
const migratingMarker = "MIGRATING-RAFT"

// Discover finds out what dir is. The error has class ErrNotStore when it is no TiKV data directory, ErrUnsupported for
// a store that this tool refuses by name (tablets, encryption, two raft data sets), ErrCorrupt when a needed part is
// missing, ErrUsage when an override does not fit.
func Discover(fs base.FS, dir string, o Overrides) (*Layout, error) {
	if err := checkStore(fs, dir); err != nil {
		return nil, err
	}
	l := &Layout{
		Dir: dir, KVDir: fs.PathJoin(dir, "db"),
		SnapDir: fs.PathJoin(dir, "snap"), ImportDir: fs.PathJoin(dir, "import"),
	}
	config, warnings, err := LoadConfig(fs, dir)
	if err != nil {
		return nil, err
	}
	l.Config, l.Warnings = config, warnings
	d := &discovery{fs: fs, l: l, o: o}
	d.origin()
	steps := []func() error{d.names, d.titanDir, d.raftStore, d.kvOptionsFile, d.encryption, d.kvOptions, d.walDirs, d.titan}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// discovery is the state of one Discover.
type discovery struct {
	fs base.FS
	l  *Layout
	o  Overrides

	recorded string // storage.data-dir of last_tikv.toml; "" when unknown
	moved    bool   // the data directory is not (known to be) where last_tikv.toml was written
}

func (d *discovery) warnf(format string, args ...any) {
	d.l.Warnings = append(d.l.Warnings, fmt.Sprintf(format, args...))
}

func (d *discovery) join(elem ...string) string { return d.fs.PathJoin(elem...) }

// isDir tells whether name is a directory; a broken entry is not.
func isDir(fs base.FS, name string) bool {
	st, err := fs.Stat(name)
	return err == nil && st.IsDir()
}

// sameDir tells whether two paths lead to one directory, symlinks followed.
func sameDir(fs base.FS, a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	sa, errA := fs.Stat(a)
	sb, errB := fs.Stat(b)
	if errA != nil || errB != nil || sa.DeviceID() != sb.DeviceID() {
		return false
	}
	na, okA := inode(sa)
	nb, okB := inode(sb)
	return okA && okB && na == nb
}

// list gives the names in dir, sorted; none when dir is not there.
func list(fs base.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, base.IO("list", dir, err)
	}
	slices.Sort(names)
	return names, nil
}

// hasFile tells whether dir has a regular file (symlinks followed) whose name ends with suffix.
func hasFile(fs base.FS, dir, suffix string) (bool, error) {
	names, err := list(fs, dir)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if !strings.HasSuffix(n, suffix) {
			continue
		}
		if st, err := fs.Stat(fs.PathJoin(dir, n)); err == nil && st.Mode().IsRegular() {
			return true, nil
		}
	}
	return false, nil
}

// origin compares where last_tikv.toml was written with where it is now.
func (d *discovery) origin() {
	c := d.l.Config
	if c == nil || c.DataDir == "" || !filepath.IsAbs(c.DataDir) {
		d.moved = true
		return
	}
	d.recorded = filepath.Clean(c.DataDir)
	if d.moved = !sameDir(d.fs, d.recorded, d.l.Dir); d.moved {
		d.warnf("%s was written for data directory %s: its paths are taken as hints", c.Path, d.recorded)
	}
}

// inside tells whether path is below (or is) the data directory.
func (d *discovery) inside(path string) bool {
	rel, err := filepath.Rel(d.l.Dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolve turns a recorded path into one of here: a path below the recorded data directory moves along with it, any
// other stays.
func (d *discovery) resolve(recorded string) string {
	if recorded == "" {
		return ""
	}
	if !filepath.IsAbs(recorded) {
		return d.join(d.l.Dir, filepath.Clean(recorded))
	}
	recorded = filepath.Clean(recorded)
	if d.recorded == "" {
		return recorded
	}
	if recorded == d.recorded {
		return d.l.Dir
	}
	if rest, ok := strings.CutPrefix(recorded, strings.TrimSuffix(d.recorded, "/")+"/"); ok {
		return d.join(d.l.Dir, rest)
	}
	return recorded
}

// useOutside notes a directory outside the data directory that only a record of another place names.
func (d *discovery) useOutside(path, setting string) {
	if !d.moved || d.inside(path) {
		return
	}
	d.l.Foreign = append(d.l.Foreign, path)
	d.warnf("%s is used because %s names it, but the store was moved: make sure that it belongs to this store", path, setting)
}

// names looks at the marks that lie in the data directory itself.
func (d *discovery) names() error {
	names, err := list(d.fs, d.l.Dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		path := d.join(d.l.Dir, n)
		switch {
		case strings.HasSuffix(n, ".REMOVE"):
			d.warnf("%s is what TiKV was deleting when it stopped; it is not read", path)
		case n == PanicMark:
			if d.l.PanicMark, err = base.ReadFile(d.fs, path); err != nil {
				return err
			}
			d.l.HasPanicMark = true
		case n == migratingMarker:
			b, err := base.ReadFile(d.fs, path)
			if err != nil {
				return err
			}
			d.l.Migrating = string(b)
			if len(b) == 0 {
				d.l.Migrating = " " // there, and empty: still a migration about to start
			}
		}
	}
	return nil
}

// titanDir finds titandb.
func (d *discovery) titanDir() error {
	if d.o.TitanDir != "" {
		if !isDir(d.fs, d.o.TitanDir) {
			return notADir("--titan-dir", d.o.TitanDir)
		}
		d.l.TitanDir = d.o.TitanDir
		return nil
	}
	local := d.join(d.l.KVDir, "titandb")
	if c := d.l.Config; c != nil && c.Titan.Dirname != "" {
		const setting = "rocksdb.titan.dirname of last_tikv.toml"
		path := d.resolve(c.Titan.Dirname)
		switch {
		case isDir(d.fs, path):
			d.l.TitanDir = path
			d.useOutside(path, setting)
			return nil
		case !d.moved || !isDir(d.fs, local):
			return missingPart(d.l.Dir, fmt.Sprintf("%s is %s, which is not there", setting, path), "name the directory with --titan-dir")
		}
		d.warnf("%s is %s, which is not there; %s is used", setting, path, local)
	}
	if isDir(d.fs, local) {
		d.l.TitanDir = local
	}
	return nil
}

// titan finds out whether blob files hold data.
func (d *discovery) titan() error {
	if d.l.TitanDir == "" {
		return nil
	}
	blobs, err := hasFile(d.fs, d.l.TitanDir, ".blob")
	if err != nil {
		return err
	}
	d.l.HasTitan = blobs
	m, err := titan.LoadManifest(d.fs, d.l.TitanDir)
	switch {
	case errors.Is(err, base.ErrCorrupt) || errors.Is(err, os.ErrNotExist):
		d.l.HasTitan = true // its values cannot be told apart from lost ones: nobody may take the store for one without
		d.warnf("the blob store is not readable: %v", err)
	case err != nil:
		return err
	case m != nil && len(m.Files) > 0:
		d.l.HasTitan = true
	}
	return nil
}

// kvOptionsFile finds the newest OPTIONS file; TiKV does not start without one.
func (d *discovery) kvOptionsFile() error {
	name, err := options.Newest(d.fs, d.l.KVDir)
	if err != nil {
		return err
	}
	if name == "" {
		return missingPart(d.l.KVDir, "there is no OPTIONS file: RocksDB keeps two, and TiKV does not start without one",
			"copy an OPTIONS-NNNNNN of another store of the same cluster here, or restore it from where this directory was copied")
	}
	d.l.OptionsFile = d.join(d.l.KVDir, name)
	return nil
}

func (d *discovery) kvOptions() error {
	opts, err := options.Load(d.fs, d.l.OptionsFile)
	if errors.Is(err, base.ErrCorrupt) {
		d.warnf("the OPTIONS file is damaged and is ignored: %v; new tables are written as last_tikv.toml, the tables that they replace, and TiKV's defaults say", err)
		return nil
	}
	d.l.Options = opts
	return err
}

func missingPart(path, reason, next string) error {
	return &base.Error{Class: base.ErrCorrupt, Op: "open store", Path: path, Offset: -1, Reason: reason, Next: next}
}

func refused(path, reason, next string) error {
	return &base.Error{Class: base.ErrUnsupported, Op: "open store", Path: path, Offset: -1, Reason: reason, Next: next}
}

func notADir(flag, path string) error {
	return &base.Error{Class: base.ErrUsage, Op: "open store", Path: path, Offset: -1, Reason: flag + " names no directory"}
}
