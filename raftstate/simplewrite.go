package raftstate

import (
	"encoding/binary"

	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// SimpleWrite, the codec of raftstore-v2's writes. A protobuf message never begins with 00.
//
//	| 00 | header length varint | RaftRequestHeader | item | item | ...
//
//	item put          | 00 | cf | len | key   | len | value |
//	     delete       | 01 | cf | len | key   |
//	     delete range | 02 | cf | len | start | len | end   | notify_only u8 |
//	     ingest       | 03 | len = number of files | { varint length | SSTMeta } ... |
//
//	cf   00 default, 01 write, 02 lock, 03 followed by len | name
//	len  b ≤ 240: b | 241..248: 240 + (b-241)*256 + next byte | 249: 2288 + next 2 bytes BE | 250: next 3 bytes BE | 251: next 4 bytes BE
//
// Source: tikv/tikv master components/raftstore/src/store/simple_write.rs.
const simpleWriteMagic = 0x00

const (
	simplePut         = 0
	simpleDelete      = 1
	simpleDeleteRange = 2
	simpleIngest      = 3
)

type simpleReader struct {
	b   []byte
	err error
}

func (r *simpleReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = corruptf("SimpleWrite", format, args...)
	}
	r.b = nil
}

func (r *simpleReader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("needs %d bytes, has %d", n, len(r.b))
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *simpleReader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *simpleReader) len() int {
	b := r.byte()
	switch {
	case b <= 240:
		return int(b)
	case b <= 248:
		return 240 + (int(b)-241)*256 + int(r.byte())
	case b == 249:
		if v := r.take(2); v != nil {
			return 2288 + int(binary.BigEndian.Uint16(v))
		}
	case b == 250:
		if v := r.take(3); v != nil {
			return int(v[0])<<16 | int(v[1])<<8 | int(v[2])
		}
	case b == 251:
		if v := r.take(4); v != nil {
			return int(binary.BigEndian.Uint32(v))
		}
	default:
		r.fail("length byte %d", b)
	}
	return 0
}

func (r *simpleReader) bytes() []byte { return r.take(r.len()) }

func (r *simpleReader) cf() string {
	switch b := r.byte(); b {
	case 0:
		return "default"
	case 1:
		return "write"
	case 2:
		return "lock"
	case 3:
		return cfName(string(r.bytes()))
	default:
		r.fail("column family tag %d", b)
		return ""
	}
}

func decodeSimpleWrite(data []byte) (Command, error) {
	header, n := protowire.ConsumeBytes(data[1:])
	if n < 0 {
		return Command{}, &DecodeError{What: "SimpleWrite", Reason: "header", Err: protowire.ParseError(n)}
	}
	var h raft_cmdpb.RaftRequestHeader
	if err := h.Unmarshal(header); err != nil {
		return Command{}, &DecodeError{What: "SimpleWrite", Reason: "header", Err: err}
	}
	c := Command{Kind: CommandWrite, SimpleWrite: true, HasHeader: true, Header: headerOf(&h)}
	r := simpleReader{b: data[1+n:]}
	for len(r.b) > 0 && r.err == nil {
		switch tag := r.byte(); tag {
		case simplePut:
			c.Requests = append(c.Requests, Request{Op: OpPut, CF: r.cf(), Key: r.bytes(), Value: r.bytes()})
		case simpleDelete:
			c.Requests = append(c.Requests, Request{Op: OpDelete, CF: r.cf(), Key: r.bytes()})
		case simpleDeleteRange:
			c.Requests = append(c.Requests, Request{Op: OpDeleteRange, CF: r.cf(), Key: r.bytes(), EndKey: r.bytes(),
				NotifyOnly: r.byte() != 0})
		case simpleIngest:
			for i := r.len(); i > 0 && r.err == nil; i-- {
				b, n := protowire.ConsumeBytes(r.b)
				var m import_sstpb.SSTMeta
				if n < 0 || m.Unmarshal(b) != nil {
					r.fail("SSTMeta")
					break
				}
				r.b = r.b[n:]
				c.Requests = append(c.Requests, ingestOf(&m))
			}
		default:
			r.fail("item tag %d", tag)
		}
	}
	if r.err != nil {
		return Command{}, r.err
	}
	return c, nil
}
