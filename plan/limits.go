package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Limits is the evidence about the timestamps that a set of stores can be returned to: how far each region has come, what was not finished, where
// stores contradict each other, what PD knew. It names no T; whoever chooses one reads here what speaks against it.
type Limits struct {
	Stores []StoreLimits `json:"stores"`
	// Absent are stores that hold replicas of these regions and were not given.
	Absent []uint64 `json:"absent_stores,omitempty"`
	// Differ are the regions with replicas on several of the stores that have not applied the same: those with the newest commit in the difference
	// first.
	Differ []ReplicaGap `json:"replicas_differ"`
	// OldestLock is the transaction with the smallest start_ts of those that hold a lock; nil: there is no lock, or none that
	// was looked at, see LocksBelow.
	OldestLock *TxnLimit `json:"oldest_lock,omitempty"`
	// Txns are the transactions that are not finished everywhere: the worst state first, then by start_ts. ByState counts them.
	Txns    []TxnLimit       `json:"transactions"`
	ByState map[TxnState]int `json:"transactions_by_state"`
	// TornAt is the smallest commit_ts of a torn transaction: T at or above it is proven not to be whole. 0: no such proof was found, which
	// proves nothing.
	TornAt   mvcc.TS `json:"torn_at,omitempty"`
	TornTime string  `json:"torn_time,omitempty"`
	// LogFloor: of transactions that only the raft logs name, those that began before it were not looked at. 0: all were.
	LogFloor mvcc.TS `json:"log_floor,omitempty"`
	// LocksBelow: of the locks, those of transactions that began then or later were not looked at. 0: all were.
	LocksBelow mvcc.TS `json:"locks_below,omitempty"`
	// NoLogs: the raft logs were not looked at.
	NoLogs bool `json:"no_logs,omitempty"`
	// Unreadable are parts of logs that could not be looked at, in sentences.
	Unreadable []string  `json:"unreadable,omitempty"`
	PD         *PDLimits `json:"pd,omitempty"`
	// Words say what follows from all that.
	Words []string `json:"words"`
}

// StoreLimits is how far one store has come.
type StoreLimits struct {
	StoreID    uint64  `json:"store_id"`
	Dir        string  `json:"dir"`
	Newest     mvcc.TS `json:"newest_commit_ts"`
	NewestTime string  `json:"newest_commit_time,omitempty"`
	LockedKeys int     `json:"locked_keys"`
	// Regions are the live ones with data, by id.
	Regions []RegionLimits `json:"regions"`
}

// RegionLimits is how far one replica has come. Invariant: Waiting = max(last, applied) - applied.
type RegionLimits struct {
	RegionID uint64 `json:"region_id"`
	// Newest is the largest commit_ts, rollback marks included. AtMost: it is an upper bound, from the properties of tables that hold
	// records of other regions as well.
	Newest     mvcc.TS `json:"newest_commit_ts"`
	NewestTime string  `json:"newest_commit_time,omitempty"`
	AtMost     bool    `json:"at_most,omitempty"`
	Applied    uint64  `json:"applied_index"`
	// Waiting is the number of log entries that are not applied, NewestWaiting the largest commit_ts in them.
	Waiting           uint64  `json:"entries_not_applied"`
	NewestWaiting     mvcc.TS `json:"newest_not_applied_ts,omitempty"`
	NewestWaitingTime string  `json:"newest_not_applied_time,omitempty"`
}

// ReplicaGap is a region whose replicas have not applied the same.
type ReplicaGap struct {
	RegionID uint64         `json:"region_id"`
	Replicas []ReplicaIndex `json:"replicas"`
	Entries  uint64         `json:"entries"` // that some have applied and others have not
	// Newest is the largest commit_ts in these entries; 0: they hold none. Partial: not all of them are in a log any more, so that it is
	// the largest of those that are.
	Newest     mvcc.TS `json:"newest_commit_ts,omitempty"`
	NewestTime string  `json:"newest_commit_time,omitempty"`
	Partial    bool    `json:"partial,omitempty"`
}

// ReplicaIndex is one replica of a ReplicaGap.
type ReplicaIndex struct {
	StoreID uint64 `json:"store_id"`
	Applied uint64 `json:"applied_index"`
}

// PDLimits is what PD knew, in short.
type PDLimits struct {
	ConsistentTS   mvcc.TS `json:"consistent_ts,omitempty"`
	ConsistentTime string  `json:"consistent_time,omitempty"`
	ConsistentWhy  string  `json:"consistent_reason"`
	MinResolvedTS  mvcc.TS `json:"min_resolved_ts,omitempty"`
	DRState        string  `json:"dr_state,omitempty"`
	DRReserve      string  `json:"dr_state_reserve,omitempty"`
}

// LimitsView looks up records of one store, as they are before anything is changed. All keys are raw user keys.
type LimitsView interface {
	// WriteByStart, RollbackAt and LockOf are those of Evidence.
	WriteByStart(user []byte, start mvcc.TS) (commit mvcc.TS, w mvcc.Write, found bool, err error)
	RollbackAt(user []byte, start mvcc.TS) (bool, error)
	LockOf(user []byte) ([]mvcc.Lock, error)
	// Holder gives the region whose data of the key are on this store, and the index that it has applied.
	Holder(user []byte) (r raftstate.Region, applied uint64, ok bool)
	// NewestLogged is the largest commit_ts in the stored log entries of (from, to]; whole: all of them are stored and decode.
	NewestLogged(region, from, to uint64) (newest mvcc.TS, whole bool, err error)
}

// LimitsStore is what FindLimits works on.
type LimitsStore struct {
	StoreLimits
	View LimitsView
	// Locks are all locks in the data, Logged those that log entries put, as far as the logs go.
	Locks  []LockAt
	Logged []LoggedLock
	// Pending are outcomes in entries above applied.
	Pending map[KeyStart]PendingWrite
	// PeerStores are the stores named by the descriptors of the regions.
	PeerStores []uint64
	// Unreadable are parts of logs that could not be looked at, in sentences.
	Unreadable []string
}

// LoggedLock is a prewrite that a log entry holds.
type LoggedLock struct {
	UserKey []byte
	Lock    mvcc.Lock // without its value
	Applied bool      // by this store
}

// KeyStart names what one transaction did to one key.
type KeyStart struct {
	User  string // raw bytes
	Start mvcc.TS
}

// PendingWrite is a write record in a log entry that is not applied. CommitTS 0: a rollback.
type PendingWrite struct {
	CommitTS mvcc.TS
	Type     byte
}

// LimitsInput of FindLimits.
type LimitsInput struct {
	Stores   []LimitsStore
	PD       *PDReport // nil: not given
	LogFloor mvcc.TS
	NoLogs   bool
}

// FindLimits puts the evidence of stores of one cluster together. An error is one of a view.
func FindLimits(in LimitsInput) (*Limits, error) {
	l := &Limits{Stores: []StoreLimits{}, Differ: []ReplicaGap{}, Txns: []TxnLimit{}, ByState: map[TxnState]int{}, LogFloor: in.LogFloor, NoLogs: in.NoLogs, Words: []string{}}
	given, absent := map[uint64]bool{}, map[uint64]bool{}
	for i := range in.Stores {
		l.Stores = append(l.Stores, in.Stores[i].StoreLimits)
		l.Unreadable = append(l.Unreadable, in.Stores[i].Unreadable...)
		given[in.Stores[i].StoreID] = true
	}
	for i := range in.Stores {
		for _, id := range in.Stores[i].PeerStores {
			if !given[id] {
				absent[id] = true
			}
		}
	}
	if p := in.PD; p != nil {
		l.PD = &PDLimits{ConsistentTS: p.ConsistentTS, ConsistentTime: timeIfAny(p.ConsistentTS), ConsistentWhy: p.ConsistentWhy, MinResolvedTS: p.MinResolvedTS,
			DRState: p.DRState, DRReserve: p.DRReserve}
		for _, s := range p.Stores {
			if s.TiFlash {
				delete(absent, s.ID) // its learners lead nothing
			}
		}
	}
	l.Absent = slices.Sorted(maps.Keys(absent))
	if err := l.differ(in.Stores); err != nil {
		return nil, err
	}
	if err := l.transactions(in); err != nil {
		return nil, err
	}
	l.words(in)
	return l, nil
}

// differ compares the replicas of each region.
func (l *Limits) differ(stores []LimitsStore) error {
	type replica struct {
		s *LimitsStore
		r *RegionLimits
	}
	byID := map[uint64][]replica{}
	for i := range stores {
		for j := range stores[i].Regions {
			r := &stores[i].Regions[j]
			byID[r.RegionID] = append(byID[r.RegionID], replica{&stores[i], r})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		rs := byID[id]
		low, high := rs[0].r.Applied, rs[0].r.Applied
		g := ReplicaGap{RegionID: id, Partial: true}
		for _, r := range rs {
			low, high = min(low, r.r.Applied), max(high, r.r.Applied)
			g.Replicas = append(g.Replicas, ReplicaIndex{r.s.StoreID, r.r.Applied})
		}
		if low == high {
			continue
		}
		g.Entries = high - low
		slices.SortFunc(g.Replicas, func(a, b ReplicaIndex) int {
			return cmp.Or(cmp.Compare(b.Applied, a.Applied), cmp.Compare(a.StoreID, b.StoreID))
		})
		// What a replica has applied is committed: its own entries are the right ones. Those of a log beyond applied may have been
		// superseded, so they are asked last.
		slices.SortStableFunc(rs, func(a, b replica) int { return cmp.Compare(b.r.Applied, a.r.Applied) })
		for _, r := range rs {
			newest, whole, err := r.s.View.NewestLogged(id, low, high)
			if err != nil {
				return err
			}
			g.Newest = max(g.Newest, newest)
			if whole {
				g.Partial = false
				break
			}
		}
		g.NewestTime = timeIfAny(g.Newest)
		l.Differ = append(l.Differ, g)
	}
	slices.SortStableFunc(l.Differ, func(a, b ReplicaGap) int { return cmp.Compare(b.Newest, a.Newest) })
	return nil
}

// words draws the conclusions, the hardest first.
func (l *Limits) words(in LimitsInput) {
	say := func(format string, args ...any) { l.Words = append(l.Words, fmt.Sprintf(format, args...)) }
	if n := l.ByState[TxnTorn]; n > 0 {
		say("T at or above %s (%s) is proven not to be whole: %s committed in one region and missing in another", l.TornAt, l.TornTime, are(n, "transaction"))
		if in.PD == nil || !in.PD.GCNeverRan && (in.PD.SafePoint == 0 || in.PD.SafePointUnsure) {
			say("unless garbage collection has removed what is missing: the GC safe point is not known")
		}
	}
	if n := l.ByState[TxnIncomplete]; n > 0 {
		say("%s locked in one region and missing in another: they did not commit, or that region lacks the end of its log", are(n, "transaction"))
	}
	if n := l.ByState[TxnUnknown]; n > 0 {
		say("%s not decided by these stores", are(n, "transaction"))
	}
	if n := len(l.Differ); n > 0 {
		with := 0
		for _, g := range l.Differ {
			if g.Newest != 0 {
				with++
			}
		}
		text := "no commit is in the difference"
		if g := l.Differ[0]; with > 0 {
			text = fmt.Sprintf("by commits in %d of them, the newest %s (%s), of region %d", with, g.Newest, g.NewestTime, g.RegionID)
		}
		say("the replicas of %s differ; %s", plural(n, "region"), text)
	}
	if l.LogFloor != 0 {
		say("of transactions that only the raft logs name, those that began before %s (%s) were not looked at", l.LogFloor, timeIfAny(l.LogFloor))
	}
	if n := len(l.Unreadable); n > 0 {
		say("%s of logs could not be looked at: %s", plural(n, "part"), l.Unreadable[0])
	}
	if len(l.Absent) > 0 {
		say("replicas of these regions are on stores that were not given: %s; what only they had is not seen here", idList(l.Absent))
	}
	l.pdWords(say)
}

// pdWords say what PD's knowledge means for a T.
func (l *Limits) pdWords(say func(format string, args ...any)) {
	p := l.PD
	if p == nil {
		say("without PD's directory (--pd) nothing says up to which timestamp the cluster was resolved")
		return
	}
	if p.DRReserve != "" {
		say("DR Auto-Sync was %s; %s", p.DRState, p.DRReserve)
	} else if p.DRState != "" {
		say("DR Auto-Sync was %s", p.DRState)
	}
	switch {
	case p.ConsistentTS == 0:
		say("no T is proven to be whole: %s", p.ConsistentWhy)
	case p.DRState == "sync" && p.DRReserve == "":
		say("a surviving site is complete; PD knew the cluster to be resolved up to %s (%s)", p.ConsistentTS, p.ConsistentTime)
	case p.DRState != "":
		say("data torn by an asynchronous copy cannot be proven to be whole above min-resolved-ts = %s (%s): %s", p.ConsistentTS, p.ConsistentTime, p.ConsistentWhy)
	default:
		say("PD knew the cluster to be resolved up to min-resolved-ts = %s (%s); with stores missing nothing proves that a later T is whole", p.ConsistentTS, p.ConsistentTime)
	}
}

// are puts a number in front of a noun and its verb behind.
func are(n int, one string) string {
	if n == 1 {
		return "1 " + one + " is"
	}
	return plural(n, one) + " are"
}

// timeIfAny is the RFC 3339 form; "" for 0.
func timeIfAny(ts mvcc.TS) string {
	if ts == 0 {
		return ""
	}
	return rfc3339(ts)
}
