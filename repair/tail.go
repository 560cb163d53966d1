package repair

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// TailApplied says what applying the log tail of one region did, or would do.
//
// Invariant: From ≤ To ≤ Limit; Stopped == nil ⇔ To == Limit.
type TailApplied struct {
	Region  uint64    `json:"region_id"`
	From    uint64    `json:"applied_before"`
	To      uint64    `json:"applied_after"`
	Limit   uint64    `json:"limit"` // up to which entries may be applied
	Records int64     `json:"records"`
	Ranges  int64     `json:"range_deletes"`
	NoOps   int64     `json:"no_op_entries"` // empty, without effect on data, or with an epoch that does not fit
	Stopped *TailStop `json:"stopped,omitempty"`
	// Committed is the last of the applied entries that is known to be committed.
	Committed uint64 `json:"committed_index,omitempty"`
	// Source is the store whose log gave the Appended last entries; Replaced own ones, which were never committed, went for them.
	Source   string `json:"source,omitempty"`
	Appended uint64 `json:"entries_appended,omitempty"`
	Replaced uint64 `json:"entries_replaced,omitempty"`
	// hashes counts consistency checks. Skipping them is right; a server that applied them would compare data that has changed since.
	hashes int
}

// TailStop is the first entry that cannot be applied offline.
type TailStop struct {
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
}

// tailRecord is one change of a write command, as the key-value database sees it.
type tailRecord struct {
	cf         string
	kind       ikey.Kind
	user, rest []byte // rest: the value, or the end of a range
}

var errStop = errors.New("stop")

// readCommands decodes the entries of (from, limit] of a log as TiKV would apply them (tikv/tikv components/raftstore/src/store/fsm/apply.rs,
// handle_raft_entry_normal, exec_write_cmd): a command whose header does not fit the region's epoch is a no-op; admin commands without an
// effect on data are passed over; any other stops the walk at that index, since what comes after it depends on it. The second result is
// the term of the last entry that was passed.
func readCommands(s *scan.Store, r scan.Region, log logView, from, limit uint64, emit func(tailRecord) error) (TailApplied, uint64, error) {
	t := TailApplied{Region: r.ID, From: from, To: from, Limit: limit}
	var term uint64
	lower, upper := r.Bounds()
	err := log.entries(from+1, limit+1, func(e raftstate.Entry) error {
		stop := func(format string, args ...any) error {
			t.Stopped = &TailStop{Index: t.To + 1, Reason: fmt.Sprintf(format, args...)}
			return errStop
		}
		if e.Index != t.To+1 {
			return stop("the entry is missing")
		}
		if e.Term < term {
			return stop("its term %d is below that of the entry before it, %d", e.Term, term)
		}
		cmd, err := raftstate.Decode(e)
		if err != nil {
			return stop("it does not decode: %v", err)
		}
		if log.planned != nil {
			version, does := log.planned[e.Index]
			if does {
				r.State.Region.Epoch.Version = version
			}
			// What another admin command or conf change would do is not done: the plan gives the region its descriptor.
			if does || cmd.Admin != nil || cmd.Kind == raftstate.CommandConfChange {
				t.NoOps++
				t.To, term = e.Index, e.Term
				return nil
			}
		}
		if reason := blockedBy(cmd, r.State.Region); reason != "" {
			return stop("%s", reason)
		}
		if cmd.Kind != raftstate.CommandWrite || !epochFits(cmd, r.State.Region.Epoch) {
			if cmd.Admin != nil && (cmd.Admin.Type == raftstate.AdminComputeHash || cmd.Admin.Type == raftstate.AdminVerifyHash) {
				t.hashes++
			}
			t.NoOps++
			t.To, term = e.Index, e.Term
			return nil
		}
		var out []tailRecord
		for _, q := range cmd.Requests {
			if q.Op == raftstate.OpIngest {
				recs, reason := ingestedRecords(r, q, log.importFile)
				if reason != "" {
					return stop("%s", reason)
				}
				out = append(out, recs...)
				continue
			}
			rec, reason := tailRecordOf(q, lower, upper)
			if reason != "" {
				return stop("%s", reason)
			}
			out = append(out, rec)
		}
		for _, rec := range out {
			if rec.kind == ikey.KindRangeDelete {
				t.Ranges++
			} else {
				t.Records++
			}
			if emit != nil {
				if err := emit(rec); err != nil {
					return err
				}
			}
		}
		t.To, term = e.Index, e.Term
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	if err == nil && t.Stopped == nil && t.To < limit {
		t.Stopped = &TailStop{Index: t.To + 1, Reason: "the entry is missing"}
	}
	return t, term, err
}

// epochFits tells whether a command gets past the check of the region epoch that TiKV makes when it applies it (check_region_epoch in
// tikv/tikv components/raftstore/src/store/util.rs): writes for the version, admin commands each for its own parts. One that does not is
// a no-op.
func epochFits(c raftstate.Command, e raftstate.Epoch) bool {
	check := raftstate.EpochCheck{Version: true}
	if c.Admin != nil {
		check = c.Admin.Type.Checks()
	}
	h, _ := c.Epoch()
	return (!check.ConfVer || h.ConfVer == e.ConfVer) && (!check.Version || h.Version == e.Version)
}

// blockedBy tells why an entry cannot be applied offline; "" when it can.
func blockedBy(c raftstate.Command, r raftstate.Region) string {
	admin := c.Admin != nil
	switch {
	case c.Unknown || admin && c.Admin.Unknown:
		return "it holds fields that this version does not know"
	case c.Kind == raftstate.CommandOther:
		return "what applying it does is not known"
	case c.Kind == raftstate.CommandConfChange && !admin:
		return "it changes the peers of the region"
	case admin && c.Admin.Type.Checks() != raftstate.EpochCheck{} && !epochFits(c, r.Epoch):
		return ""
	case c.Kind == raftstate.CommandConfChange:
		return "it changes the peers of the region"
	case c.Kind == raftstate.CommandAdmin && admin:
		switch c.Admin.Type {
		case raftstate.AdminCompactLog, raftstate.AdminTransferLeader, raftstate.AdminComputeHash, raftstate.AdminVerifyHash, raftstate.AdminUpdateGcPeer:
			return "" // nothing of these is data, and a log may keep more than it has to
		}
		return "admin command " + c.Admin.Type.String()
	case c.Kind == raftstate.CommandWrite && r.IsInFlashback && epochFits(c, r.Epoch):
		return "the region is in flashback, which lets only some writes pass"
	}
	return ""
}

func tailRecordOf(q raftstate.Request, lower, upper []byte) (tailRecord, string) {
	user := append([]byte{'z'}, q.Key...)
	rec := tailRecord{cf: q.CF, user: user}
	switch q.Op {
	case raftstate.OpPut:
		rec.kind, rec.rest = ikey.KindPut, bytes.Clone(q.Value)
	case raftstate.OpDelete:
		rec.kind = ikey.KindDelete
	case raftstate.OpDeleteRange:
		if q.NotifyOnly {
			return rec, "a delete-range that only notifies"
		}
		rec.kind, rec.rest = ikey.KindRangeDelete, append([]byte{'z'}, q.EndKey...)
		if len(q.EndKey) == 0 || bytes.Compare(rec.rest, upper) > 0 {
			rec.rest = upper
		}
	default:
		return rec, "request " + q.Name
	}
	switch q.CF {
	case scan.CFDefault, scan.CFLock, scan.CFWrite:
	default:
		return rec, fmt.Sprintf("it writes column family %q", q.CF)
	}
	if bytes.Compare(user, lower) < 0 || bytes.Compare(user, upper) >= 0 {
		return rec, "it writes outside the region's range"
	}
	return rec, ""
}

// applyTail applies the region's own log up to limit: the last index of a region whose only peer is here (what its log holds is
// committed), else the last one known to be committed.
func applyTail(s *scan.Store, rp *regionPlan, limit uint64) (TailApplied, error) {
	return applyLog(s, rp, ownLog(s, rp.region.ID), limit)
}

// onlyPeerHere tells whether the region has all its peers on this store.
func onlyPeerHere(s *scan.Store, r scan.Region) bool {
	for _, p := range r.State.Region.Peers {
		if p.StoreID != s.Ident.StoreID {
			return false
		}
	}
	return true
}
