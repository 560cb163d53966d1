package raftlog

import (
	"encoding/binary"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// AdminEntry is an admin command in the tail.
type AdminEntry struct {
	Index     uint64              `json:"index"`
	Term      uint64              `json:"term"`
	Type      raftstate.AdminType `json:"cmd_type"`
	Committed bool                `json:"committed"`
	Epoch     raftstate.Epoch     `json:"region_epoch"`
	Admin     *raftstate.Admin    `json:"admin,omitempty"`
}

// BadEntry is an entry of the tail that does not decode: TiKV panics when it applies it.
type BadEntry struct {
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
}

// PartSummary counts what one part of the tail holds.
type PartSummary struct {
	Entries    int             `json:"entries"`
	Empty      int             `json:"empty"`
	Writes     int             `json:"writes"`
	Admin      int             `json:"admin"`
	ConfChange int             `json:"conf_changes"`
	Other      int             `json:"other"`
	Puts       map[string]int  `json:"puts"`    // by column family
	Deletes    map[string]int  `json:"deletes"` // by column family
	RangeDels  int             `json:"delete_ranges"`
	Ingests    int             `json:"ingests"`
	SSTs       []raftstate.SST `json:"ssts,omitempty"`
	// WriteCommits is the number of puts into the write CF whose key ends with a commit_ts; the two bounds are valid if it is
	// not 0.
	WriteCommits int    `json:"write_commits"`
	MinCommitTS  uint64 `json:"min_commit_ts,string"`
	MaxCommitTS  uint64 `json:"max_commit_ts,string"`
}

// TailSummary says what the unapplied tail (applied, last] of a region holds. An entry is committed if its index is at most
// the committed index that the caller knows.
type TailSummary struct {
	Region    uint64 `json:"region_id"`
	Applied   uint64 `json:"applied"`
	Committed uint64 `json:"committed"`
	Last      uint64 `json:"last"`

	CommittedPart   PartSummary `json:"committed_part"`
	UncommittedPart PartSummary `json:"uncommitted_part"`

	AdminEntries []AdminEntry `json:"admin_entries,omitempty"` // conf changes included
	// MaxEpoch holds the largest conf_ver and the largest version of any header; they may come from different entries.
	MaxEpoch raftstate.Epoch `json:"max_epoch"`
	// Missing lists the indexes of (applied, last] that the store does not hold, as closed ranges.
	Missing [][2]uint64 `json:"missing,omitempty"`
	Bad     []BadEntry  `json:"bad,omitempty"`
	// Unknown is set when a command has fields that this tool does not know.
	Unknown bool `json:"unknown_fields,omitempty"`
}

// SummarizeTail walks the entries in (applied, last] of region. Entries that do not decode are part of the result; the error is
// one of reading the store.
func SummarizeTail(s Store, region, applied, committed, last uint64) (TailSummary, error) {
	t := TailSummary{Region: region, Applied: applied, Committed: committed, Last: last}
	if applied >= last || last == ^uint64(0) {
		return t, nil
	}
	next := applied + 1
	err := s.Entries(region, next, last+1, func(e raftstate.Entry) error {
		if e.Index > next {
			t.Missing = append(t.Missing, [2]uint64{next, e.Index - 1})
		}
		next = e.Index + 1
		t.add(e)
		return nil
	})
	if err != nil {
		return t, err
	}
	if next <= last {
		t.Missing = append(t.Missing, [2]uint64{next, last})
	}
	return t, nil
}

func (t *TailSummary) add(e raftstate.Entry) {
	p := &t.UncommittedPart
	if e.Index <= t.Committed {
		p = &t.CommittedPart
	}
	p.Entries++
	c, err := raftstate.Decode(e)
	if err != nil {
		t.Bad = append(t.Bad, BadEntry{e.Index, err.Error()})
		return
	}
	if epoch, ok := c.Epoch(); ok {
		t.MaxEpoch.ConfVer = max(t.MaxEpoch.ConfVer, epoch.ConfVer)
		t.MaxEpoch.Version = max(t.MaxEpoch.Version, epoch.Version)
	}
	t.Unknown = t.Unknown || c.Unknown || c.Admin != nil && c.Admin.Unknown
	switch c.Kind {
	case raftstate.CommandEmpty:
		p.Empty++
	case raftstate.CommandWrite:
		p.Writes++
		for i := range c.Requests {
			p.addRequest(&c.Requests[i])
		}
	case raftstate.CommandAdmin:
		p.Admin++
	case raftstate.CommandConfChange:
		p.ConfChange++
	default:
		p.Other++
	}
	if c.Admin != nil {
		t.AdminEntries = append(t.AdminEntries, AdminEntry{Index: e.Index, Term: e.Term, Type: c.Admin.Type,
			Committed: e.Index <= t.Committed, Epoch: c.Header.Epoch, Admin: c.Admin})
	}
}

func (p *PartSummary) addRequest(r *raftstate.Request) {
	switch r.Op {
	case raftstate.OpPut:
		if p.Puts == nil {
			p.Puts = map[string]int{}
		}
		p.Puts[r.CF]++
		if r.CF == "write" && len(r.Key) >= 8 {
			ts := ^binary.BigEndian.Uint64(r.Key[len(r.Key)-8:])
			if p.WriteCommits == 0 || ts < p.MinCommitTS {
				p.MinCommitTS = ts
			}
			p.MaxCommitTS = max(p.MaxCommitTS, ts)
			p.WriteCommits++
		}
	case raftstate.OpDelete:
		if p.Deletes == nil {
			p.Deletes = map[string]int{}
		}
		p.Deletes[r.CF]++
	case raftstate.OpDeleteRange:
		p.RangeDels++
	case raftstate.OpIngest:
		p.Ingests++
		if r.SST != nil {
			p.SSTs = append(p.SSTs, *r.SST)
		}
	default:
		p.Other++
	}
}
