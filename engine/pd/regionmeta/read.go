// Package regionmeta reads region-meta/, PD's cache of region descriptors (docs/formats/pd-data.md section 9): a LevelDB that can be
// rebuilt, and that after a crash can lack regions, have holes and hold descriptors that others have superseded. It tells what ids
// and epochs PD had seen; it never tells that these are the newest.
package regionmeta

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/syndtr/goleveldb/leveldb"
	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Dir is the name of the directory in PD's data directory.
const Dir = "region-meta"

// Family tells the two forms of region keys apart. A PD sees only those of its own: docs/formats/pd-data.md section 9.
type Family string

// The families of keys.
const (
	// FamilyShort is raft/r/%020d: PD up to 8.5.
	FamilyShort Family = "raft/r/"
	// FamilyLong is /pd/<cluster id>/raft/r/%020d: PD 9.0 and its betas.
	FamilyLong Family = "/pd/<cluster-id>/raft/r/"
)

// Record is one region descriptor of the cache.
type Record struct {
	Family    Family           `json:"family"`
	ClusterID uint64           `json:"cluster_id,omitempty"` // of the key; FamilyLong only
	Region    raftstate.Region `json:"region"`
}

// Meta is the content of region-meta.
type Meta struct {
	Dir string `json:"dir"`
	// Records are all descriptors, by family, cluster and region id. Nothing is sorted out: superseded ones are here too.
	Records []Record `json:"records"`
	// HistoryIndex is the position of PD's region syncer; 0 until 100 changes have been written.
	HistoryIndex uint64 `json:"history_index,omitempty"`
	// Unknown are keys of no known form.
	Unknown []string `json:"unknown_keys,omitempty"`
	// Damage says what did not read cleanly, in sentences; what PD itself would start with can be less than Records, or older.
	// A log that was cut between two records looks whole.
	Damage []string `json:"damage,omitempty"`
}

// Read reads the whole database without writing a byte. It gives nil without an error when there is no region-meta in pdDir. The
// caller holds the lock on region-meta/LOCK. A torn or damaged log is read as far as it goes, and Damage says so. Errors have class
// ErrCorrupt when nothing can be read, or a record does not decode, and ErrUnsupported when the keys of regions are encrypted.
func Read(fs base.FS, pdDir string) (*Meta, error) {
	dir := fs.PathJoin(pdDir, Dir)
	if ok, err := base.Exists(fs, dir); err != nil || !ok {
		return nil, err
	}
	m := &Meta{Dir: dir, Records: []Record{}}
	strict := opt.StrictAll
	err := m.scan(fs, strict)
	if isDamage(err) {
		// What PD does with such a directory: skip what does not check, and go on.
		m.Damage = append(m.Damage, sentence(err))
		err = m.scan(fs, opt.StrictJournalChecksum|opt.StrictBlockChecksum)
	}
	if err != nil {
		return nil, classed(dir, err)
	}
	return m, nil
}

// isDamage tells bytes that do not check from everything else that may go wrong.
func isDamage(err error) bool {
	return ldberrors.IsCorrupted(err) || errors.Is(err, base.ErrCorrupt)
}

func sentence(err error) string {
	var e *base.Error
	if errors.As(err, &e) {
		return e.Error()
	}
	return "LevelDB: " + err.Error()
}

// classed gives an error of goleveldb its class.
func classed(dir string, err error) error {
	var e *base.Error
	switch {
	case errors.As(err, &e):
		return err
	case ldberrors.IsCorrupted(err), errors.Is(err, os.ErrNotExist):
		return &base.Error{Class: base.ErrCorrupt, Op: "read", Path: dir, Offset: -1, Err: err,
			Next: "region-meta is a cache: PD does without it and fills it again from heartbeats"}
	}
	return base.IO("read", dir, err)
}

// scan fills m anew.
func (m *Meta) scan(fs base.FS, strict opt.Strict) (err error) {
	st := &readOnly{fs: fs, dir: m.Dir}
	m.Records, m.Unknown, m.HistoryIndex = []Record{}, nil, 0
	defer func() {
		// A library that meets bytes which it does not expect must not take the tool down: the rest of PD's directory is still good.
		if r := recover(); r != nil {
			err = base.Corruptf(m.Dir, -1, "LevelDB does not decode: %v", r)
		}
	}()
	db, err := leveldb.Open(st, &opt.Options{ReadOnly: true, ErrorIfMissing: true, Strict: strict, DisableBlockCache: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignoreClosed(db.Close())) }()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		if err := m.add(string(it.Key()), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	m.Damage = append(m.Damage, st.losses()...)
	slices.SortStableFunc(m.Records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.ClusterID, b.ClusterID), cmp.Compare(a.Region.ID, b.Region.ID))
	})
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, leveldb.ErrClosed) {
		return nil
	}
	return err
}

const historyKey = "historyIndex"

// ParseKey reads a region key of either family; ok is false for any other key.
//
//	raft/r/%020d                      region id, decimal, 20 digits
//	/pd/%d/raft/r/%020d               cluster id, decimal; region id
//
// Source: tikv/pd pkg/utils/keypath/key_path.go (release-8.5), pkg/utils/keypath/absolute_key_path.go (master).
func ParseKey(key string) (f Family, cluster, id uint64, ok bool) {
	rest, short := strings.CutPrefix(key, string(FamilyShort))
	f = FamilyShort
	if !short {
		f = FamilyLong
		after, isPD := strings.CutPrefix(key, "/pd/")
		num, tail, _ := strings.Cut(after, "/")
		var isRegion bool
		if rest, isRegion = strings.CutPrefix(tail, "raft/r/"); !isPD || !isRegion {
			return f, 0, 0, false
		}
		var err error
		if cluster, err = strconv.ParseUint(num, 10, 64); err != nil {
			return f, 0, 0, false
		}
	}
	id, err := strconv.ParseUint(rest, 10, 64)
	return f, cluster, id, err == nil && len(rest) == 20
}

func (m *Meta) add(key string, value []byte) error {
	if key == historyKey {
		n, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			m.Unknown = append(m.Unknown, fmt.Sprintf("%s = %q", key, value))
			return nil
		}
		m.HistoryIndex = n
		return nil
	}
	f, cluster, id, ok := ParseKey(key)
	if !ok {
		m.Unknown = append(m.Unknown, fmt.Sprintf("%q", key))
		return nil
	}
	// Only PD's copy of a descriptor has field 6, the key and iv with which its range is encrypted.
	var enc metapb.Region
	if err := enc.Unmarshal(value); err != nil {
		return base.Corruptf(m.Dir, -1, "the descriptor of region %d (key %q): %v", id, key, err)
	}
	if enc.EncryptionMeta != nil {
		return &base.Error{Class: base.ErrUnsupported, Op: "read", Path: m.Dir, Offset: -1, Region: id,
			Reason: fmt.Sprintf("PD's region-meta is encrypted (data key %d), which is not supported", enc.EncryptionMeta.KeyId),
			Next:   "the ranges of regions are taken from the TiKV stores alone; everything else in PD's directory is read"}
	}
	r, err := raftstate.ParseRegion(value)
	if err != nil {
		return base.Corruptf(m.Dir, -1, "the descriptor of region %d (key %q): %v", id, key, err)
	}
	if r.ID != id {
		return base.Corruptf(m.Dir, -1, "key %q holds the descriptor of region %d", key, r.ID)
	}
	m.Records = append(m.Records, Record{Family: f, ClusterID: cluster, Region: r})
	return nil
}
