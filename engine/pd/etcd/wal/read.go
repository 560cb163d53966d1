package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"slices"
	"sort"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Segment is one file: <sequence>-<first raft index>.wal, both 16 hex digits.
type Segment struct {
	Name       string
	Seq, First uint64
	Size       int64
	End        int64 // bytes of whole, sound records
}

// Log is what the segments hold.
type Log struct {
	Segments []Segment // ascending by Seq
	// NodeID and ClusterID are etcd's ids of the member and of its cluster; 0 when no metadata record was readable.
	NodeID, ClusterID uint64
	HardState         HardState  // the last one
	Snapshots         []Snapshot // in the order of the records
	// Entries ascend by index, without those that later ones replaced. There may be gaps: before the log of a snapshot that a
	// leader sent, and where a segment is damaged.
	Entries []Entry
	Last    Entry // the last entry of the log, without Data, also when Entries does not have it; zero: none

	// Torn is a last record that was being written when the power went, or the bytes behind one: nobody was ever told that it is
	// there. Nil: the log ends with a whole record. Of class base.ErrCorrupt, like each of Damage, which is what cannot be such a
	// remainder; each ends its segment.
	Torn   error
	Damage []error
}

var segmentName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{16})\.wal$`)

// Read reads the segments in dir, oldest first, and keeps the entries with an index above after (None: no entry). Damage is told in the
// Log; errors are of class ErrIO.
func Read(fs base.FS, dir string, after uint64) (*Log, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, base.IO("list", dir, err)
	}
	l := &Log{}
	for _, n := range names {
		m := segmentName.FindStringSubmatch(n)
		if m == nil {
			continue // preallocated *.tmp
		}
		seq, _ := strconv.ParseUint(m[1], 16, 64)
		first, _ := strconv.ParseUint(m[2], 16, 64)
		l.Segments = append(l.Segments, Segment{Name: n, Seq: seq, First: first})
	}
	slices.SortFunc(l.Segments, func(a, b Segment) int { return compare(a.Seq, b.Seq) })
	r := reader{Log: l, after: after}
	for i := range l.Segments {
		s := &l.Segments[i]
		if i > 0 && l.Segments[i-1].Seq+1 != s.Seq {
			r.broken = true
			l.Damage = append(l.Damage, base.Corruptf(fs.PathJoin(dir, s.Name), 0, "the segment before this one is missing (the last one there is %s)", l.Segments[i-1].Name))
		}
		if err := r.segment(fs, fs.PathJoin(dir, s.Name), s, i == len(l.Segments)-1); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// reader goes from segment to segment.
type reader struct {
	*Log
	after  uint64
	crc    uint32
	broken bool // records are missing before the next one: the checksum starts anew
	meta   *metadata
}

// errTorn marks what a crash may leave.
var errTorn = errors.New("cut short")

// segment reads one file. Only failures of the operating system are returned.
func (r *reader) segment(fs base.FS, path string, s *Segment, last bool) error {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return base.IO("open", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return base.IO("stat", path, err)
	}
	s.Size = st.Size()
	in := bufio.NewReaderSize(f, len(zeros))
	for {
		n, err := r.frame(in, s)
		if err == nil && n > 0 {
			s.End += n
			continue
		}
		if err == nil {
			err = r.onlyZeros(in, s)
		}
		if err == nil {
			return nil
		}
		var sys *base.Error
		if errors.As(err, &sys) {
			sys.Path = path
			return sys
		}
		at, err2 := soundAfter(f, s)
		if err2 != nil {
			return base.IO("read", path, err2)
		}
		switch {
		case at != 0:
			r.damage(path, s, fmt.Errorf("%w; sound records follow at %d, so this is no crash's remainder", err, at))
		case errors.Is(err, errTorn) && last:
			r.Torn = base.Corruptf(path, s.End, "the last record was %v", err)
		default:
			r.damage(path, s, err)
		}
		return nil
	}
}

func (r *reader) damage(path string, s *Segment, err error) {
	r.Damage = append(r.Damage, base.Corruptf(path, s.End, "%v (the records before it, to entry %d, are sound)", err, r.Last.Index))
	r.broken = true
}

// soundAfter looks for records behind the one that could not be read: two in a row whose checksums continue each other. It returns the
// offset of the first; 0 when there are none. etcd takes a length field that leaves the file for a remainder of a crash and cuts off
// all that follows; one bit does that.
func soundAfter(f vfs.File, s *Segment) (int64, error) {
	from := s.End + lengthSize
	if from >= s.Size {
		return 0, nil
	}
	b := make([]byte, s.Size-from)
	if n, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	} else if n < len(b) {
		b = b[:n]
	}
	for at := 0; at+lengthSize <= len(b); at += lengthSize {
		one, size, ok := recordAt(b[at:])
		if !ok {
			continue
		}
		two, _, ok := recordAt(b[at+size:])
		if ok && two.kind != typeCRC && crc32.Update(one.crc, castagnoli, two.data) == two.crc {
			return from + int64(at), nil
		}
	}
	return 0, nil
}

// recordAt decodes the frame that b starts with and gives its size.
func recordAt(b []byte) (rec record, size int, ok bool) {
	if len(b) < lengthSize {
		return rec, 0, false
	}
	n, padding, ok := frameSize(binary.LittleEndian.Uint64(b))
	if left := int64(len(b) - lengthSize); !ok || n <= 0 || n > left || padding > left-n {
		return rec, 0, false
	}
	rec, err := decodeRecord(b[lengthSize:][:n])
	if err != nil || rec.kind < typeMetadata || rec.kind > typeSnapshot || len(rec.data) == 0 && rec.kind != typeCRC {
		return rec, 0, false
	}
	return rec, int(lengthSize + n + padding), true
}

// full reads len(buf) bytes; an end of the file before that is errTorn.
func full(in io.Reader, buf []byte) error {
	_, err := io.ReadFull(in, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends inside it", errTorn)
	}
	return base.IO("read", "", err)
}

// frame reads one record and takes it in. It returns its size, 0 at the end of what was written.
func (r *reader) frame(in *bufio.Reader, s *Segment) (int64, error) {
	var head [lengthSize]byte
	if s.Size == s.End {
		return 0, nil
	}
	if err := full(in, head[:]); err != nil {
		return 0, err
	}
	length := binary.LittleEndian.Uint64(head[:])
	if length == 0 {
		return 0, nil
	}
	size, padding, ok := frameSize(length)
	if left := s.Size - s.End - lengthSize; !ok || size > left || padding > left-size {
		if ok {
			return 0, fmt.Errorf("%w: its length of %d leaves the file", errTorn, size)
		}
		return 0, fmt.Errorf("length field %016X", length)
	}
	body := make([]byte, size+padding)
	if err := full(in, body); err != nil {
		return 0, err
	}
	rec, err := decodeRecord(body[:size])
	if err == nil && rec.kind != typeCRC {
		if r.crc = crc32.Update(r.crc, castagnoli, rec.data); r.crc != rec.crc {
			err = fmt.Errorf("checksum of the record is %08X, not %08X", r.crc, rec.crc)
		}
	}
	if err != nil {
		if zeroSector(body, s.End+lengthSize) {
			err = fmt.Errorf("%w: a whole sector of it is zero", errTorn)
		}
		return 0, err
	}
	if err := r.take(rec); err != nil {
		return 0, err
	}
	return lengthSize + size + padding, nil
}

var zeros = make([]byte, 64<<10)

// zeroSector tells whether a sector, or the part of it that the record has, was never written. at is the record's offset in its file.
func zeroSector(body []byte, at int64) bool {
	for len(body) > 0 {
		n := min(int64(len(body)), sectorSize-at%sectorSize)
		if bytes.Equal(body[:n], zeros[:n]) {
			return true
		}
		body, at = body[n:], at+n
	}
	return false
}

// onlyZeros looks at what follows the last record: etcd leaves only zeros there.
func (r *reader) onlyZeros(in *bufio.Reader, s *Segment) error {
	at := s.End + lengthSize
	for {
		_, err := in.Peek(1)
		if err == nil {
			b, _ := in.Peek(min(in.Buffered(), len(zeros)))
			if !bytes.Equal(b, zeros[:len(b)]) {
				return fmt.Errorf("%w: its place is zero, but there are bytes behind it, at %d or later", errTorn, at)
			}
			at += int64(len(b))
			_, err = in.Discard(len(b))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return base.IO("read", "", err)
		}
	}
}

// take applies the rules of ReadAll in server/wal/wal.go to one record.
func (r *reader) take(rec record) error {
	if rec.kind != typeCRC {
		return r.content(rec)
	}
	if len(rec.data) != 0 {
		return fmt.Errorf("a checksum record with %d bytes of data", len(rec.data))
	}
	// The first one, and one after damage, has nothing to be compared with.
	if r.crc != 0 && !r.broken && rec.crc != r.crc {
		return fmt.Errorf("the segment starts with checksum %08X, the records before it end with %08X", rec.crc, r.crc)
	}
	r.crc, r.broken = rec.crc, false
	return nil
}

func (r *reader) content(rec record) error {
	switch rec.kind {
	case typeEntry:
		e, err := decodeEntry(rec.data)
		if err != nil {
			return err
		}
		// It replaces the entry with this index and removes all later ones.
		at := sort.Search(len(r.Entries), func(i int) bool { return r.Entries[i].Index >= e.Index })
		r.Entries = r.Entries[:at]
		if e.Index > r.after {
			r.Entries = append(r.Entries, e)
		}
		r.Last = Entry{Type: e.Type, Term: e.Term, Index: e.Index}
	case typeState:
		h, err := decodeHardState(rec.data)
		if err != nil {
			return err
		}
		r.HardState = h
	case typeSnapshot:
		s, err := decodeSnapshot(rec.data)
		if err != nil {
			return err
		}
		r.Snapshots = append(r.Snapshots, s)
	case typeMetadata:
		m, err := decodeMetadata(rec.data)
		if err != nil {
			return err
		}
		if r.meta != nil && *r.meta != m {
			return fmt.Errorf("metadata of member %x of cluster %x in the log of member %x of cluster %x", m.node, m.cluster, r.meta.node, r.meta.cluster)
		}
		r.meta = &m
		r.NodeID, r.ClusterID = m.node, m.cluster
	default:
		return fmt.Errorf("record type %d", rec.kind)
	}
	return nil
}
