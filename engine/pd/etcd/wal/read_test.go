package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// builder writes a log as etcd does.
type builder struct {
	crc  uint32
	segs [][]byte
}

func varints(v ...uint64) []byte {
	var b []byte
	for i, x := range v {
		b = protowire.AppendVarint(protowire.AppendTag(b, protowire.Number(i+1), protowire.VarintType), x)
	}
	return b
}

func (b *builder) record(kind uint64, data []byte) {
	if kind != typeCRC {
		b.crc = crc32.Update(b.crc, castagnoli, data)
	}
	rec := varints(kind, uint64(b.crc))
	if data != nil {
		rec = protowire.AppendBytes(protowire.AppendTag(rec, 3, protowire.BytesType), data)
	}
	length := uint64(len(rec))
	pad := (8 - len(rec)%8) % 8
	if pad > 0 {
		length |= uint64(0x80|pad) << 56
	}
	last := &b.segs[len(b.segs)-1]
	*last = append(append(binary.LittleEndian.AppendUint64(*last, length), rec...), make([]byte, pad)...)
}

func (b *builder) segment() {
	b.segs = append(b.segs, nil)
	b.record(typeCRC, nil)
	b.record(typeMetadata, varints(1, 2))
	if len(b.segs) == 1 {
		b.record(typeSnapshot, varints(0, 0))
	}
}

func (b *builder) entry(term, index uint64, data string) {
	e := varints(0, term, index)
	if data != "" {
		e = protowire.AppendBytes(protowire.AppendTag(e, 4, protowire.BytesType), []byte(data))
	}
	b.record(typeEntry, e)
}

func (b *builder) read(t testing.TB, after uint64, room int, change func(seg int, content []byte) []byte) *Log {
	t.Helper()
	fs := base.NewMem(vfs.NewMem())
	must(t, fs.MkdirAll("/wal", 0o755))
	for i, s := range b.segs {
		content := append(append([]byte(nil), s...), make([]byte, room)...)
		if change != nil {
			content = change(i, content)
		}
		must(t, base.WriteFileSync(fs, fmt.Sprintf("/wal/%016x-%016x.wal", i, i*10), content, ""))
	}
	l, err := Read(fs, "/wal", after)
	must(t, err)
	return l
}

func (l *Log) text() string {
	var b strings.Builder
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "%d.%d%s ", e.Term, e.Index, e.Data)
	}
	return strings.TrimSpace(b.String())
}

// The first bytes of a log, as the format says.
func TestFirstBytes(t *testing.T) {
	var b builder
	b.segment()
	want := "\x04\x00\x00\x00\x00\x00\x00\x84\x08\x04\x10\x00\x00\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x82\x08\x01\x10\xa9\xf6\xf0\xac\x0c\x1a\x04\x08\x01\x10\x02\x00\x00"
	if got := string(b.segs[0][:len(want)]); got != want {
		t.Errorf("%X, want %X", got, want)
	}
}

func TestRead(t *testing.T) {
	three := func() *builder {
		b := &builder{}
		b.segment()
		b.entry(1, 1, "a")
		b.entry(1, 2, "b")
		b.record(typeState, varints(1, 7, 1))
		b.segment()
		b.entry(1, 3, "")
		b.entry(2, 3, "c")
		b.entry(2, 4, "d")
		b.record(typeState, varints(2, 7, 3))
		return b
	}
	replaced := three()
	replaced.entry(3, 2, "B")
	jumped := three()
	jumped.record(typeSnapshot, varints(9, 3))
	jumped.entry(3, 10, "j")
	conflict := three()
	conflict.record(typeMetadata, varints(1, 3))
	badState := three()
	badState.record(typeState, varints(0, 2, 3))
	unknown := three()
	unknown.record(9, varints(1))
	end := int64(len(three().segs[1]))
	for _, c := range []struct {
		story   string
		b       *builder
		after   uint64
		room    int
		change  func(seg int, content []byte) []byte
		entries string
		last    uint64
		commit  uint64
		torn    string // parts of the messages
		damage  string
	}{
		{story: "two segments, an entry proposed anew by the next leader", b: three(), room: 64, entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3},
		{story: "no room left in the segments", b: three(), entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3},
		{story: "only what comes after a snapshot", b: three(), after: 3, room: 8, entries: "2.4d", last: 4, commit: 3},
		{story: "no entries wanted", b: three(), after: None, room: 8, entries: "", last: 4, commit: 3},
		{story: "an entry takes back all later ones", b: replaced, room: 8, entries: "1.1a 3.2B", last: 2, commit: 3},
		{story: "after the snapshot of a leader the log goes on elsewhere", b: jumped, room: 8, entries: "1.1a 1.2b 2.3c 2.4d 3.10j", last: 10, commit: 3},
		{story: "another member's segment", b: conflict, room: 8, entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, damage: "of cluster 3"},
		{story: "a hard state that is none", b: badState, room: 8, entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, damage: "hard state of term 0"},
		{story: "a record that etcd does not write", b: unknown, room: 8, entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, damage: "record type 9"},
		{story: "cut inside the last record", b: three(), entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 1, torn: "leaves the file",
			change: func(i int, c []byte) []byte { return c[:len(c)-i*6] }},
		{story: "cut inside the last length", b: three(), entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, torn: "the file ends inside it",
			change: func(i int, c []byte) []byte { return append(c, "\x10\x00\x00"[:3*i]...) }},
		{story: "bytes behind a frame that was never written", b: three(), room: 256, entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, torn: "there are bytes behind it",
			change: func(i int, c []byte) []byte { c[len(c)-1] = byte(i); return c }},
		{story: "the first segment cut: the second still tells", b: three(), entries: "1.1a 1.2b 2.3c 2.4d", last: 4, commit: 3, damage: "leaves the file",
			change: func(i int, c []byte) []byte { return c[:len(c)-(1-i)*6] }},
		{story: "a wrong byte in an entry of the first segment", b: three(), room: 64, entries: "1.1a 2.3c 2.4d", last: 4, commit: 3, damage: "checksum",
			change: func(i int, c []byte) []byte {
				if i == 0 {
					c[strings.Index(string(c), "\x22\x01b")+2] = 'x'
				}
				return c
			}},
		{story: "a segment that does not continue the one before", b: three(), room: 64, entries: "1.1a 1.2b", last: 2, commit: 1, damage: "starts with checksum",
			change: func(i int, c []byte) []byte { c[12] ^= byte(i); return c }},
	} {
		t.Run(c.story, func(t *testing.T) {
			l := c.b.read(t, c.after, c.room, c.change)
			if got := l.text(); got != c.entries || l.Last.Index != c.last || l.HardState.Commit != c.commit {
				t.Errorf("entries %q, last %d, commit %d", got, l.Last.Index, l.HardState.Commit)
			}
			if torn := fmt.Sprint(l.Torn); c.torn == "" && l.Torn != nil || c.torn != "" && !strings.Contains(torn, c.torn) {
				t.Errorf("torn: %s", torn)
			}
			if damage := fmt.Sprint(l.Damage); c.damage == "" && l.Damage != nil || !strings.Contains(damage, c.damage) {
				t.Errorf("damage: %s", damage)
			}
			if l.NodeID != 1 || l.ClusterID != 2 {
				t.Errorf("member %x of %x", l.NodeID, l.ClusterID)
			}
			if c.torn == "" && c.damage == "" && c.b != replaced && c.b != jumped && l.Segments[1].End != end {
				t.Errorf("records end at %d, want %d", l.Segments[1].End, end)
			}
		})
	}
}

// Any bytes as a segment: entries ascend, and the sound part ends inside the file.
func FuzzRead(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("..", "testdata", "small", "member", "wal", "*.wal"))
	must(f, err)
	for _, n := range names {
		b, err := os.ReadFile(n)
		must(f, err)
		f.Add(b[:800]) // small seeds: the fuzzer spends its time on making large ones smaller
	}
	f.Fuzz(func(t *testing.T, data []byte) { scan(t, data) })
}

// scan reads bytes as a segment, without a file system: with one the fuzzer finds its own inputs hard to repeat.
func scan(t *testing.T, data []byte) *Log {
	r := reader{Log: &Log{}}
	s := &Segment{Size: int64(len(data))}
	in := bufio.NewReaderSize(bytes.NewReader(data), 512)
	for {
		n, err := r.frame(in, s)
		if err != nil || n == 0 {
			break
		}
		s.End += n
	}
	for i, e := range r.Entries {
		if i > 0 && r.Entries[i-1].Index >= e.Index {
			t.Fatal("entries do not ascend")
		}
	}
	if s.End < 0 || s.End > s.Size {
		t.Errorf("sound to %d of %d", s.End, len(data))
	}
	return r.Log
}

// Records of any type and content under a right checksum.
func FuzzRecord(f *testing.F) {
	f.Add(uint64(typeMetadata), varints(1, 2))
	f.Add(uint64(typeEntry), varints(0, 2, 3))
	f.Add(uint64(typeState), varints(2, 1, 3))
	f.Add(uint64(typeSnapshot), varints(3, 2))
	f.Fuzz(func(t *testing.T, kind uint64, data []byte) {
		var b builder
		b.segment()
		b.entry(1, 1, "a")
		b.record(kind, data)
		b.entry(5, 2, "b")
		l := scan(t, b.segs[0])
		if len(l.Entries) == 0 && l.Last.Index == 1 {
			t.Error("the entry before it is gone")
		}
	})
}
