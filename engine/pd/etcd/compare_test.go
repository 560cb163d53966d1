package etcd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

// member makes the state of one of three members: what its log and its database end with.
func memberState(id, term, last, committed, applied uint64) *State {
	voters := []Member{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}, {ID: 3, Name: "c"}}
	s := &State{Dir: fmt.Sprintf("/pd%d/member", id), MemberID: id, ClusterID: 99, LastTerm: term, LastIndex: last, ConsistentIndex: applied,
		Commit: max(committed, applied), HardState: wal.HardState{Term: term, Commit: committed}}
	s.Certain = &View{Index: s.Commit, Revision: 10, Members: voters}
	s.Possible = s.Certain
	if last > s.Commit {
		s.Possible = &View{Index: last, Revision: 11, Members: voters, Keys: []KV{{Key: []byte("/pd/1/alloc_id"), Value: []byte("x"), Create: 11, Mod: 11, Version: 1}}}
	}
	return s
}

func TestCompare(t *testing.T) {
	damaged := memberState(3, 9, 200, 200, 150)
	damaged.Damage = []error{base.Corruptf("/pd3/member/wal/x", 0, "x")}
	damaged.Possible = damaged.Certain
	damaged.Certain.Index = 150
	stranger := memberState(2, 5, 100, 100, 100)
	stranger.ClusterID = 7
	learner := memberState(2, 5, 100, 100, 100)
	learner.Possible.Members[1].Learner = true
	for _, c := range []struct {
		story    string
		states   []*State
		newest   int
		equal    string
		majority bool
		warnings string // parts, separated by |
		class    error
	}{
		{"three killed together: the longer log of the last term wins", []*State{memberState(1, 5, 100, 99, 98), memberState(2, 5, 101, 100, 99), memberState(3, 5, 100, 99, 99)},
			1, "[]", true, "entries 101 to 101 are only in the log, perhaps acknowledged; --force-new-cluster and a copy of member/snap/db lose them: they change \"/pd/1/alloc_id\"", nil},
		{"a later term beats a longer log", []*State{memberState(1, 5, 300, 200, 200), memberState(2, 6, 210, 210, 210)}, 1, "[]", true, "", nil},
		{"all the same: the one that applied more, the others are named", []*State{memberState(1, 5, 100, 100, 90), memberState(2, 5, 100, 100, 100), memberState(3, 5, 100, 100, 95)},
			1, "[0 2]", true, "", nil},
		{"one of three: acknowledged writes may be missing", []*State{memberState(1, 5, 100, 100, 100)}, 0, "[]", false, "1 of 3 voting members are there, no majority", nil},
		{"the usual kill: the database has applied what the WAL does not call committed", []*State{memberState(1, 5, 100, 99, 100), memberState(2, 5, 100, 99, 100)},
			0, "[1]", true, "--force-new-cluster drops entries 100 to 100 although they are applied", nil},
		{"a damaged log is never the newest", []*State{memberState(1, 5, 100, 100, 100), damaged}, 0, "[]", true, "", nil},
		{"the same member twice", []*State{memberState(1, 5, 100, 100, 100), memberState(1, 5, 90, 90, 90)}, 0, "[]", false, "the same member 1|no majority", nil},
		{"a learner is no voter", []*State{learner}, 0, "[]", false, "is a learner|0 of 2 voting members", nil},
		{"another cluster's", []*State{memberState(1, 5, 100, 100, 100), stranger}, 0, "", false, "", base.ErrUsage},
		{"none", nil, 0, "", false, "", base.ErrUsage},
	} {
		t.Run(c.story, func(t *testing.T) {
			got, err := Compare(c.states)
			if c.class != nil {
				if !errors.Is(err, c.class) {
					t.Errorf("%v", err)
				}
				return
			}
			must(t, err)
			if got.Newest != c.newest || fmt.Sprint(got.Equal) != c.equal || got.Majority != c.majority {
				t.Errorf("%+v", got)
			}
			if !strings.HasPrefix(strings.TrimPrefix(got.Why, "the only directory: "), c.states[c.newest].Dir) {
				t.Errorf("why: %s", got.Why)
			}
			text := strings.Join(got.Warnings, "\n")
			if c.warnings == "" && text != "" {
				t.Errorf("warnings %s", text)
			}
			for part := range strings.SplitSeq(c.warnings, "|") {
				if !strings.Contains(text, part) {
					t.Errorf("warnings %q do not say %q", text, part)
				}
			}
		})
	}
}

func TestDiff(t *testing.T) {
	kv := func(key, value string, mod int64) KV {
		return KV{Key: []byte(key), Value: []byte(value), Create: 1, Mod: mod, Version: 1}
	}
	a := &View{Keys: []KV{kv("a", "1", 1), kv("b", "1", 1), kv("d", "1", 1)}}
	b := &View{Keys: []KV{kv("b", "2", 2), kv("c", "1", 3), kv("d", "1", 1), kv("e", "1", 4)}}
	var got []string
	for _, ch := range Diff(a, b) {
		got = append(got, fmt.Sprintf("%s %v %v", ch.Key, ch.Old != nil, ch.New != nil))
	}
	if want := "[a true false b true true c false true e false true]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if got := b.Prefix("c"); len(got) != 1 || string(got[0].Key) != "c" {
		t.Errorf("%v", got)
	}
}
