// Package wal reads etcd's write-ahead log: segments, records, entries, hard states. It opens nothing for writing and takes no lock;
// etcd's own functions do both. What a crash leaves at the end is told from damage, and damage ends only the segment that has it.
package wal

import (
	"fmt"
	"hash/crc32"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/internal/pb"
)

// A segment is a sequence of frames (etcd v3.5.15 server/wal/encoder.go, decoder.go, walpb/record.proto):
//
//	+----------+---------------------+---------------+
//	| length   | walpb.Record        | zeros         |   length: low 56 bits the bytes of the record; with padding the top byte is
//	| i64le    | length bytes        | to 8 bytes    |   0x80 | number of zeros (1..7), without it is 0
//	+----------+---------------------+---------------+
//	walpb.Record  1 type i64, 2 crc u32, 3 data bytes
//
// crc is CRC-32 (Castagnoli) over the data of all records since the last record of type crc, continuing from that record's value.
// Length 0 is the end of what was written; the rest of the segment, made 64,000,000 bytes long at first, is zeros.
const (
	lengthSize = 8
	sectorSize = 512
)

// Types of records.
const (
	typeMetadata = 1 // etcdserverpb.Metadata
	typeEntry    = 2 // raftpb.Entry
	typeState    = 3 // raftpb.HardState
	typeCRC      = 4 // no data: the running checksum at the start of a segment
	typeSnapshot = 5 // walpb.Snapshot
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameSize splits a length field; ok is false for one that etcd does not write.
func frameSize(length uint64) (record, padding int64, ok bool) {
	record = int64(length & (1<<56 - 1))
	top := byte(length >> 56)
	if top != 0 {
		padding = int64(top & 7)
	}
	return record, padding, top == 0 || top&^7 == 0x80
}

type record struct {
	kind int64
	crc  uint32
	data []byte
}

func decodeRecord(b []byte) (r record, err error) {
	var crc uint64
	err = pb.Decode("walpb.Record", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.I64(&r.kind)
		case 2:
			f.U64(&crc)
		case 3:
			f.Bytes(&r.data)
		}
	})
	r.crc = uint32(crc)
	return r, err
}

// The type of a record is not under its checksum: one flipped bit makes an entry of a hard state, and the other way round. etcd always
// writes every field of these messages but an entry's data, so all of them have to be there, and nothing else.
type strict struct {
	seen, want, unknown uint32
}

func (s *strict) saw(n protowire.Number) {
	if n > 31 || s.want&(1<<n) == 0 {
		s.unknown++
	} else {
		s.seen |= 1 << n
	}
}

func (s *strict) check(what string, optional uint32) error {
	if missing := s.want &^ optional &^ s.seen; missing != 0 || s.unknown != 0 {
		return fmt.Errorf("a record that is no %s", what)
	}
	return nil
}

// Types of entries.
const (
	EntryNormal     = 0
	EntryConfChange = 1
)

// Entry is raftpb.Entry: 1 type (0 normal, 1 membership change), 2 term u64, 3 index u64, 4 data bytes.
type Entry struct {
	Type, Term, Index uint64
	Data              []byte
}

func decodeEntry(b []byte) (e Entry, err error) {
	has := strict{want: 1<<1 | 1<<2 | 1<<3 | 1<<4}
	err = pb.Decode("Entry", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&e.Type)
		case 2:
			f.U64(&e.Term)
		case 3:
			f.U64(&e.Index)
		case 4:
			f.Bytes(&e.Data)
		}
		has.saw(f.N)
	})
	if err == nil {
		err = has.check("entry", 1<<4)
	}
	if err == nil && (e.Type > EntryConfChange || e.Type == EntryConfChange && len(e.Data) == 0 || e.Index == 0 || e.Term == 0) {
		err = fmt.Errorf("entry of type %d, term %d, index %d with %d bytes", e.Type, e.Term, e.Index, len(e.Data))
	}
	return e, err
}

// HardState is raftpb.HardState: 1 term u64, 2 vote u64, 3 commit u64.
type HardState struct {
	Term, Vote, Commit uint64
}

func decodeHardState(b []byte) (h HardState, err error) {
	has := strict{want: 1<<1 | 1<<2 | 1<<3}
	err = pb.Decode("HardState", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&h.Term)
		case 2:
			f.U64(&h.Vote)
		case 3:
			f.U64(&h.Commit)
		}
		has.saw(f.N)
	})
	if err == nil {
		err = has.check("hard state", 0)
	}
	if err == nil && h.Term == 0 && h != (HardState{}) {
		err = fmt.Errorf("hard state of term 0, vote %x, commit %d", h.Vote, h.Commit)
	}
	return h, err
}

// Snapshot is walpb.Snapshot: 1 index u64, 2 term u64 (3 conf_state is not needed here). It says that a .snap file of this name was
// written.
type Snapshot struct {
	Index, Term uint64
}

func decodeSnapshot(b []byte) (s Snapshot, err error) {
	has := strict{want: 1<<1 | 1<<2 | 1<<3}
	err = pb.Decode("walpb.Snapshot", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&s.Index)
		case 2:
			f.U64(&s.Term)
		case 3:
			f.Message(func([]byte) error { return nil })
		}
		has.saw(f.N)
	})
	if err == nil {
		err = has.check("snapshot record", 1<<3)
	}
	return s, err
}

// metadata is etcdserverpb.Metadata: 1 NodeID u64, 2 ClusterID u64; etcd's ids.
type metadata struct {
	node, cluster uint64
}

func decodeMetadata(b []byte) (m metadata, err error) {
	err = pb.Decode("Metadata", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&m.node)
		case 2:
			f.U64(&m.cluster)
		}
	})
	return m, err
}

// None is larger than every raft index.
const None = math.MaxUint64
