package raftjudge

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
)

// odd is a log batch written by hand, from the text of the format: it knows nothing of our encoder.
type odd struct {
	compression byte
	block       []byte // without its checksum
	section     []byte // without its checksum
	itemOff     int    // 0: what is right
	grow        int    // added to the total length
	badCRC      bool
}

func (o odd) bytes(seq uint32) []byte {
	var block []byte
	if o.block != nil {
		block = binary.LittleEndian.AppendUint32(slices.Clone(o.block), crc32.ChecksumIEEE(o.block))
	}
	section := slices.Clone(o.section)
	sum := crc32.ChecksumIEEE(section) ^ seq
	if o.badCRC {
		sum++
	}
	section = binary.LittleEndian.AppendUint32(section, sum)
	off := o.itemOff
	if off == 0 {
		off = 16 + len(block)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(16+len(block)+len(section)+o.grow)<<8|uint64(o.compression))
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return append(append(b, block...), section...)
}

// items makes a section that counts its parts.
func items(parts ...string) []byte {
	return append([]byte{byte(len(parts))}, strings.Join(parts, "")...)
}

const (
	put7    = "\x07\x03\x01\x01k\x01v" // group 7, key k
	put8    = "\x08\x03\x01\x01k\x01v"
	mBegin  = "\x00\x03\x01\x03__\x01\x01\x00"
	mMiddle = "\x00\x03\x01\x03__\x01\x01\x01"
	mEnd    = "\x00\x03\x01\x03__\x01\x01\x02"
	// mBegin1 is the marker of another group of batches.
	mBegin1 = "\x01\x03\x01\x03__\x01\x01\x00"
	mEnd1   = "\x01\x03\x01\x03__\x01\x01\x02"
)

// lineOf is the line of an entry of term 6 in a dump.
func lineOf(index uint64, raw string) string {
	return fmt.Sprintf("entry %d term 6 len %d crc %08X\n", index, len(raw), crc32.ChecksumIEEE([]byte(raw)))
}

// Batches that no writer makes, and what both readers make of them: each rule that a decoder has, and each that it has not.
func TestOddBatchesAgree(t *testing.T) {
	Available(t)
	entry := string(EntryBytes(6, 5, []byte("x")))
	two := entry + string(EntryBytes(6, 6, []byte("y")))
	n, m := byte(len(entry)), byte(len(two))
	log := func(group, first byte, tails ...byte) string {
		return string([]byte{group, 1, byte(len(tails)), first}) + string(tails)
	}
	const (
		none    = "" // the batch counts as not there
		longKey = "raft-engine panics"
		seven   = "region 7 empty\nkey 6B 76\n"
	)
	reads := func(lines string) string { return string(Reads) + lines }
	logOf := func(id string) string {
		return "region " + id + " first 5 last 6\n" + lineOf(5, entry) + lineOf(6, two[len(entry):])
	}
	for _, c := range []struct {
		name    string
		rewrite bool
		list    []odd
		want    string // verdict and dump, without region 1
	}{
		{"a plain put", false, []odd{{section: items(put7)}}, reads(seven)},
		{"bytes behind the last counted item", false, []odd{{section: append(items(put7), "rest"...)}}, reads(seven)},
		{"no item is counted", false, []odd{{section: []byte{0}}, {section: items(put7)}}, reads(seven)},
		{"compression without entries", false, []odd{{compression: 1, section: items(put7)}}, reads(seven)},
		{"an unknown compression", false, []odd{{compression: 2, section: items(put7)}}, reads(none)},
		{"items begin inside of the header", false, []odd{{section: items(put7), itemOff: 15}}, reads(none)},
		{"items begin behind the batch", false, []odd{{section: items(put7), itemOff: 1000}}, reads(none)},
		{"an item section that is a checksum alone", false, []odd{{section: nil}}, reads(none)},
		{"longer than the file", false, []odd{{section: items(put7), grow: 1}}, reads(none)},
		{"a wrong checksum", false, []odd{{section: items(put7), badCRC: true}}, reads(none)},
		{"a count with a longer varint than it needs", false, []odd{{section: append([]byte{0x81, 0}, put7...)}}, reads(seven)},
		{"a group above 64 bits", false, []odd{{section: items("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02" + put7[1:])}}, reads(none)},
		{"the largest group", false, []odd{{section: items("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + put7[1:])}},
			reads("region 18446744073709551615 empty\nkey 6B 76\n")},
		{"more items than there are", false, []odd{{section: append([]byte{2}, put7...)}}, reads(none)},
		{"an unknown item", false, []odd{{section: items("\x07\x04")}}, reads(none)},
		{"an unknown command", false, []odd{{section: items("\x07\x02\x03")}}, reads(none)},
		{"an unknown operation on a key", false, []odd{{section: items("\x07\x03\x03\x01k")}}, reads(none)},
		{"a key longer than the batch", false, []odd{{section: items("\x07\x03\x01\x7fk")}}, longKey},
		{"an empty key and an empty value", false, []odd{{section: items("\x07\x03\x01\x00\x00")}}, reads("region 7 empty\nkey - -\n")},
		{"a list of no entries", false, []odd{{section: items("\x07\x01\x00")}}, reads("region 7 empty\n")},
		{"a compaction of what is not there", false, []odd{{section: items("\x07\x02\x02\x05")}}, reads("region 7 empty\n")},
		{"a deletion of what is not there", false, []odd{{section: items("\x07\x03\x02\x01k")}}, reads("region 7 empty\n")},
		{"a clean of what is not there", false, []odd{{section: items("\x07\x02\x01")}}, reads(none)},

		{"entries", false, []odd{{block: []byte(two), section: items(log(7, 5, n, m))}}, reads(logOf("7"))},
		{"entries of two groups in one block", false, []odd{{block: []byte(two + entry), section: items(log(7, 5, n, m), log(8, 5, m+n))}},
			reads(logOf("7") + "region 8 first 5 last 5\n" + lineOf(5, entry))},
		{"a tail offset beyond the block", false, []odd{{block: []byte(two), section: items(log(7, 5, n, m+1))}}, string(Unreadable)},
		{"tail offsets that go back", false, []odd{{block: []byte(two), section: items(log(7, 5, m, n))}}, string(Unreadable)},
		{"entries under another index", false, []odd{{block: []byte(two), section: items(log(7, 6, n, m))}}, string(Unreadable)},
		{"entries without a block", false, []odd{{section: items(log(7, 5, n))}, {section: items(put8)}}, string(Unreadable)},
		{"an LZ4 envelope without content", false, []odd{{compression: 1, block: []byte{1, 0, 0, 0}, section: items(log(7, 5, 1))}}, reads(none)},
		{"an LZ4 block of another length", false, []odd{{compression: 1, block: append([]byte{n + 1, 0, 0, 0}, append([]byte{n << 4}, entry...)...),
			section: items(log(7, 5, n))}}, reads(none)},
		{"an LZ4 block", false, []odd{{compression: 1, block: append([]byte{n, 0, 0, 0}, append([]byte{n << 4}, entry...)...),
			section: items(log(7, 5, n))}}, reads("region 7 first 5 last 5\n" + lineOf(5, entry))},

		{"a marker in the append queue", false, []odd{{section: items(mBegin, put7)}}, reads(seven)},
		{"begin, end", true, []odd{{section: items(mBegin, put7)}, {section: items(mEnd, put8)}}, reads(seven + strings.Replace(seven, "7", "8", 1))},
		{"begin, middle, end", true, []odd{{section: items(mBegin)}, {section: items(mMiddle, put7)}, {section: items(mEnd)}}, reads(seven)},
		{"begin and no end", true, []odd{{section: items(mBegin, put7)}, {section: items(mMiddle, put8)}}, reads(none)},
		{"middle and end without begin", true, []odd{{section: items(mMiddle, put7)}, {section: items(mEnd, put8)}}, reads(none)},
		{"end alone, then a whole group", true, []odd{{section: items(mEnd, put8)}, {section: items(mBegin, put7)}, {section: items(mEnd)}}, reads(seven)},
		{"end twice", true, []odd{{section: items(mBegin, put7)}, {section: items(mEnd)}, {section: items(mEnd, put8)}}, reads(seven)},
		{"begin again", true, []odd{{section: items(mBegin, put8)}, {section: items(mBegin, put7)}, {section: items(mEnd)}}, reads(seven)},
		{"begin again after middle", true, []odd{{section: items(mBegin, put8)}, {section: items(mMiddle, put8)}, {section: items(mBegin, put7)}, {section: items(mEnd)}}, reads(seven)},
		{"two groups, one ends", true, []odd{{section: items(mBegin, put7)}, {section: items(mBegin1, put8)}, {section: items(mEnd)}}, reads(seven)},
		{"two groups, the other ends", true, []odd{{section: items(mBegin, put8)}, {section: items(mBegin1, put7)}, {section: items(mEnd1)}}, reads(seven)},
		{"what stands between begin and end comes before", true, []odd{{section: items(mBegin, put7)}, {section: items("\x07\x02\x01")}, {section: items(mEnd)}}, reads(seven)},
		{"a group acts where it ends, also what it takes away", true, []odd{{section: items(mBegin, "\x07\x02\x01")}, {section: items(put7)}, {section: items(mEnd)}}, reads("region 7 empty\n")},
		{"the marker stands behind other items", true, []odd{{section: items(put7, mBegin)}, {section: items(put8, mEnd)}}, reads(seven + strings.Replace(seven, "7", "8", 1))},
		{"a marker of two bytes is none", true, []odd{{section: items("\x00\x03\x01\x03__\x01\x02\x00\x00", put7)}}, reads(seven)},
		{"a marker that does not exist", true, []odd{{section: items("\x00\x03\x01\x03__\x01\x01\x03", put7)}, {section: items(put8)}}, string(Refused)},
	} {
		dir := filepath.Join(t.TempDir(), "engine")
		must(t, os.Mkdir(dir, 0o755))
		first := odd{section: items("\x01\x03\x01\x01k\x01v")}
		odds, plain := raftlog.AppendHeader(nil, 2), raftlog.AppendHeader(nil, 2)
		odds = append(odds, first.bytes(1)...)
		for _, o := range c.list {
			odds = append(odds, o.bytes(1)...)
		}
		names := []string{raftlog.FileName(raftlog.Append, 1), raftlog.FileName(raftlog.Rewrite, 1)}
		if c.rewrite {
			slices.Reverse(names)
		}
		must(t, os.WriteFile(filepath.Join(dir, names[0]), odds, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, names[1]), plain, 0o600))
		try := Trial{Mode: raftlog.TolerateTail}
		got := Trials(t, dir, []Trial{try}, "recovery-threads=1")[0]
		ours := oursAfter(t, logFiles(t, dir), try)
		if c.want == longKey {
			// The checksum vouches for such a length, so it never comes from damage. raft-engine panics on it; for us it is a bad batch.
			if got.Verdict != Refused || !strings.Contains(got.Why, "out of range") || ours.Verdict != Reads || strings.Contains(ours.Dump, "region 7") {
				t.Errorf("%s: ours %+v, raft-engine %+v", c.name, ours, got)
			}
			continue
		}
		if ours.Verdict != got.Verdict || got.Verdict == Reads && ours.Dump != got.Dump {
			t.Errorf("%s: ours %s (%s)\n%sraft-engine %s (%s)\n%s", c.name, ours.Verdict, ours.Why, ours.Dump, got.Verdict, got.Why, got.Dump)
			continue
		}
		is := string(got.Verdict)
		if got.Verdict == Reads {
			is += strings.Replace(got.Dump, "region 1 empty\nkey 6B 76\n", "", 1)
		}
		if is != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, is, c.want)
		}
	}
}
