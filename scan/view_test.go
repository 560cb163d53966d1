package scan

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func region(id uint64, start, end string, state raftstate.PeerState) Region {
	enc := func(user string) raftstate.Key {
		if user == "" {
			return nil
		}
		return mvcc.EncodeBytes(nil, []byte(user))
	}
	r := Region{ID: id}
	r.State.State = state
	r.State.Region = raftstate.Region{ID: id, StartKey: enc(start), EndKey: enc(end), Peers: []raftstate.Peer{{ID: 1, StoreID: 1}}}
	return r
}

func segmentText(segs []segment) string {
	var out []string
	for _, s := range segs {
		name := func(b []byte) string {
			if u, err := mvcc.UserKey(b); err == nil {
				return string(u)
			}
			return fmt.Sprintf("%q", b)
		}
		out = append(out, fmt.Sprintf("%s..%s %s", name(s.lower), name(s.upper), s.raw))
	}
	return strings.Join(out, "; ")
}

// A client reads what live regions hold: neighbours are one range, a tombstone's range is nobody's, bounds clip, and the raw range
// of API V2 is cut out.
func TestSegments(t *testing.T) {
	regions := []Region{
		region(4, "t3", "", raftstate.Normal), region(2, "a", "m1", raftstate.Normal), region(3, "m1", "q", raftstate.Merging),
		region(5, "q", "t3", raftstate.Tombstone),
	}
	for _, c := range []struct {
		raw          RawMode
		lower, upper string
		want         string
	}{
		{RawNone, "", "", `a..q none; t3.."{" none`},
		{RawNone, "b", "u", "b..q none; t3..u none"},
		{RawNone, "q", "t3", ""},
		{RawNone, "x", "b", ""},
		{RawV2, "", "", `a..q none; t3.."{" none`},
	} {
		v := &View{Raw: c.raw, s: &Store{Regions: regions}}
		v.spans = v.s.liveSpans()
		bound := func(u string) []byte {
			if u == "" {
				return nil
			}
			return v.dbBound([]byte(u))
		}
		if got := segmentText(v.segments(bound(c.lower), bound(c.upper))); got != c.want {
			t.Errorf("[%s, %s) %s: %s, want %s", c.lower, c.upper, c.raw, got, c.want)
		}
	}
	whole := &View{Raw: RawV2, s: &Store{Regions: []Region{region(2, "", "", raftstate.Normal)}}}
	whole.spans = whole.s.liveSpans()
	if got, want := segmentText(whole.segments(nil, nil)), `"z".."zr" none; "zr".."zs" V2; "zs".."{" none`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// An API V2 pair was readable at T if it had not expired by the wall clock of T.
func TestExpired(t *testing.T) {
	at := mvcc.TS(1000_000) << 18 // second 1000
	for _, c := range []struct {
		expire uint64
		t      mvcc.TS
		want   bool
	}{{0, at, false}, {999, at, true}, {1000, at, true}, {1001, at, false}, {1, mvcc.MaxTS, false}} {
		if got := expired(c.expire, c.t); got != c.want {
			t.Errorf("expire %d at %d: %t", c.expire, c.t, got)
		}
	}
}

func TestHexForms(t *testing.T) {
	if got := string(appendHex(nil, []byte{0, 0x7A, 0xFF})); got != "007AFF" || got != upperHex([]byte{0, 0x7A, 0xFF}) {
		t.Error(got)
	}
	if b, err := ParseHex(" 0x7aFf "); err != nil || !bytes.Equal(b, []byte{0x7A, 0xFF}) {
		t.Errorf("%X, %v", b, err)
	}
}
