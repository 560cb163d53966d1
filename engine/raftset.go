package engine

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// raftSet is one raft data set that was found.
type raftSet struct {
	kind RaftKind
	dir  string
}

// raftStore finds the live raft data set. TiKV's rules (tikv/tikv master components/tikv_util/src/config.rs
// RaftDataStateMachine): raft RocksDB exists = CURRENT in its directory; raft-engine exists = a *.raftlog in its own.
func (d *discovery) raftStore() error {
	if err := d.findRaft(); err != nil {
		return err
	}
	if d.l.Raft == RaftRocks {
		return nil
	}
	if d.o.RaftWALDir != "" && !isDir(d.fs, d.o.RaftWALDir) {
		return notADir("--raft-wal-dir", d.o.RaftWALDir)
	}
	c := d.l.Config
	if c == nil || c.RaftEngine.SpillDir == "" {
		return nil
	}
	const setting = "raft-engine.spill-dir of last_tikv.toml"
	spill := d.resolve(c.RaftEngine.SpillDir)
	if !isDir(d.fs, spill) {
		return missingPart(d.l.RaftDir, fmt.Sprintf("%s is %s, which is not there: it may hold the newest raft log files", setting, spill),
			"mount or copy it there; create it empty if it is known to hold no *.raftlog and *.rewrite")
	}
	d.l.SpillDir = spill
	d.useOutside(spill, setting)
	return nil
}

func (d *discovery) findRaft() error {
	if d.o.RaftDir != "" {
		return d.overriddenRaft()
	}
	rocks, err := d.locate(RaftRocks)
	if err != nil {
		return err
	}
	eng, err := d.locate(RaftEngine)
	if err != nil {
		return err
	}
	set, err := d.choose(rocks, eng)
	if err != nil {
		return err
	}
	d.l.Raft, d.l.RaftDir = set.kind, set.dir
	setting := "raft-engine.dir of last_tikv.toml"
	if set.kind == RaftRocks {
		setting = "raftstore.raftdb-path of last_tikv.toml"
	}
	d.useOutside(set.dir, setting)
	return d.warnAboutOther(set)
}

// overriddenRaft takes the directory that the operator named and finds out which engine it is.
func (d *discovery) overriddenRaft() error {
	dir := d.o.RaftDir
	if !isDir(d.fs, dir) {
		return notADir("--raft-dir", dir)
	}
	isRocks, err := d.hasData(RaftRocks, dir)
	if err != nil {
		return err
	}
	isEngine, err := d.hasData(RaftEngine, dir)
	if err != nil {
		return err
	}
	switch {
	case isRocks && isEngine:
		return refused(dir, "--raft-dir holds both a RocksDB and raft-engine files", "")
	case isRocks:
		d.l.Raft = RaftRocks
	case isEngine:
		d.l.Raft = RaftEngine
	default:
		return &base.Error{Class: base.ErrUsage, Op: "open store", Path: dir, Offset: -1,
			Reason: "--raft-dir holds neither raft-engine files (*.raftlog) nor a RocksDB (CURRENT)"}
	}
	d.l.RaftDir = dir
	if d.l.Migrating != "" {
		d.warnf("%s is there, but --raft-dir decides", d.join(d.l.Dir, migratingMarker))
	}
	return nil
}

func (d *discovery) hasData(kind RaftKind, dir string) (bool, error) {
	if kind == RaftRocks {
		return base.Exists(d.fs, d.join(dir, "CURRENT"))
	}
	return hasFile(d.fs, dir, ".raftlog")
}

// candidates lists where the data set of kind may be. The first is the configured place when last_tikv.toml is there.
// raft-engine's default moved: <data-dir>/raft-engine, and from 7.6 on <raftdb-path>/raft-engine when that path is set.
func (d *discovery) candidates(kind RaftKind) []string {
	var out []string
	add := func(path string) {
		same := func(p string) bool { return sameDir(d.fs, p, path) }
		if path != "" && !slices.ContainsFunc(out, same) {
			out = append(out, path)
		}
	}
	raft := d.join(d.l.Dir, "raft")
	c := d.l.Config
	if c == nil {
		c = &Config{}
	}
	configured := d.resolve(c.RaftDBPath)
	if kind == RaftRocks {
		add(configured)
		add(raft)
		return out
	}
	add(d.resolve(c.RaftEngine.Dir))
	add(d.join(d.l.Dir, "raft-engine"))
	if configured != "" {
		add(d.join(configured, "raft-engine"))
	}
	add(d.join(raft, "raft-engine"))
	return out
}

// configured tells whether the first candidate of kind comes from last_tikv.toml.
func (d *discovery) configured(kind RaftKind) bool {
	c := d.l.Config
	return c != nil && (kind == RaftRocks && c.RaftDBPath != "" || kind == RaftEngine && c.RaftEngine.Dir != "")
}

// locate finds the directory with the data set of kind; "" when there is none.
func (d *discovery) locate(kind RaftKind) (string, error) {
	all := d.candidates(kind)
	var with []string
	for _, dir := range all {
		if ok, err := d.hasData(kind, dir); err != nil {
			return "", err
		} else if ok {
			with = append(with, dir)
		}
	}
	if len(with) == 0 {
		return "", nil
	}
	configured := d.configured(kind)
	switch {
	case configured && with[0] != all[0] && !d.moved:
		// Nothing was moved, so the configured place is right and empty: likely a mount that is missing. What lies in a
		// default place is then an old set.
		return "", missingPart(d.l.Dir, fmt.Sprintf("last_tikv.toml says that %s is in %s, but it is in %s", kind, all[0], with[0]),
			"mount the configured directory, or name the right one with --raft-dir")
	case len(with) == 1:
		if configured && with[0] != all[0] {
			d.warnf("last_tikv.toml says that %s is in %s, which has none; %s is used", kind, all[0], with[0])
		}
	case !configured || with[0] != all[0] || d.moved && !d.inside(with[0]):
		return "", refused(d.l.Dir, fmt.Sprintf("%s data is in several places: %s", kind, strings.Join(with, ", ")), "name the right one with --raft-dir")
	default:
		d.warnf("%s data is also in %s; %s is used, as last_tikv.toml says", kind, strings.Join(with[1:], ", "), with[0])
	}
	return with[0], nil
}

// choose decides between the two kinds; an empty path means that there is no such set.
//
//	raft/CURRENT  *.raftlog  MIGRATING-RAFT     live
//	yes           –          –                  raft RocksDB
//	–             yes        –                  raft-engine
//	yes           yes        –                  refused, as TiKV does
//	yes           yes        "<source>//"       the source: the other side is partial and will be written again
//	yes           yes        without "//"       refused: no dump had started, so one of them should not exist
//	one of them              "<source>//"       the source when it is that one; else the migration is finished
//	one of them              without "//"       that one: no dump had started
//	–             –          any                refused: "Cannot find raft data set"
func (d *discovery) choose(rocks, eng string) (raftSet, error) {
	marker := d.join(d.l.Dir, migratingMarker)
	r, e := raftSet{RaftRocks, rocks}, raftSet{RaftEngine, eng}
	if rocks == "" && eng == "" {
		return raftSet{}, missingPart(d.l.Dir, fmt.Sprintf("there is no raft data: neither *.raftlog in %s nor CURRENT in %s",
			strings.Join(d.candidates(RaftEngine), ", "), strings.Join(d.candidates(RaftRocks), ", ")),
			"name the raft directory with --raft-dir (raft-engine.dir or raftstore.raftdb-path of TiKV's configuration)")
	}
	both := rocks != "" && eng != ""
	only := r
	if rocks == "" {
		only = e
	}
	source, complete := strings.CutSuffix(d.l.Migrating, "//")
	switch {
	case d.l.Migrating == "" && both:
		return raftSet{}, refused(d.l.Dir, fmt.Sprintf("two raft data sets are there, %s and %s; TiKV refuses too", rocks, eng),
			"find out which one TiKV used last (raft-engine.enable of its configuration, file times) and name it with --raft-dir")
	case d.l.Migrating == "":
		return only, d.checkExpected(only)
	case !complete && both:
		return raftSet{}, refused(marker, "the marker is incomplete, so no raft data was copied yet, but two raft data sets are there",
			"name the right one with --raft-dir")
	case !complete:
		d.warnf("%s is incomplete: TiKV was about to move the raft data and had not started", marker)
		return only, nil
	}
	path := d.resolve(source)
	isRocks, isEngine := d.isSource(path, RaftRocks, rocks), d.isSource(path, RaftEngine, eng)
	switch {
	case isRocks == isEngine:
		return raftSet{}, refused(marker, fmt.Sprintf("TiKV was moving the raft data from %s, which is none of the places known here", source),
			"name the complete raft data set, the one it was moved from, with --raft-dir")
	case isRocks && rocks != "" || isEngine && eng != "":
		if isEngine {
			r, rocks = e, eng
		}
		d.warnf("%s: TiKV was moving the raft data from %s; that side is complete and is used", marker, rocks)
		return r, nil
	case !d.inside(path):
		return raftSet{}, refused(marker, fmt.Sprintf("TiKV was moving the raft data from %s, which has none now: finished, or not mounted", path),
			"mount it, or name the complete raft data set with --raft-dir")
	}
	d.warnf("%s is stale: the raft data was moved from %s and the move is finished", marker, path)
	return only, nil
}

// isSource tells whether the marker's path is the place of kind. Without last_tikv.toml a recorded prefix is not known,
// and the directory's name has to do.
func (d *discovery) isSource(path string, kind RaftKind, found string) bool {
	for _, c := range append(d.candidates(kind), found) {
		if c != "" && (sameDir(d.fs, c, path) || d.recorded == "" && filepath.Base(c) == filepath.Base(path)) {
			return true
		}
	}
	return false
}

// checkExpected compares the set that was found with raft-engine.enable. They may differ: TiKV saves its configuration
// before it moves the data. But when the expected one lies outside and is empty, it may just not be mounted.
func (d *discovery) checkExpected(set raftSet) error {
	c := d.l.Config
	if c == nil || !c.RaftEngine.HasEnable || c.RaftEngine.Enable == (set.kind == RaftEngine) {
		return nil
	}
	other := RaftEngine
	if set.kind == RaftEngine {
		other = RaftRocks
	}
	if want := d.candidates(other)[0]; d.configured(other) && !d.inside(want) {
		return missingPart(d.l.Dir, fmt.Sprintf("last_tikv.toml says that the raft log is %s in %s, which has none, but %s has %s", other, want, set.dir, set.kind),
			"mount the configured directory, or name the right one with --raft-dir")
	}
	d.warnf("raft-engine.enable is %t in last_tikv.toml but the raft data is %s", c.RaftEngine.Enable, set.kind)
	return nil
}

// warnAboutOther mentions a directory of the other kind that holds no data set.
func (d *discovery) warnAboutOther(set raftSet) error {
	other := RaftEngine
	if set.kind == RaftEngine {
		other = RaftRocks
	}
	for _, dir := range d.candidates(other) {
		if !isDir(d.fs, dir) || d.moved && !d.inside(dir) {
			continue
		}
		names, err := list(d.fs, dir)
		if err != nil {
			return err
		}
		if ok, err := d.hasData(other, dir); err != nil {
			return err
		} else if ok {
			continue // the other side of a migration; choose has warned
		}
		nested := len(names) == 1 && sameDir(d.fs, d.join(dir, names[0]), set.dir)
		switch {
		case len(names) == 0:
			d.warnf("%s is empty; the raft data is in %s", dir, set.dir)
		case !nested:
			d.warnf("%s holds no %s data set, only %d other files; the raft data is in %s", dir, other, len(names), set.dir)
		}
	}
	return nil
}
