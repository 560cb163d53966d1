package etcd

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Change is a key that differs between two views. Old or New is nil where the key is not there.
type Change struct {
	Key      []byte
	Old, New *KV
}

// Diff lists the keys whose value, revisions or lease differ, ascending.
func Diff(before, after *View) []Change {
	var out []Change
	a, b := before.Keys, after.Keys
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = bytes.Compare(a[0].Key, b[0].Key)
		}
		switch {
		case order < 0:
			out = append(out, Change{Key: a[0].Key, Old: &a[0]})
			a = a[1:]
		case order > 0:
			out = append(out, Change{Key: b[0].Key, New: &b[0]})
			b = b[1:]
		default:
			if !same(&a[0], &b[0]) {
				out = append(out, Change{Key: a[0].Key, Old: &a[0], New: &b[0]})
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

func same(a, b *KV) bool {
	return a.Create == b.Create && a.Mod == b.Mod && a.Version == b.Version && a.Lease == b.Lease && bytes.Equal(a.Value, b.Value)
}

// Comparison says which of several member directories of one cluster is the newest.
type Comparison struct {
	Newest int    // position in the states that were compared
	Why    string // in words, with the numbers
	Equal  []int  // positions of others whose log ends at the same entry
	// Majority: directories of more than half of the voting members are there, so by raft's rule the newest log has every write that
	// was ever acknowledged. Otherwise acknowledged writes may be missing in all of them.
	Majority bool
	Warnings []string
}

// Compare ranks the directories by raft's rule: the later term of the last entry, then the longer log; then the higher commit and
// consistent index. A log that cannot be followed to its end comes last, since PD does not start on it. Errors: ErrUsage when the
// directories are none, or not of one cluster.
func Compare(states []*State) (*Comparison, error) {
	if len(states) == 0 {
		return nil, &base.Error{Class: base.ErrUsage, Op: "compare PD members", Offset: -1, Reason: "no directory given"}
	}
	c := &Comparison{}
	seen := map[uint64]string{}
	for i, s := range states {
		if s.ClusterID != states[0].ClusterID {
			return nil, &base.Error{Class: base.ErrUsage, Op: "compare PD members", Path: s.Dir, Offset: -1,
				Reason: fmt.Sprintf("it belongs to etcd cluster %x, %s to %x", s.ClusterID, states[0].Dir, states[0].ClusterID),
				Next:   "name directories of one PD cluster"}
		}
		if other, twice := seen[s.MemberID]; twice {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s and %s are the same member %s, one of them is a copy: never start both", other, s.Dir, memberHex(s.MemberID)))
		}
		seen[s.MemberID] = s.Dir
		if rank(s, states[c.Newest]) > 0 {
			c.Newest = i
		}
	}
	best := states[c.Newest]
	for i, s := range states {
		if i != c.Newest && s.whole() == best.whole() && s.LastTerm == best.LastTerm && s.LastIndex == best.LastIndex {
			c.Equal = append(c.Equal, i)
		}
	}
	c.Why = why(states, c)
	voters, present := 0, 0
	for _, m := range best.Possible.Members {
		if m.Learner {
			if m.ID == best.MemberID {
				c.Warnings = append(c.Warnings, best.Dir+" is a learner: it has no vote and may lack the last changes")
			}
			continue
		}
		voters++
		if _, ok := seen[m.ID]; ok {
			present++
		}
	}
	c.Majority = voters > 0 && present > voters/2
	if !c.Majority {
		c.Warnings = append(c.Warnings, fmt.Sprintf("directories of %d of %d voting members are there, no majority: writes that PD acknowledged may be missing", present, voters))
	}
	c.Warnings = append(c.Warnings, best.Discarded()...)
	return c, nil
}

// whole tells whether the log could be followed to its end.
func (s *State) whole() bool { return len(s.Damage) == 0 || s.Possible.Index == s.LastIndex }

// rank is positive when a is newer than b.
func rank(a, b *State) int {
	if a.whole() != b.whole() {
		if a.whole() {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(a.LastTerm, b.LastTerm), cmp.Compare(a.LastIndex, b.LastIndex), cmp.Compare(a.Commit, b.Commit),
		cmp.Compare(a.ConsistentIndex, b.ConsistentIndex))
}

func why(states []*State, c *Comparison) string {
	line := func(s *State) string {
		text := fmt.Sprintf("%s ends at term %d, entry %d (committed %d, applied %d)", s.Dir, s.LastTerm, s.LastIndex, s.Commit, s.ConsistentIndex)
		if !s.whole() {
			text += ", and its log is damaged"
		}
		return text
	}
	if len(states) == 1 {
		return "the only directory: " + line(states[0])
	}
	rest := make([]string, 0, len(states))
	for i, s := range states {
		if i != c.Newest {
			rest = append(rest, line(s))
		}
	}
	return line(states[c.Newest]) + "; " + strings.Join(rest, "; ")
}

// maxNamed is how many keys a warning names.
const maxNamed = 8

// Discarded tells what pd-server --force-new-cluster would do to this directory that is not plain: etcd as PD ships it (up to 3.5.15)
// drops every entry above the commit index in the WAL, applied or not (etcd v3.5.15 server/etcdserver/raft.go
// restartAsStandaloneNode). Empty: nothing is dropped. A cluster of one member drops nothing.
func (s *State) Discarded() []string {
	var out []string
	if hs, ci := s.HardState.Commit, s.ConsistentIndex; hs < ci {
		out = append(out, fmt.Sprintf("%s: --force-new-cluster drops entries %d to %d although they are applied, and gives their numbers to new entries, "+
			"which are then skipped as applied: restore from a copy of member/snap/db (etcdutl snapshot restore --skip-hash-check) instead", s.Dir, hs+1, ci))
	}
	if s.Possible.Index <= s.Certain.Index {
		return out
	}
	changes := Diff(s.Certain, s.Possible)
	var names []string
	for _, ch := range changes[:min(len(changes), maxNamed)] {
		names = append(names, fmt.Sprintf("%q", ch.Key))
	}
	if more := len(changes) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	text := fmt.Sprintf("%s: entries %d to %d are only in the log, perhaps acknowledged; --force-new-cluster and a copy of member/snap/db lose them", s.Dir, s.Certain.Index+1, s.Possible.Index)
	if len(names) > 0 {
		text += ": they change " + strings.Join(names, ", ")
	}
	return append(out, text)
}

// Difference is what a replay of the log and the backend do not agree on.
type Difference struct {
	Change        // Old: the replay's, New: the backend's
	What   string // set instead, when it is no key: "revision 7, backend 8"
}

// Replay is the outcome of CheckReplay.
type Replay struct {
	// Index is the entry up to which the log was replayed; 0 when it could not be, and then Why says why.
	Index       uint64
	Why         string
	Differences []Difference
}

// equalLeases compares the ids; the time to live in a request may be raised when it is applied.
func equalLeases(a, b map[int64]Lease) bool {
	if len(a) != len(b) {
		return false
	}
	for id := range a {
		if _, ok := b[id]; !ok {
			return false
		}
	}
	return true
}

func leaseIDs(m map[int64]Lease) []int64 {
	ids := make([]int64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
