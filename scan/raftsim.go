package scan

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// entryStatus says where an index stands in a region's log.
func entryStatus(d raftstate.Derived, index uint64) string {
	switch {
	case index <= d.Truncated.Index || index > d.Last:
		return EntryDead
	case index <= d.Applied:
		return EntryApplied
	case index <= d.Committed:
		return EntryCommitted
	}
	return EntryUncommitted
}

// epochSim follows the region epoch through the tail: an entry whose header names another epoch than the region has by then
// changes nothing. It knows what each admin command does to the epoch, not to the data.
//
//	command                        compares    conf_ver          version
//	ChangePeer                     conf_ver    +1
//	ChangePeerV2, one change       conf_ver    +1
//	ChangePeerV2, n > 1: joint     conf_ver    +n
//	ChangePeerV2, none: leave      conf_ver    + peers in a joint role
//	Split, BatchSplit of k         both                          +k
//	PrepareMerge                   both        +1                +1
//	CommitMerge                    both                          max(source, own) + 1
//	RollbackMerge                  both                          +1
//	BatchSwitchWitness of n        conf_ver    +n
//	writes                         version
//
// Source: tikv/tikv master components/raftstore/src/store/util.rs (admin_cmd_epoch_lookup, check_req_region_epoch),
// fsm/apply.rs (exec_*).
type epochSim struct {
	epoch raftstate.Epoch
	roles map[uint64]raftstate.PeerRole // by peer id
	known bool                          // without a region record nothing can be said
}

func newEpochSim(s raftstate.RegionLocalState) *epochSim {
	sim := &epochSim{epoch: s.Region.Epoch, roles: map[uint64]raftstate.PeerRole{}, known: s.Region.Initialized()}
	for _, p := range s.Region.Peers {
		sim.roles[p.ID] = p.Role
	}
	return sim
}

// apply takes the next entry of the tail and gives the reason why it is a no-op, or "".
func (m *epochSim) apply(e raftstate.Entry) string {
	c, err := raftstate.Decode(e)
	if err != nil {
		return ""
	}
	if c.Kind == raftstate.CommandEmpty {
		return "empty entry of a new leader"
	}
	epoch, ok := c.Epoch()
	if !ok || !m.known {
		return ""
	}
	check := raftstate.EpochCheck{Version: true} // of writes
	if c.Admin != nil {
		check = c.Admin.Type.Checks()
	}
	if check.ConfVer && epoch.ConfVer != m.epoch.ConfVer {
		return fmt.Sprintf("its conf_ver %d is not the region's %d", epoch.ConfVer, m.epoch.ConfVer)
	}
	if check.Version && epoch.Version != m.epoch.Version {
		return fmt.Sprintf("its version %d is not the region's %d", epoch.Version, m.epoch.Version)
	}
	if c.Admin != nil {
		m.admin(c.Admin)
	}
	return ""
}

func (m *epochSim) admin(a *raftstate.Admin) {
	switch a.Type {
	case raftstate.AdminChangePeer:
		m.change(a.Changes, false)
	case raftstate.AdminChangePeerV2:
		m.change(a.Changes, len(a.Changes) > 1)
	case raftstate.AdminSplit, raftstate.AdminBatchSplit:
		m.epoch.Version += uint64(len(a.Splits))
	case raftstate.AdminPrepareMerge:
		m.epoch.ConfVer++
		m.epoch.Version++
	case raftstate.AdminCommitMerge:
		if a.Source != nil {
			m.epoch.Version = max(m.epoch.Version, a.Source.Epoch.Version)
		}
		m.epoch.Version++
	case raftstate.AdminRollbackMerge:
		m.epoch.Version++
	case raftstate.AdminBatchSwitchWitness:
		m.epoch.ConfVer += uint64(len(a.Witnesses))
	}
}

// change follows the roles as far as the number of peers in a joint role depends on them.
func (m *epochSim) change(changes []raftstate.PeerChange, joint bool) {
	if len(changes) == 0 {
		for id, role := range m.roles {
			switch role {
			case raftstate.IncomingVoter:
				m.roles[id] = raftstate.Voter
			case raftstate.DemotingVoter:
				m.roles[id] = raftstate.Learner
			default:
				continue
			}
			m.epoch.ConfVer++
		}
		return
	}
	m.epoch.ConfVer += uint64(len(changes))
	for _, c := range changes {
		old, there := m.roles[c.Peer.ID]
		switch c.Type {
		case "RemoveNode":
			delete(m.roles, c.Peer.ID)
		case "AddNode":
			m.roles[c.Peer.ID] = raftstate.Voter
			if joint {
				m.roles[c.Peer.ID] = raftstate.IncomingVoter
			}
		case "AddLearnerNode":
			m.roles[c.Peer.ID] = raftstate.Learner
			if joint && there && old == raftstate.Voter {
				m.roles[c.Peer.ID] = raftstate.DemotingVoter
			}
		}
	}
}
