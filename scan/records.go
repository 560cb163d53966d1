package scan

import (
	"strconv"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// WriteView is a write record as it is printed. Timestamps have their RFC 3339 form beside them.
type WriteView struct {
	CommitTS   mvcc.TS `json:"commit_ts"` // of a rollback: its start_ts
	CommitTime string  `json:"commit_time"`
	Type       string  `json:"type"` // put, delete, lock, rollback
	StartTS    mvcc.TS `json:"start_ts"`
	StartTime  string  `json:"start_time"`
	ShortValue *string `json:"short_value,omitempty"` // upper-case hex
	// ValueMissing: the value should be in the default column family and is not.
	ValueMissing       bool     `json:"value_missing,omitempty"`
	Protected          bool     `json:"protected,omitempty"`
	OverlappedRollback bool     `json:"overlapped_rollback,omitempty"`
	GCFence            *mvcc.TS `json:"gc_fence,omitempty"`
	GCFenceTime        string   `json:"gc_fence_time,omitempty"`
	LastChangeTS       *mvcc.TS `json:"last_change_ts,omitempty"` // 0: there is none
	VersionsToChange   uint64   `json:"versions_to_last_change,omitempty"`
	TxnSource          uint64   `json:"txn_source,omitempty"`
	Unknown            string   `json:"unknown_fields,omitempty"` // upper-case hex
	Raw                string   `json:"raw,omitempty"`            // of a record that does not decode
	Error              string   `json:"error,omitempty"`
}

func viewWrite(commit mvcc.TS, value []byte) WriteView {
	v := WriteView{CommitTS: commit, CommitTime: Time(commit)}
	w, err := mvcc.ParseWrite(value)
	if err != nil {
		v.Error, v.Raw = err.Error(), upperHex(value)
		return v
	}
	v.Type, v.StartTS, v.StartTime = typeName(w.Type), w.StartTS, Time(w.StartTS)
	v.Protected, v.OverlappedRollback, v.TxnSource, v.Unknown = w.Protected(), w.OverlappedRollback, w.TxnSource, upperHex(w.Tail)
	if w.HasShortValue && !v.Protected {
		s := upperHex(w.ShortValue)
		v.ShortValue = &s
	}
	if w.HasGCFence {
		v.GCFence, v.GCFenceTime = &w.GCFence, Time(w.GCFence)
	}
	if w.LastChange.Known() {
		v.LastChangeTS, v.VersionsToChange = &w.LastChange.TS, w.LastChange.Versions
	}
	return v
}

var typeNames = map[byte]string{
	mvcc.WritePut: "put", mvcc.WriteDelete: "delete", mvcc.WriteLock: "lock", mvcc.WriteRollback: "rollback",
	mvcc.LockPessimistic: "pessimistic", mvcc.LockShared: "shared",
}

func typeName(t byte) string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return strconv.QuoteRune(rune(t))
}

// LockView is a lock as it is printed.
type LockView struct {
	Type           string        `json:"type"` // put, delete, lock, pessimistic
	Shared         bool          `json:"shared,omitempty"`
	Primary        string        `json:"primary"` // user key, upper-case hex
	PrimaryDecoded *mvcc.KeyInfo `json:"primary_decoded,omitempty"`
	IsPrimary      bool          `json:"is_primary,omitempty"`
	StartTS        mvcc.TS       `json:"start_ts"`
	StartTime      string        `json:"start_time"`
	TTL            uint64        `json:"ttl_ms"`
	ShortValue     *string       `json:"short_value,omitempty"`
	ValueMissing   bool          `json:"value_missing,omitempty"`
	ForUpdateTS    mvcc.TS       `json:"for_update_ts,omitempty"`
	ForUpdateTime  string        `json:"for_update_time,omitempty"`
	MinCommitTS    mvcc.TS       `json:"min_commit_ts,omitempty"`
	MinCommitTime  string        `json:"min_commit_time,omitempty"`
	TxnSize        uint64        `json:"txn_size,omitempty"`
	AsyncCommit    bool          `json:"async_commit,omitempty"`
	Secondaries    []string      `json:"secondaries,omitempty"` // user keys, upper-case hex
	RollbackTS     []mvcc.TS     `json:"rollback_ts,omitempty"`
	LastChangeTS   *mvcc.TS      `json:"last_change_ts,omitempty"`
	TxnSource      uint64        `json:"txn_source,omitempty"`
	WithConflict   bool          `json:"locked_with_conflict,omitempty"`
	Generation     uint64        `json:"generation,omitempty"`
	Unknown        string        `json:"unknown_fields,omitempty"`
	Raw            string        `json:"raw,omitempty"`
	Error          string        `json:"error,omitempty"`
}

// viewLocks gives one element for an ordinary lock or a record that does not decode, and the inner ones of a shared lock.
func viewLocks(user, value []byte) []LockView {
	locks, shared, err := mvcc.ParseLocks(value)
	if err != nil {
		return []LockView{{Error: err.Error(), Raw: upperHex(value)}}
	}
	out := make([]LockView, 0, len(locks))
	for _, l := range locks {
		primary := mvcc.DescribeUserKey(l.Primary)
		v := LockView{
			Type: typeName(l.Type), Shared: shared, Primary: upperHex(l.Primary), PrimaryDecoded: &primary, IsPrimary: string(user) == string(l.Primary),
			StartTS: l.StartTS, StartTime: Time(l.StartTS), TTL: l.TTL, ForUpdateTS: l.ForUpdateTS, ForUpdateTime: Time(l.ForUpdateTS),
			MinCommitTS: l.MinCommitTS, MinCommitTime: Time(l.MinCommitTS), TxnSize: l.TxnSize, AsyncCommit: l.AsyncCommit,
			RollbackTS: l.RollbackTS, TxnSource: l.TxnSource, WithConflict: l.LockedWithConflict, Generation: l.Generation, Unknown: upperHex(l.Tail),
		}
		if l.HasShortValue {
			s := upperHex(l.ShortValue)
			v.ShortValue = &s
		}
		for _, k := range l.Secondaries {
			v.Secondaries = append(v.Secondaries, upperHex(k))
		}
		if l.LastChange.Known() {
			v.LastChangeTS = &l.LastChange.TS
		}
		out = append(out, v)
	}
	return out
}

// ValueView is a row of the default column family as it is printed.
type ValueView struct {
	StartTS   *mvcc.TS `json:"start_ts,omitempty"` // absent for raw data without versions
	StartTime string   `json:"start_time,omitempty"`
	Bytes     int      `json:"bytes"`
	Value     string   `json:"value"` // upper-case hex
	InTitan   bool     `json:"in_titan,omitempty"`
	// Owner says whose value this is: "version <commit_ts>", "lock", or "" for nobody's.
	Owner      string `json:"owner,omitempty"`
	Deleted    bool   `json:"deleted,omitempty"` // raw V2
	ExpireUnix uint64 `json:"expire_unix_seconds,omitempty"`
	Error      string `json:"error,omitempty"`
}
