package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/bolt"
)

// A key of bucket "key" is a revision (etcd v3.5.15 server/mvcc/revision.go); one transaction has one main, its changes are numbered
// by sub from 0:
//
//	+----------+-----+----------+-----------------------------+
//	| main     | '_' | sub      | 't', only when it is a      |
//	| u64be    |     | u64be    | deletion (tombstone)        |
//	+----------+-----+----------+-----------------------------+
const (
	revisionLen  = 17
	tombstoneLen = 18
)

type revision struct {
	main, sub int64
	tombstone bool
}

func decodeRevision(b []byte) (r revision, ok bool) {
	if len(b) != revisionLen && len(b) != tombstoneLen || b[8] != '_' || len(b) == tombstoneLen && b[17] != 't' {
		return r, false
	}
	r = revision{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[9:])), len(b) == tombstoneLen}
	return r, r.main >= 0 && r.sub >= 0
}

// backend is what a backend file holds.
type backend struct {
	*machine
	consistent uint64 // index of the last entry applied to the file
	term       uint64 // of that entry; 0 when etcd is older than 3.5
	version    string // cluster version
	authOn     bool
	// compactedAll is the revision of the last compaction that was finished; below compacted: one was cut short.
	compactedAll int64
	bucket       map[string][]byte // bucket members: what newer versions of etcd will trust
	notes        []error
}

// readBackend scans the whole file. Errors: ErrCorrupt, ErrUnsupported, ErrIO.
func readBackend(fs base.FS, path string) (*backend, error) {
	f, err := bolt.Open(fs, path)
	if err != nil {
		return nil, err
	}
	b := &backend{machine: newMachine(), bucket: map[string][]byte{}, notes: f.Notes}
	r := backendReader{backend: b, path: path}
	err = errors.Join(f.Each(r.record), f.Close())
	if err != nil {
		return nil, err
	}
	// A database that was made and never committed to has nothing in it.
	if !r.hasIndex && r.live != nil {
		return nil, base.Corruptf(path, 0, "bucket meta has no consistent_index: which entries are in the file is not known")
	}
	b.fill(r.live)
	return b, nil
}

// ReadBackend reads one backend file alone, without the log: a member's snap/db, or a file that "etcdctl snapshot save" wrote. View.Index
// is its consistent index; View.Members is the file's own list, which etcd 3.4 and 3.5 do not use. It takes no lock. notes are damages
// that did not keep it from being read. Errors: ErrCorrupt, ErrUnsupported, ErrIO.
func ReadBackend(fs base.FS, path string) (v *View, notes []error, err error) {
	b, err := readBackend(fs, path)
	if err != nil {
		return nil, nil, err
	}
	members, err := fromBucket(b.bucket)
	if err != nil {
		return nil, nil, base.Corruptf(path, 0, "bucket members: %v", err)
	}
	v = b.view(b.consistent)
	v.Members = members.list()
	return v, b.notes, nil
}

// backendReader takes the records one by one.
type backendReader struct {
	*backend
	path     string
	live     map[string]KV
	hasIndex bool
}

// record takes one record of one bucket (etcd v3.5.15 server/mvcc/buckets/bucket.go).
func (r *backendReader) record(bucket string, key, value []byte, at int64) error {
	bad := func(what string) error {
		return base.Corruptf(r.path, at, "bucket %s: %s (key %X)", bucket, what, key[:min(len(key), 64)])
	}
	switch bucket {
	case "key":
		return r.keyRecord(key, value, at)
	case "meta":
		return r.metaRecord(string(key), value, at)
	case "lease":
		l, err := decodeLease(value)
		if err != nil || len(key) != 8 || l.ID != int64(binary.BigEndian.Uint64(key)) {
			return bad("a lease that does not decode")
		}
		r.leases[l.ID] = l
	case "alarm":
		a, err := decodeAlarm(key)
		if err != nil {
			return bad("an alarm that does not decode")
		}
		r.alarms[a] = true
	case "members":
		r.bucket[string(key)] = bytes.Clone(value)
	case "cluster":
		if string(key) == "clusterVersion" {
			r.version = string(value)
		}
	case "auth":
		// etcd v3.5.15 server/auth/store.go: authEnabled is one byte.
		if string(key) == "authEnabled" && bytes.Equal(value, []byte{1}) {
			r.authOn = true
		}
	}
	return nil
}

func (r *backendReader) keyRecord(key, value []byte, at int64) error {
	rev, ok := decodeRevision(key)
	if !ok {
		return base.Corruptf(r.path, at, "bucket key: %X is no revision", key[:min(len(key), 64)])
	}
	kv, err := decodeKeyValue(value)
	switch {
	case err != nil:
		return base.Corruptf(r.path, at, "revision %d.%d: %v", rev.main, rev.sub, err)
	case len(kv.Key) == 0:
		return base.Corruptf(r.path, at, "revision %d.%d has no key", rev.main, rev.sub)
	case !rev.tombstone && (kv.Mod != rev.main || kv.Create > kv.Mod || kv.Create <= 0 || kv.Version <= 0):
		return base.Corruptf(r.path, at, "revision %d.%d of key %q says create %d, mod %d, version %d", rev.main, rev.sub, kv.Key, kv.Create, kv.Mod, kv.Version)
	}
	r.revision = max(r.revision, rev.main)
	if r.live == nil {
		r.live = map[string]KV{}
	}
	if rev.tombstone {
		delete(r.live, string(kv.Key))
		return nil
	}
	kv.Key, kv.Value = bytes.Clone(kv.Key), bytes.Clone(kv.Value)
	r.live[string(kv.Key)] = kv
	return nil
}

func (r *backendReader) metaRecord(key string, value []byte, at int64) error {
	switch key {
	case "consistent_index", "term":
		if len(value) != 8 {
			return base.Corruptf(r.path, at, "bucket meta: %s has %d bytes", key, len(value))
		}
		v := binary.BigEndian.Uint64(value)
		if key == "term" {
			r.term = v
		} else {
			r.consistent, r.hasIndex = v, true
		}
	case "finishedCompactRev", "scheduledCompactRev":
		rev, ok := decodeRevision(value)
		if !ok {
			return base.Corruptf(r.path, at, "bucket meta: %s is %X", key, value[:min(len(value), 64)])
		}
		// A compaction that was cut short goes on at the next start: its revision is compacted either way.
		r.compacted = max(r.compacted, rev.main)
		r.revision = max(r.revision, rev.main)
		if key == "finishedCompactRev" {
			r.compactedAll = rev.main
		}
	}
	return nil
}
