package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/internal/pb"
)

// memberHex writes a member id as etcd does: lower-case hex without leading zeros.
func memberHex(id uint64) string { return strconv.FormatUint(id, 16) }

// membership is the member list as entries change it (etcd v3.5.15 server/etcdserver/api/membership/cluster.go). A removed id never
// comes back: live and removed have no id in common.
type membership struct {
	live    map[uint64]Member
	removed map[uint64]bool
}

func newMembership() *membership {
	return &membership{live: map[uint64]Member{}, removed: map[uint64]bool{}}
}

func (m *membership) clone() *membership {
	return &membership{live: maps.Clone(m.live), removed: maps.Clone(m.removed)}
}

// list gives the members ascending by id.
func (m *membership) list() []Member {
	out := make([]Member, 0, len(m.live))
	for _, id := range slices.Sorted(maps.Keys(m.live)) {
		out = append(out, m.live[id])
	}
	return out
}

// memberJSON is a member in any of etcd's JSON forms.
type memberJSON struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner"`
	Name       string   `json:"name"`
	ClientURLs []string `json:"clientURLs"`
	IsPromote  bool     `json:"isPromote"`
}

func (j memberJSON) member() Member {
	return Member{ID: j.ID, Name: j.Name, PeerURLs: j.PeerURLs, ClientURLs: j.ClientURLs, Learner: j.IsLearner}
}

// fromBucket reads the backend's own list, which etcd 3.4 and 3.5 keep but do not use.
func fromBucket(bucket map[string][]byte) (*membership, error) {
	m := newMembership()
	for name, value := range bucket {
		var j memberJSON
		if err := json.Unmarshal(value, &j); err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
		m.live[j.ID] = j.member()
	}
	return m, nil
}

// Types of raftpb.ConfChange.
const (
	confAddNode    = 0
	confRemoveNode = 1
	confUpdateNode = 2
	confAddLearner = 3
)

// maxLearners is how many learners etcd 3.4 and 3.5 allow.
const maxLearners = 1

// confChange is raftpb.ConfChange: 1 id u64, 2 type, 3 node id u64, 4 context bytes = JSON of a member.
type confChange struct {
	kind, node uint64
	context    []byte
}

func decodeConfChange(b []byte) (c confChange, err error) {
	err = pb.Decode("ConfChange", b, func(f pb.Field) {
		switch f.N {
		case 2:
			f.U64(&c.kind)
		case 3:
			f.U64(&c.node)
		case 4:
			f.Bytes(&c.context)
		}
	})
	return c, err
}

// change applies a ConfChange entry. etcd validates it against the list first, and what does not fit changes nothing
// (ValidateConfigurationChange).
func (m *membership) change(data []byte) error {
	c, err := decodeConfChange(data)
	if err != nil {
		return err
	}
	var j memberJSON
	if c.kind != confRemoveNode {
		if err := json.Unmarshal(c.context, &j); err != nil {
			return fmt.Errorf("membership change: %w", err)
		}
	}
	old, known := m.live[c.node]
	switch c.kind {
	case confAddNode, confAddLearner:
		switch {
		case m.removed[c.node]:
		case j.IsPromote:
			if known {
				old.Learner = false
				m.live[c.node] = old
			}
		case !known && !m.taken(j.PeerURLs, c.node) && !(j.IsLearner && m.learners() >= maxLearners):
			if j.ID != c.node {
				return fmt.Errorf("membership change of %s adds %s", memberHex(c.node), memberHex(j.ID))
			}
			m.live[c.node] = j.member()
		}
	case confRemoveNode:
		if known {
			delete(m.live, c.node)
			m.removed[c.node] = true
		}
	case confUpdateNode:
		if known && !m.taken(j.PeerURLs, c.node) {
			old.PeerURLs, old.Learner = j.PeerURLs, j.IsLearner
			m.live[c.node] = old
		}
	default:
		return fmt.Errorf("membership change of type %d", c.kind)
	}
	return nil
}

// taken tells whether another member has one of the URLs.
func (m *membership) taken(urls []string, but uint64) bool {
	for id, other := range m.live {
		if id != but && slices.ContainsFunc(urls, func(u string) bool { return slices.Contains(other.PeerURLs, u) }) {
			return true
		}
	}
	return false
}

func (m *membership) learners() int {
	n := 0
	for _, x := range m.live {
		if x.Learner {
			n++
		}
	}
	return n
}

// attributes sets what a member says about itself when it starts.
func (m *membership) attributes(id uint64, name string, clientURLs []string) {
	if x, ok := m.live[id]; ok {
		x.Name, x.ClientURLs = name, clientURLs
		m.live[id] = x
	}
}

var attributesPath = regexp.MustCompile(`^/0/members/([0-9a-f]{1,16})/attributes$`)

// v2Request is etcdserverpb.Request, of the old API: 2 method, 3 path, 4 value are of interest.
type v2Request struct {
	method, path, value string
	conditional         bool
}

// decodeV2Request is as strict about all fields as etcd's code.
func decodeV2Request(b []byte) (r v2Request, err error) {
	err = pb.Decode("Request", b, func(f pb.Field) {
		var text string
		var number uint64
		switch f.N {
		case 2:
			f.Text(&r.method)
		case 3:
			f.Text(&r.path)
		case 4:
			f.Text(&r.value)
		case 6:
			f.Text(&text)
			r.conditional = r.conditional || text != ""
		case 7:
			f.U64(&number)
			r.conditional = r.conditional || number != 0
		case 8: // prev_exist, set or not
			f.U64(&number)
			r.conditional = true
		case 1, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17:
			f.U64(&number)
		}
	})
	return r, err
}

// v2 applies a request of the old API: the attributes that a member publishes are all that matters.
func (m *membership) v2(r v2Request) error {
	id := attributesPath.FindStringSubmatch(r.path)
	if r.method != "PUT" || r.conditional || id == nil {
		return nil
	}
	var j memberJSON
	if err := json.Unmarshal([]byte(r.value), &j); err != nil {
		return fmt.Errorf("attributes of member %s: %w", id[1], err)
	}
	n, err := strconv.ParseUint(id[1], 16, 64)
	if err != nil {
		return err
	}
	m.attributes(n, j.Name, j.ClientURLs)
	return nil
}

// entry applies one entry of the log to the member list. Requests for keys change nothing here.
func (m *membership) entry(kind uint64, data []byte) error {
	if kind == entryConfChange {
		return m.change(data)
	}
	if kind != entryNormal || len(data) == 0 {
		return nil
	}
	r, err := decodeRequest(data)
	switch {
	case errors.Is(err, errNotV3):
		v2, err := decodeV2Request(data)
		if err != nil {
			return err
		}
		return m.v2(v2)
	case err != nil:
		return err
	case r.v2 != nil:
		return m.v2(*r.v2)
	case r.attributes != nil:
		m.attributes(r.attributes.id, r.attributes.name, r.attributes.clientURLs)
	}
	return nil
}
