package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func isClass(err, class error) bool { return err != nil && errors.Is(err, class) }

// keysOnly leaves the member list out of a rendering.
func keysOnly(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "member ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// judge accepts a reading of damaged files: a typed error; or views that are true states of the history, as of the index that they
// name; or a replay that does not agree.
func judge(t *testing.T, what string, f files, h []string) (outcome string) {
	t.Helper()
	fs := f.mem(t)
	s, err := Open(fs, memberDir, Options{})
	if err != nil {
		if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
		return "error"
	}
	right := true
	for _, v := range []*View{s.Certain, s.Possible} {
		right = right && v.Index < uint64(len(h)) && keysOnly(render(v)) == keysOnly(h[v.Index])
	}
	if right {
		if len(s.Damage) != 0 {
			return "right, damage told"
		}
		if s.Possible.Index+1 < uint64(len(h)) {
			return "right, shorter"
		}
		return "right"
	}
	r, err := s.CheckReplay(fs)
	if err == nil && len(r.Differences) > 0 {
		return "wrong, found by replay"
	}
	if err == nil && strings.Contains(r.Why, "the database is at") {
		return "wrong, the database claims entries that the log does not have"
	}
	t.Errorf("%s: certain %d, possible %d, damage %v: wrong and not found (%v)", what, s.Certain.Index, s.Possible.Index, s.Damage, err)
	return "wrong"
}

func stride(n int) int {
	if testing.Short() {
		return n * 10
	}
	return n
}

func summary(t *testing.T, outcomes map[string]int) {
	t.Helper()
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%5d %s", outcomes[o], o)
	}
}

// Every file cut at every length (strided): what is left tells the truth or is refused.
func TestCut(t *testing.T) {
	f := small(t)
	h := history(t, f)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		outcomes := map[string]int{}
		step := stride(83)
		if name == "snap/db" {
			step = stride(197)
		}
		for n := 0; n < len(f[name]); n += step {
			outcomes[judge(t, fmt.Sprintf("%s cut at %d", name, n), f.with(name, f[name][:n:n]), h)]++
		}
		t.Log(name)
		summary(t, outcomes)
	}
}

// Every byte of every file flipped (strided), one bit and all bits. bbolt's data pages have no checksum: only the replay of the log
// finds those.
func TestFlipped(t *testing.T) {
	f := small(t)
	h := history(t, f)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if strings.HasSuffix(name, ".tmp") {
			continue
		}
		outcomes := map[string]int{}
		step := stride(47)
		for at := 0; at < len(f[name]); at += step {
			if f[name][at] == 0 && at%5 != 0 {
				continue // free space, mostly
			}
			bad := bytes.Clone(f[name])
			bad[at] ^= []byte{1, 0xff, 0x80, 8}[at%4]
			outcomes[judge(t, fmt.Sprintf("%s flipped at %d to %02X", name, at, bad[at]), f.with(name, bad), h)]++
		}
		t.Log(name)
		summary(t, outcomes)
	}
}

// Sectors of zeros anywhere in the log: as a power cut leaves them at the end, as a broken disk elsewhere.
func TestZeroedSectors(t *testing.T) {
	f := small(t)
	h := history(t, f)
	outcomes := map[string]int{}
	for name, content := range f {
		if !strings.HasSuffix(name, ".wal") {
			continue
		}
		for at := 0; at+512 <= len(content); at += 512 {
			bad := bytes.Clone(content)
			clear(bad[at : at+512])
			outcomes[judge(t, fmt.Sprintf("%s without sector %d", name, at/512), f.with(name, bad), h)]++
		}
	}
	summary(t, outcomes)
}

// A bit in a length field makes the record leave the file. etcd takes that for the torn end of the log, and cuts off everything after
// it; here the sound records behind it give it away.
func TestLengthThatLeavesTheFile(t *testing.T) {
	f := small(t)
	const last = "wal/0000000000000002-0000000000000108.wal"
	bad := bytes.Clone(f[last])
	bad[8+int(bad[0])+5-int(bad[0])%8+3] ^= 0x40 // in the second record's length
	s := f.with(last, bad).open(t)
	if len(s.Damage) == 0 || !strings.Contains(fmt.Sprint(s.Damage), "sound records follow") {
		t.Errorf("damage %v, notes %v", s.Damage, s.Notes)
	}
}
