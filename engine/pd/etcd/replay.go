package etcd

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

// CheckReplay compares two independent copies of the same history: it replays the log from its first entry, from nothing, to the index
// that the backend is at, and expects the backend's keys, with their revisions and leases. bbolt has no checksum over its data pages, so
// nothing else finds a flipped bit in a value.
//
// It works as long as the log still starts at entry 1 (PD keeps the last five segments); otherwise Replay.Why says what is missing. It
// does not hold where the history was cut on purpose: after --force-new-cluster that dropped applied entries. It takes no locks.
func (s *State) CheckReplay(fs base.FS) (*Replay, error) {
	if s.Backend == "" {
		return &Replay{Why: "there is no database to compare with"}, nil
	}
	log, err := wal.Read(fs, fs.PathJoin(s.Dir, walDir), 0)
	if err != nil {
		return nil, err
	}
	b, err := readBackend(fs, s.Backend)
	if err != nil {
		return nil, err
	}
	if len(log.Entries) == 0 || log.Entries[0].Index != 1 {
		return &Replay{Why: "the log does not start at entry 1 any more"}, nil
	}
	for _, x := range log.Snapshots {
		if restored(log, x.Index) {
			return &Replay{Why: fmt.Sprintf("the directory was restored from a backup: its log starts on a database that was there at entry %d", x.Index)}, nil
		}
	}
	m := newMachine()
	next := uint64(1)
	for _, e := range log.Entries {
		if e.Index != next || next > b.consistent {
			break
		}
		if e.Type == entryNormal {
			if err := m.apply(e.Data); err != nil {
				return &Replay{Why: fmt.Sprintf("entry %d: %v", e.Index, err)}, nil
			}
		}
		next++
	}
	if next <= b.consistent {
		return &Replay{Why: fmt.Sprintf("entry %d is not in the log, the database is at %d", next, b.consistent)}, nil
	}
	return &Replay{Index: b.consistent, Differences: differences(m.view(b.consistent), b.view(b.consistent))}, nil
}

func differences(replayed, backend *View) []Difference {
	var out []Difference
	for _, ch := range Diff(replayed, backend) {
		out = append(out, Difference{Change: ch})
	}
	if replayed.Revision != backend.Revision {
		out = append(out, Difference{What: fmt.Sprintf("revision %d, in the database %d", replayed.Revision, backend.Revision)})
	}
	if replayed.Compacted != backend.Compacted {
		out = append(out, Difference{What: fmt.Sprintf("compacted to revision %d, in the database to %d", replayed.Compacted, backend.Compacted)})
	}
	if !equalLeases(replayed.Leases, backend.Leases) {
		out = append(out, Difference{What: fmt.Sprintf("leases %x, in the database %x", leaseIDs(replayed.Leases), leaseIDs(backend.Leases))})
	}
	return out
}

// restored tells a snapshot that a restore made: nothing but membership changes comes before it.
func restored(log *wal.Log, index uint64) bool {
	if index == 0 {
		return false
	}
	for _, e := range log.Entries {
		if e.Index > index {
			break
		}
		if e.Type != entryConfChange {
			return false
		}
	}
	return true
}
