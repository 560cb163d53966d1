package mvcc

import "encoding/binary"

// Types of a lock record.
const (
	LockPut         byte = 'P'
	LockDelete      byte = 'D'
	LockLock        byte = 'L'
	LockPessimistic byte = 'S'
	LockShared      byte = 'H' // a container of locks, see ParseLocks
)

// Lock is one record of the lock CF: what a transaction that is not finished intends for the key.
//
//	+-----------+---------------------------+------------------+------------+---------------------------
//	| type u8   | primary, compact raw key  | start_ts varint  | ttl varint | tagged fields, each at most
//	| P D L S   | (not memcomparable)       |                  | ms         | once, in this order
//	+-----------+---------------------------+------------------+------------+---------------------------
//	'v' 76 | len u8 | value                    short value
//	'f' 66 | u64 BE                           for_update_ts: the transaction is pessimistic
//	't' 74 | u64 BE                           txn_size
//	'c' 63 | u64 BE                           min_commit_ts
//	'a' 61 | n varint | n x compact raw key   async commit; the primary's lock lists the secondaries, others have n = 0
//	'r' 72 | n varint | n x u64 BE            start_ts of rollbacks that collided with this lock
//	'l' 6C | u64 BE | varint                  last change
//	's' 73 | varint                           txn_source
//	'F' 46                                    locked with conflict (pessimistic)
//	'g' 67 | u64 BE                           generation (pipelined DML)
//	other                                     kept as Tail, like in a write record
//
// A record may end after start_ts: then ttl is 0 (very old ones). Numeric fields that are 0 and an empty 'r' list are not
// written. Source: tikv components/txn_types/src/lock.rs (Lock::parse, to_bytes), master.
type Lock struct {
	Type               byte // LockPut, LockDelete, LockLock or LockPessimistic
	Primary            []byte
	StartTS            TS
	NoTTL              bool   // the record ended before ttl
	TTL                uint64 // ms
	ShortValue         []byte
	HasShortValue      bool
	ForUpdateTS        TS
	TxnSize            uint64
	MinCommitTS        TS
	AsyncCommit        bool
	Secondaries        [][]byte // raw user keys
	RollbackTS         []TS
	LastChange         LastChange
	TxnSource          uint64
	LockedWithConflict bool
	Generation         uint64
	Tail               []byte
}

// NeedsDefault reports whether the lock's value is in the default CF, in the row (key, StartTS).
func (l Lock) NeedsDefault() bool { return l.Type == LockPut && !l.HasShortValue }

// Pessimistic reports a lock that only protects a key and holds no data: it was not prewritten.
func (l Lock) Pessimistic() bool { return l.Type == LockPessimistic }

const lockWhat = "lock record"

// ParseLock decodes a lock-CF value that is not shared; a shared one is refused, use ParseLocks. Slices alias b.
func ParseLock(b []byte) (Lock, error) {
	r := reader{what: lockWhat, b: b}
	l := Lock{Type: r.u8("type")}
	if r.err == nil {
		switch l.Type {
		case LockPut, LockDelete, LockLock, LockPessimistic:
		case LockShared:
			return Lock{}, formatErr(lockWhat, 0, "a shared lock where a single one is expected")
		default:
			return Lock{}, formatErr(lockWhat, 0, "unknown type %#x", l.Type)
		}
	}
	l.Primary = r.compact("primary")
	l.StartTS = TS(r.varint("start_ts"))
	if !r.more() {
		l.NoTTL = true
	} else {
		l.TTL = r.varint("ttl")
	}
	for r.more() {
		l.field(&r, r.u8("tag"))
	}
	if r.err != nil {
		return Lock{}, r.err
	}
	return l, nil
}

func (l *Lock) field(r *reader, tag byte) {
	switch tag {
	case 'v':
		l.ShortValue = r.bytes("short value", uint64(r.u8("length of the short value")))
		l.HasShortValue = true
	case 'f':
		l.ForUpdateTS = TS(r.u64("for_update_ts"))
	case 't':
		l.TxnSize = r.u64("txn_size")
	case 'c':
		l.MinCommitTS = TS(r.u64("min_commit_ts"))
	case 'a':
		l.AsyncCommit = true
		n := r.count("number of secondaries", 1)
		l.Secondaries = nil
		for i := 0; i < n && r.err == nil; i++ {
			l.Secondaries = append(l.Secondaries, r.compact("secondary"))
		}
	case 'r':
		n := r.count("number of rollback_ts", 8)
		l.RollbackTS = nil
		for range n {
			l.RollbackTS = append(l.RollbackTS, TS(r.u64("rollback_ts")))
		}
	case 'l':
		l.LastChange = r.lastChange()
	case 's':
		l.TxnSource = r.varint("txn_source")
	case 'F':
		l.LockedWithConflict = true
	case 'g':
		l.Generation = r.u64("generation")
	default:
		l.Tail = r.b[r.off-1:]
		r.off = len(r.b)
	}
}

// Append appends the record as TiKV writes it: the exact inverse of ParseLock for every record that TiKV wrote.
func (l Lock) Append(dst []byte) []byte {
	dst = appendCompact(append(dst, l.Type), l.Primary)
	dst = binary.AppendUvarint(dst, uint64(l.StartTS))
	if l.NoTTL {
		return dst
	}
	dst = binary.AppendUvarint(dst, l.TTL)
	if l.HasShortValue {
		dst = append(append(dst, 'v', byte(len(l.ShortValue))), l.ShortValue...)
	}
	dst = appendTagged(dst, 'f', uint64(l.ForUpdateTS))
	dst = appendTagged(dst, 't', l.TxnSize)
	dst = appendTagged(dst, 'c', uint64(l.MinCommitTS))
	if l.AsyncCommit {
		dst = binary.AppendUvarint(append(dst, 'a'), uint64(len(l.Secondaries)))
		for _, k := range l.Secondaries {
			dst = appendCompact(dst, k)
		}
	}
	if len(l.RollbackTS) > 0 {
		dst = binary.AppendUvarint(append(dst, 'r'), uint64(len(l.RollbackTS)))
		for _, ts := range l.RollbackTS {
			dst = binary.BigEndian.AppendUint64(dst, uint64(ts))
		}
	}
	dst = l.LastChange.append(dst)
	if l.TxnSource != 0 {
		dst = binary.AppendUvarint(append(dst, 's'), l.TxnSource)
	}
	if l.LockedWithConflict {
		dst = append(dst, 'F')
	}
	dst = appendTagged(dst, 'g', l.Generation)
	return append(dst, l.Tail...)
}

func appendTagged(dst []byte, tag byte, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint64(append(dst, tag), v)
}

// CommitRecord is the write record that TiKV would have put at commitTS for this lock. The lock goes; the default row of a
// Put without a short value stays and becomes the value of the version.
//
// The overlapped-rollback flag is set exactly when a rolled-back transaction started at commitTS, because then its Rollback
// record at the same key and timestamp is overwritten. A last change at or above commitTS would make readers skip to a
// version that the rewind removed; such a field becomes Unknown. Not for pessimistic or shared locks.
// Source: tikv src/storage/txn/actions/commit.rs, master.
func (l Lock) CommitRecord(commitTS TS) Write {
	w := Write{
		Type:          l.Type,
		StartTS:       l.StartTS,
		ShortValue:    l.ShortValue,
		HasShortValue: l.HasShortValue,
		LastChange:    l.LastChange,
		TxnSource:     l.TxnSource,
	}
	if w.LastChange.TS >= commitTS {
		w.LastChange = LastChange{}
	}
	for _, ts := range l.RollbackTS {
		if ts == commitTS {
			w.OverlappedRollback = true
		}
	}
	return w
}
