package regionmeta

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// A footer that asks for more than the file has is refused before anything is allocated.
func TestFooter(t *testing.T) {
	foot := func(handles ...byte) []byte {
		b := append(make([]byte, 100), handles...)
		b = append(b, make([]byte, footerLen-len(magic)-len(handles))...)
		return append(b, magic...)
	}
	for what, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"fits":             {foot(0, 10, 20, 70), true},
		"to the last byte": {foot(0, 10, 20, 75), true},
		"one too many":     {foot(0, 10, 20, 76), false},
		"huge":             {foot(0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 1), false},
		"huge offset":      {foot(0, 10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1), false},
		"no magic":         {make([]byte, 200), false},
		"short":            {[]byte(magic), false},
	} {
		err := checkFooter("x.ldb", bytes.NewReader(c.b), int64(len(c.b)))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzSession(f *testing.F) {
	f.Add([]byte("\x01\x1aleveldb.BytewiseComparator\x02\x01\x03\x02\x04\x00"))
	f.Add([]byte("\x07\x00\x05\x64\x01a\x01b\x06\x00\x05\x05\x01\x01x\x09\x00"))
	f.Add([]byte("\x01\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x07\xff\xff\xff\xff\x0f\x05\x64\x01a\x01b"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = checkSession(b) // it may say what it likes, as long as it comes back
	})
}
