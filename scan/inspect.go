package scan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// Inspection is what a directory is, in one object.
type Inspection struct {
	Dir        string         `json:"dir"`
	Kind       string         `json:"kind"` // "tikv"
	ClusterID  uint64         `json:"cluster_id"`
	StoreID    uint64         `json:"store_id"`
	APIVersion string         `json:"api_version"`
	RawData    RawMode        `json:"raw_data"`
	Line       Line           `json:"rocksdb_line"`
	KV         Database       `json:"kv_db"`
	Raft       RaftInfo       `json:"raft_store"`
	Titan      *TitanInfo     `json:"titan,omitempty"`
	Regions    RegionSummary  `json:"regions"`
	Newest     mvcc.TS        `json:"newest_commit_ts"`
	NewestTime string         `json:"newest_commit_time,omitempty"`
	Locks      LockSummary    `json:"locks"`
	PanicMark  *PanicMarkInfo `json:"panic_mark,omitempty"`
	Backups    []BackupInfo   `json:"backups"`
	Migrating  string         `json:"migrating_raft,omitempty"`
	Warnings   []string       `json:"warnings"`
	// Unreadable are the parts that could not be read, with the reason; the numbers of such a part are zero.
	Unreadable []string `json:"unreadable"`
}

// Line is the RocksDB that wrote the store, and the TiKV releases that have it.
type Line struct {
	Version  string `json:"version,omitempty"` // as OPTIONS has it
	Dialect  string `json:"dialect"`           // 6.4, 6.29, 8.10; "unknown"
	TiKV     string `json:"tikv,omitempty"`
	Evidence string `json:"evidence"`
}

// Database describes a RocksDB.
type Database struct {
	Dir      string   `json:"dir"`
	Manifest string   `json:"manifest"`
	LastSeq  uint64   `json:"last_sequence"`
	CFs      []CFInfo `json:"column_families"`
	WAL      WALInfo  `json:"wal"`
}

// CFInfo describes a column family.
type CFInfo struct {
	Name       string      `json:"name"`
	Files      int         `json:"files"`
	Bytes      uint64      `json:"bytes"`
	Levels     []LevelInfo `json:"levels"` // only those with files
	LogRecords int         `json:"log_records"`
}

// LevelInfo counts the files of a level.
type LevelInfo struct {
	Level int    `json:"level"`
	Files int    `json:"files"`
	Bytes uint64 `json:"bytes"`
}

// WALInfo describes the write-ahead logs of a RocksDB.
type WALInfo struct {
	Dir      string   `json:"dir"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Skipped  int      `json:"obsolete_files"` // everything in them is in tables
	Records  uint64   `json:"replayable_records"`
	TornTail bool     `json:"torn_tail"` // the last record is cut off, as a killed process leaves it
	Problems []string `json:"problems"`
}

// RaftInfo describes the raft store.
type RaftInfo struct {
	Kind    engine.RaftKind `json:"kind"`
	Dir     string          `json:"dir"`
	Regions int             `json:"regions"`
	Entries uint64          `json:"entries"`
	// RecoveryMode is raft-engine.recovery-mode of last_tikv.toml when it is not TiKV's default.
	RecoveryMode raftlog.Mode `json:"recovery_mode,omitempty"`
	DB           *Database    `json:"raft_db,omitempty"` // raft RocksDB only
}

// TitanInfo counts blob files.
type TitanInfo struct {
	Dir   string `json:"dir"`
	Files int    `json:"files"`
	Bytes uint64 `json:"bytes"`
}

// RegionSummary counts regions by state.
type RegionSummary struct {
	Total   int            `json:"total"`
	ByState map[string]int `json:"by_state"`
	// Leaderless roles and oddities worth a look.
	Joint     int `json:"joint,omitempty"`
	Learners  int `json:"learner_peers_here,omitempty"`
	Witnesses int `json:"witness_peers_here,omitempty"`
	Flashback int `json:"in_flashback,omitempty"`
	NoPeer    int `json:"without_peer_here,omitempty"` // live regions whose descriptor does not list this store
}

// LockSummary counts locks.
type LockSummary struct {
	Keys         int            `json:"keys"`
	Transactions int            `json:"transactions"`
	ByType       map[string]int `json:"by_type"`
	AsyncCommit  int            `json:"async_commit"`
	Oldest       mvcc.TS        `json:"oldest_start_ts,omitempty"`
	OldestTime   string         `json:"oldest_start_time,omitempty"`
	Newest       mvcc.TS        `json:"newest_start_ts,omitempty"`
	NewestTime   string         `json:"newest_start_time,omitempty"`
}

// PanicMarkInfo is the file that keeps TiKV from starting.
type PanicMarkInfo struct {
	PlanID string `json:"plan_id,omitempty"` // of our plan; absent: TiKV or somebody else wrote it
	Text   string `json:"text,omitempty"`
}

// BackupInfo is one repair of ours.
type BackupInfo struct {
	PlanID  string `json:"plan_id"`
	Verb    string `json:"verb"`
	State   string `json:"state"`
	Started string `json:"started"`
	Bytes   int64  `json:"bytes"`
}

// Inspect describes an opened store. A part that cannot be read is named in Unreadable and does not hide the others.
func (s *Store) Inspect() *Inspection {
	l := s.Layout
	in := &Inspection{
		Dir: l.Dir, Kind: "tikv", ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID, APIVersion: s.Ident.APIVersion.String(),
		Line: s.Line(), KV: describeDB(s.DB), Regions: s.regionSummary(), Migrating: l.Migrating,
		Backups: []BackupInfo{}, Warnings: append([]string{}, l.Warnings...), Unreadable: []string{},
	}
	fail := func(part string, err error) {
		if err != nil {
			in.Unreadable = append(in.Unreadable, part+": "+err.Error())
		}
	}
	var err error
	in.RawData, err = s.RawMode()
	fail("raw data", err)
	in.Newest, err = s.NewestCommit()
	in.NewestTime = Time(in.Newest)
	fail("newest commit", err)
	in.Locks, err = s.lockSummary()
	fail("locks", err)
	in.Raft, err = s.raftInfo()
	fail("raft store", err)
	if s.Titan != nil {
		in.Titan = &TitanInfo{Dir: l.TitanDir}
		for _, f := range s.Titan.Manifest().Files {
			in.Titan.Files++
			in.Titan.Bytes += f.Size
		}
	}
	fence, err := engine.ReadFence(s.FS, l.Dir)
	fail(engine.PanicMark, err)
	if fence != nil {
		in.PanicMark = &PanicMarkInfo{PlanID: fence.PlanID, Text: string(fence.Raw)}
	}
	txs, err := edit.List(s.FS, l.Dir)
	fail("backups", err)
	for _, t := range txs {
		in.Backups = append(in.Backups, BackupInfo{t.J.PlanID, t.J.Verb, string(t.J.State), t.J.Started, t.Bytes()})
	}
	return in
}

// Line tells which RocksDB wrote the store: OPTIONS says so; without it the form of the MANIFEST does, as far as it goes.
// The releases are those of TiKV's Cargo.lock, by RocksDB version.
func (s *Store) Line() Line {
	if o := s.Layout.Options; o != nil && o.RocksDBVersion != "" {
		l := Line{Version: o.RocksDBVersion, Dialect: "unknown", Evidence: "rocksdb_version in " + s.Layout.OptionsFile}
		for _, d := range dialects {
			if strings.HasPrefix(o.RocksDBVersion+".", d.name+".") {
				l.Dialect, l.TiKV = d.name, d.tikv
			}
		}
		return l
	}
	l := Line{Dialect: "unknown", Evidence: "there is no OPTIONS file, and the MANIFEST does not tell"}
	for _, cf := range s.DB.State.CFs {
		for _, files := range cf.Levels {
			for _, f := range files {
				switch {
				case f.Epoch != 0:
					return Line{Dialect: "8.10", TiKV: dialects[2].tikv, Evidence: "epoch numbers in " + s.DB.State.Path}
				case f.ChecksumFunc != "":
					l = Line{Dialect: "6.29", TiKV: dialects[1].tikv, Evidence: "file checksums in " + s.DB.State.Path}
				}
			}
		}
	}
	return l
}

var dialects = []struct{ name, tikv string }{
	{"6.4", "before 6.3"},
	{"6.29", "6.3 to 8.3"},
	{"8.10", "8.4 and later"},
}

func describeDB(db *rocks.DB) Database {
	d := Database{Dir: db.Dir, Manifest: db.State.Path, LastSeq: db.LastSeq, CFs: []CFInfo{}, WAL: describeWAL(db.WALDir, db.Log)}
	for _, name := range db.Names() {
		cf := db.CF(name)
		c := CFInfo{Name: name, Levels: []LevelInfo{}, LogRecords: cf.Log().Len()}
		var levels [manifest.NumLevels]LevelInfo
		for _, f := range cf.Files() {
			c.Files++
			c.Bytes += f.Size
			levels[f.Level].Files++
			levels[f.Level].Bytes += f.Size
		}
		for i, lv := range levels {
			if lv.Files > 0 {
				lv.Level = i
				c.Levels = append(c.Levels, lv)
			}
		}
		d.CFs = append(d.CFs, c)
	}
	return d
}

func describeWAL(dir string, r *wal.Report) WALInfo {
	w := WALInfo{Dir: dir, TornTail: r.TornTail, Records: r.Emitted, Problems: []string{}}
	for _, l := range r.Logs {
		w.Files++
		w.Bytes += l.Size
		if l.Skipped {
			w.Skipped++
		}
	}
	for _, p := range r.Problems {
		w.Problems = append(w.Problems, p.Error())
	}
	return w
}

func (s *Store) raftInfo() (RaftInfo, error) {
	info := RaftInfo{Kind: s.Layout.Raft, Dir: s.Layout.RaftDir}
	if r := s.RaftReport; r != nil && r.Mode != raftlog.TolerateTail {
		info.RecoveryMode = r.Mode
	}
	if s.Raft == nil {
		return info, nil
	}
	if s.raftDB != nil {
		d := describeDB(s.raftDB)
		info.DB = &d
	}
	ids, err := s.Raft.Regions()
	if err != nil {
		return info, err
	}
	info.Regions = len(ids)
	for _, id := range ids {
		first, last, ok, err := s.Raft.Bounds(id)
		if err != nil {
			return info, err
		}
		if ok {
			info.Entries += last - first + 1
		}
	}
	return info, nil
}

func (s *Store) regionSummary() RegionSummary {
	r := RegionSummary{Total: len(s.Regions), ByState: map[string]int{}}
	for _, g := range s.Regions {
		r.ByState[g.State.State.String()]++
		if !g.Live() {
			continue
		}
		d := g.State.Region
		if d.IsJoint() {
			r.Joint++
		}
		if d.IsInFlashback {
			r.Flashback++
		}
		p, ok := d.PeerOn(s.Ident.StoreID)
		switch {
		case !ok:
			r.NoPeer++
		case p.IsWitness:
			r.Witnesses++
		case strings.Contains(strings.ToLower(p.Role.String()), "learner"):
			r.Learners++
		}
	}
	return r
}

func (s *Store) lockSummary() (LockSummary, error) {
	sum := LockSummary{ByType: map[string]int{}}
	var txns distinct
	err := s.EachLock(func(l LockAt) error {
		sum.Keys++
		for _, one := range l.Locks {
			name := typeName(one.Type)
			if l.Shared {
				name = "shared " + name
			}
			sum.ByType[name]++
			if one.AsyncCommit {
				sum.AsyncCommit++
			}
			txns.add(one.Primary, uint64(one.StartTS))
			if sum.Oldest == 0 || one.StartTS < sum.Oldest {
				sum.Oldest = one.StartTS
			}
			sum.Newest = max(sum.Newest, one.StartTS)
		}
		return nil
	})
	sum.Transactions = txns.count()
	sum.OldestTime, sum.NewestTime = Time(sum.Oldest), Time(sum.Newest)
	return sum, err
}

// distinct counts different transactions by their hashes, 8 bytes each: there can be millions.
type distinct struct {
	hashes []uint64
	sorted int // so many of hashes are in order, each once
}

func (d *distinct) add(primary []byte, start uint64) {
	if len(d.hashes) >= 2*d.sorted+4096 {
		d.compact()
	}
	d.hashes = append(d.hashes, xxh3.HashSeed(primary, start))
}

func (d *distinct) compact() {
	slices.Sort(d.hashes)
	d.hashes = slices.Compact(d.hashes)
	d.sorted = len(d.hashes)
}

func (d *distinct) count() int {
	d.compact()
	return len(d.hashes)
}

// Text is the form for people.
func (in *Inspection) Text() string {
	var b strings.Builder
	p := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s %s\n", name, fmt.Sprintf(format, args...))
	}
	p("directory", "%s", in.Dir)
	p("cluster, store", "%d, %d", in.ClusterID, in.StoreID)
	p("API version", "%s%s", in.APIVersion, map[bool]string{true: ", raw data " + in.RawData.String()}[in.RawData != RawNone])
	p("RocksDB", "%s (TiKV %s; %s)", orUnknown(in.Line.Version, in.Line.Dialect), orUnknown(in.Line.TiKV), in.Line.Evidence)
	writeDB(&b, p, "key-value db", in.KV)
	p("raft store", "%s in %s: %s, %s", in.Raft.Kind, in.Raft.Dir, plural(in.Raft.Regions, "region"), pluralY(in.Raft.Entries, "entr"))
	if m := in.Raft.RecoveryMode; m != "" {
		p("recovery mode", "%s (%s of %s)", m, raftlog.ModeSetting, engine.LastConfig)
	}
	if in.Raft.DB != nil {
		writeDB(&b, p, "raft db", *in.Raft.DB)
	}
	if in.Titan != nil {
		p("Titan", "%s, %d bytes in %s", plural(in.Titan.Files, "blob file"), in.Titan.Bytes, in.Titan.Dir)
	}
	p("regions", "%s", in.Regions)
	if in.Newest == 0 {
		p("newest commit", "none")
	} else {
		p("newest commit", "%s = %s", in.Newest, in.NewestTime)
	}
	p("locks", "%s", in.Locks)
	if m := in.PanicMark; m != nil && m.PlanID != "" {
		p("fenced", "by plan %s: TiKV does not start", m.PlanID)
	} else if m != nil {
		p("panic mark", "%q: TiKV does not start while %s exists", m.Text, engine.PanicMark)
	}
	for _, k := range in.Backups {
		p("repair", "%s %s, %s, started %s, %d bytes", k.Verb, k.PlanID, k.State, k.Started, k.Bytes)
	}
	if in.Migrating != "" {
		p("migrating", "between raft stores: %q", in.Migrating)
	}
	for _, w := range in.Warnings {
		p("warning", "%s", w)
	}
	for _, u := range in.Unreadable {
		p("unreadable", "%s", u)
	}
	return b.String()
}
