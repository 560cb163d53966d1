package raftlog

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pierrec/lz4/v4"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// batchBuilder writes a log batch from the text of the format, for tests only: it knows nothing of the decoder.
type batchBuilder struct {
	n       int
	items   []byte
	entries []byte
	lz4     bool
}

func (b *batchBuilder) add(p ...byte) *batchBuilder { b.items = append(b.items, p...); b.n++; return b }

func (b *batchBuilder) log(group, from, to, term uint64) *batchBuilder {
	b.items = append(appendUvarint(b.items, group), 1)
	b.items = appendUvarint(appendUvarint(b.items, to-from+1), from)
	for i := from; i <= to; i++ {
		b.entries = append(b.entries, entryBytes(term, i, fmt.Sprintf("g%d-%d", group, i))...)
		b.items = appendUvarint(b.items, uint64(len(b.entries)))
	}
	b.n++
	return b
}

func (b *batchBuilder) clean(group uint64) *batchBuilder {
	return b.add(append(appendUvarint(nil, group), 2, 1)...)
}

func (b *batchBuilder) compact(group, index uint64) *batchBuilder {
	return b.add(appendUvarint(append(appendUvarint(nil, group), 2, 2), index)...)
}

func (b *batchBuilder) put(group uint64, key, value string) *batchBuilder {
	p := append(appendUvarint(nil, group), 3, 1)
	p = append(appendUvarint(p, uint64(len(key))), key...)
	return b.add(append(appendUvarint(p, uint64(len(value))), value...)...)
}

func (b *batchBuilder) del(group uint64, key string) *batchBuilder {
	p := append(appendUvarint(nil, group), 3, 2)
	return b.add(append(appendUvarint(p, uint64(len(key))), key...)...)
}

func (b *batchBuilder) mark(id uint64, m byte) *batchBuilder {
	return b.put(id, string(atomicKey), string([]byte{m}))
}

func (b *batchBuilder) bytes(sig uint32) []byte {
	var block []byte
	compression := byte(0)
	if len(b.entries) > 0 {
		block = b.entries
		if b.lz4 {
			compression = 1
			dst := make([]byte, lz4.CompressBlockBound(len(block)))
			n, err := lz4.CompressBlock(block, dst, nil)
			if err != nil || n == 0 {
				panic(fmt.Sprint("lz4 test data: ", n, err))
			}
			block = append(binary.LittleEndian.AppendUint32(nil, uint32(len(block))), dst[:n]...)
		}
		block = binary.LittleEndian.AppendUint32(slices.Clone(block), crc(block))
	}
	section := append(appendUvarint(nil, uint64(b.n)), b.items...)
	section = binary.LittleEndian.AppendUint32(section, crc(section)^sig)
	out := binary.BigEndian.AppendUint64(nil, uint64(16+len(block)+len(section))<<8|uint64(compression))
	out = binary.BigEndian.AppendUint64(out, uint64(16+len(block)))
	return append(append(out, block...), section...)
}

func fileHeader(version uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(magic), version)
	if version == 2 {
		b = append(b, make([]byte, 8)...)
	}
	return b
}

func batches(version, seq uint64, list ...*batchBuilder) []byte {
	b := fileHeader(version)
	for _, x := range list {
		b = append(b, x.bytes(signature(version, seq))...)
	}
	return b
}

func nb() *batchBuilder { return &batchBuilder{} }

// testDir is a raft-engine directory in memory.
type testDir struct{ fs *vfs.MemFS }

func newDir() testDir {
	d := testDir{vfs.NewMem()}
	if err := d.fs.MkdirAll("/re", 0o755); err != nil {
		panic(err)
	}
	return d
}

func (d testDir) write(name string, content []byte) testDir {
	if err := base.WriteFileSync(base.NewMem(d.fs), d.fs.PathJoin("/re", name), content, ""); err != nil {
		panic(err)
	}
	return d
}

func (d testDir) log(seq uint64, list ...*batchBuilder) testDir {
	return d.write(FileName(Append, seq), batches(2, seq, list...))
}

func (d testDir) rewrite(seq uint64, list ...*batchBuilder) testDir {
	return d.write(FileName(Rewrite, seq), batches(2, seq, list...))
}

func (d testDir) open() (*Engine, *Report, error) { return OpenEngine(base.NewMem(d.fs), "/re", "") }

// dump prints what an engine holds, one line per group: every entry is read and its data compared with what log wrote.
func dump(t testing.TB, e *Engine) string {
	t.Helper()
	var b strings.Builder
	ids := make([]uint64, 0, len(e.groups))
	for id := range e.groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(&b, "%d:", id)
		if first, last, ok, _ := e.Bounds(id); ok {
			fmt.Fprintf(&b, " %d..%d", first, last)
			next, terms := first, ""
			err := e.Entries(id, 0, ^uint64(0), func(x raftstate.Entry) error {
				if want := fmt.Sprintf("g%d-%d", id, next); x.Index != next || string(x.Data) != want {
					return fmt.Errorf("entry %d of %d holds %q", next, id, x.Data)
				}
				if s := fmt.Sprintf(" term %d", x.Term); s != terms {
					terms = s
					fmt.Fprintf(&b, "%s from %d", s, x.Index)
				}
				next++
				return nil
			})
			if err != nil {
				fmt.Fprintf(&b, " %v", err)
			} else if next != last+1 {
				t.Fatalf("group %d: %d entries of %d..%d", id, next-first, first, last)
			}
		}
		for _, k := range e.Keys(id) {
			v, _ := e.Value(id, k)
			fmt.Fprintf(&b, " %s=%s", k, v)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Histories of the rules in the memtable; names say what happened, wanted is what the engine then holds.
func TestReplay(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  testDir
		want string // dump, or the start of an error
	}{
		{"an entry at a lower index cuts the tail", newDir().log(1, nb().log(2, 5, 20, 6)).log(2, nb().log(2, 10, 10, 7)),
			"2: 5..10 term 6 from 5 term 7 from 10\n"},
		{"the same over the rewrite queue", newDir().rewrite(1, nb().log(2, 5, 14, 6)).log(8, nb().log(2, 15, 20, 6)).
			log(9, nb().log(2, 10, 10, 7)), "2: 5..10 term 6 from 5 term 7 from 10\n"},
		{"clean drops entries and keys, what follows stays", newDir().log(1, nb().log(2, 5, 20, 6).put(2, "a", "1"),
			nb().clean(2).put(2, "R", "x")), "2: R=x\n"},
		{"clean in the append queue reaches the rewrite queue", newDir().rewrite(1, nb().log(2, 5, 9, 6).put(2, "R", "x")).
			log(1, nb().clean(2)), ""},
		{"a hole without clean is refused", newDir().log(1, nb().log(2, 5, 20, 6), nb().log(2, 30, 30, 6)),
			"read /re/0000000000000001.raftlog at offset 289: group 2: memtable has a hole: entry 30 after 20"},
		{"the rewrite queue may jump", newDir().rewrite(1, nb().log(2, 5, 9, 6), nb().log(2, 30, 31, 6)),
			"2: 30..31 term 6 from 30\n"},
		{"append may jump over rewrite", newDir().rewrite(1, nb().log(2, 5, 9, 6)).log(1, nb().log(2, 30, 31, 6)),
			"2: 30..31 term 6 from 30\n"},
		{"compact drops what is below", newDir().log(1, nb().log(2, 5, 20, 6), nb().compact(2, 11)), "2: 11..20 term 6 from 11\n"},
		{"compact reaches the rewrite queue", newDir().rewrite(1, nb().log(2, 5, 20, 6)).log(1, nb().compact(2, 11)),
			"2: 11..20 term 6 from 11\n"},
		{"compact below the first entry does nothing", newDir().log(1, nb().log(2, 5, 7, 6), nb().compact(2, 3)),
			"2: 5..7 term 6 from 5\n"},
		{"compact of everything, then a jump", newDir().log(1, nb().log(2, 5, 20, 6).put(2, "R", "x"), nb().compact(2, 1<<63),
			nb().log(2, 40, 41, 7)), "2: 40..41 term 7 from 40 R=x\n"},
		{"a stale rewritten tail lies under newer entries", newDir().rewrite(1, nb().log(2, 5, 20, 6)).
			log(3, nb().log(2, 12, 14, 7)), "2: 5..14 term 6 from 5 term 7 from 12\n"},
		{"append below everything rewritten replaces it", newDir().rewrite(1, nb().log(2, 12, 20, 6)).
			log(3, nb().log(2, 5, 6, 7)), "2: 5..6 term 7 from 5\n"},
		{"keys: newer wins, delete reaches the rewrite queue", newDir().rewrite(1, nb().put(2, "a", "1").put(2, "b", "1").put(2, "c", "1")).
			log(1, nb().put(2, "a", "2").del(2, "b")), "2: a=2 c=1\n"},
		{"two groups share one block", newDir().log(1, nb().log(2, 10, 12, 6).log(9, 5, 6, 7).put(9, "k", "v")),
			"2: 10..12 term 6 from 10\n9: 5..6 term 7 from 5 k=v\n"},
		{"LZ4", newDir().log(1, (&batchBuilder{lz4: true}).log(2, 10, 40, 6)), "2: 10..40 term 6 from 10\n"},
		{"files before the last hole are ignored", newDir().log(3, nb().log(2, 1, 1, 5)).log(4, nb().log(3, 1, 1, 5)).
			log(6, nb().log(4, 1, 1, 5)).log(7, nb().log(5, 1, 1, 5)), "4: 1..1 term 5 from 1\n5: 1..1 term 5 from 1\n"},
		{"version 1", newDir().write(FileName(Append, 7), batches(1, 7, nb().log(2, 5, 6, 6))), "2: 5..6 term 6 from 5\n"},
		{"version 2 after version 1", newDir().write(FileName(Append, 7), batches(1, 7, nb().log(2, 5, 6, 6))).log(8, nb().log(2, 7, 8, 6)),
			"2: 5..8 term 6 from 5\n"},
		{"a marker in the append queue is no key", newDir().log(1, nb().mark(0, 0).log(2, 5, 5, 6)), "2: 5..5 term 6 from 5\n"},
		{"atomic group", newDir().rewrite(1, nb().mark(0, 0).log(2, 5, 6, 6), nb().put(3, "R", "x"), nb().mark(0, 1).log(2, 7, 7, 6),
			nb().mark(0, 2).log(2, 8, 9, 6)), "2: 5..9 term 6 from 5\n3: R=x\n"},
		{"atomic group without end", newDir().rewrite(1, nb().mark(0, 0).log(2, 5, 6, 6), nb().mark(0, 1).log(2, 7, 7, 6)).
			log(1, nb().put(3, "R", "x")), "3: R=x\n"},
		{"atomic group without begin", newDir().rewrite(1, nb().mark(4, 1).log(2, 5, 6, 6), nb().mark(4, 2).log(2, 7, 7, 6)).
			log(1, nb().put(3, "R", "x")), "3: R=x\n"},
		{"begin again drops what was not ended", newDir().rewrite(1, nb().mark(0, 0).put(2, "a", "1"), nb().mark(0, 0).put(2, "b", "1"),
			nb().mark(0, 2)), "2: b=1\n"},
		{"an atomic group acts where it ends", newDir().rewrite(1, nb().mark(0, 0).clean(2), nb().log(2, 5, 6, 6), nb().mark(0, 2)), "2:\n"},
		{"a mark that does not exist", newDir().rewrite(1, nb().mark(0, 3)),
			"read /re/0000000000000001.rewrite at offset 69: atomic group 0 has a mark of 3: raft-engine panics"},
		{"a list of no entries", newDir().log(1, nb().add(2, 1, 0)), "2:\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, _, err := c.dir.open()
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = dump(t, e)
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// The two-map model below is written from the rules of the format, another way: entries by index in a map, tombstones kept in a
// list. Random histories must give the same result in both.
func TestReplayAgreesWithModel(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for round := 0; round < 300; round++ {
		d := newDir()
		m := newModel()
		for q, n := range []int{rng.Intn(3), 1 + rng.Intn(3)} {
			queue := []Queue{Rewrite, Append}[q]
			for f := 1; f <= n; f++ {
				var list []*batchBuilder
				for i := rng.Intn(4); i >= 0; i-- {
					b := nb()
					for j := rng.Intn(4); j >= 0; j-- {
						m.random(rng, queue, b)
					}
					list = append(list, b)
				}
				d.write(FileName(queue, uint64(f)), batches(2, uint64(f), list...))
			}
		}
		e, _, err := d.open()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if got, want := dump(t, e), m.String(); got != want {
			t.Fatalf("round %d:\ngot\n%swant\n%s", round, got, want)
		}
	}
}
