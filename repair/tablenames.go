package repair

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// tableNames remembers the name of the last table: neighbours share it.
type tableNames struct {
	start []byte // of the prefixes that have it; empty: nothing is remembered
	name  string
}

// of names the part of the key space that a row lies in.
func (t *tableNames) of(prefix []byte) string {
	n := tableStart(prefix)
	if n > 0 && bytes.Equal(prefix[:n], t.start) {
		return t.name
	}
	t.start = append(t.start[:0], prefix[:n]...)
	user, err := mvcc.UserKey(prefix)
	if err != nil {
		t.name = "undecodable keys"
	} else {
		t.name = mvcc.DescribeUserKey(user).Space()
	}
	return t.name
}

// tableStart is the length of the part of a prefix that says which table it belongs to, 0 when it does not say: after 'z' a table key
// has 't' and 8 bytes of its id, in a keyspace 4 bytes before that, in groups of 8 bytes and a marker.
func tableStart(prefix []byte) int {
	const group, marker2 = 9, 1 + 9 + 8
	if len(prefix) <= marker2 || prefix[group] != 0xFF {
		return 0
	}
	inSecond := 8 - int(0xFF-prefix[marker2]) // bytes of the user key in its second group
	switch {
	case prefix[1] == 't' && inSecond >= 1:
		return 1 + group + 1
	case prefix[1] == 'x' && prefix[5] == 't' && inSecond >= 5:
		return 1 + group + 5
	}
	return 0
}
