package scan

import (
	"fmt"
	"sync/atomic"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
)

// SpillDirName is the directory for what does not fit into memory while a store is edited. It is empty, or gone, whenever no
// tool runs.
const SpillDirName = "tikv-repair-spill"

// opened numbers the stores that are open for reading.
var opened atomic.Uint64

// Spill is the store's place for what does not fit into memory.
func (s *Store) Spill() rocks.Spill {
	dir, temp := s.o.SpillDir, ""
	switch {
	case dir != "":
	case s.o.Mode == base.LockExclusive:
		dir = s.FS.PathJoin(s.Layout.Dir, SpillDirName)
	case s.o.TempDir != "":
		if s.temp == "" {
			s.temp = fmt.Sprintf("store-%d", opened.Add(1))
		}
		dir, temp = s.FS.PathJoin(s.o.TempDir, s.temp), s.FS.PathDir(s.o.TempDir)
	}
	if s.o.Memory <= 0 || dir == "" {
		return rocks.Spill{}
	}
	return rocks.Spill{Dir: dir, Temp: temp, Limit: max(s.o.Memory/8, 4<<10)}
}

// raftSpill is the part of it for a raft RocksDB, which is opened after the key-value database and closed before it.
func (s *Store) raftSpill() rocks.Spill {
	p := s.Spill()
	if p.Dir != "" {
		p.Dir = s.FS.PathJoin(p.Dir, "raft")
	}
	return p
}
