package etcd

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// errWire is the cause of every protobuf message that does not decode.
var errWire = errors.New("protobuf")

// message decodes the top level of a protobuf message. Fields are asked for by number and type; the last one of a number wins, as in
// etcd's generated code, and like there a known field of another wire type is an error: etcd tells requests from older ones by that.
type message struct {
	name string
	err  error
}

func (m *message) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("%w: %s: %s", errWire, m.name, fmt.Sprintf(format, args...))
	}
}

// field is one field of a message.
type field struct {
	m    *message
	n    protowire.Number
	t    protowire.Type
	num  uint64
	data []byte
}

// decode calls fn for each field of b until the end or the first error. Unknown fields are skipped by fn not looking at them.
func decode(name string, b []byte, fn func(f field)) error {
	m := &message{name: name}
	for len(b) > 0 && m.err == nil {
		n, t, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			m.fail("%v", protowire.ParseError(tag))
			break
		}
		f := field{m: m, n: n, t: t}
		var size int
		switch t {
		case protowire.VarintType:
			f.num, size = protowire.ConsumeVarint(b[tag:])
		case protowire.BytesType:
			f.data, size = protowire.ConsumeBytes(b[tag:])
		default:
			size = protowire.ConsumeFieldValue(n, t, b[tag:])
		}
		if size < 0 {
			m.fail("field %d: %v", n, protowire.ParseError(size))
			break
		}
		fn(f)
		b = b[tag+size:]
	}
	return m.err
}

func (f field) want(t protowire.Type) bool {
	if f.t != t {
		f.m.fail("field %d has wire type %d, not %d", f.n, f.t, t)
	}
	return f.t == t
}

func (f field) u64(v *uint64) {
	if f.want(protowire.VarintType) {
		*v = f.num
	}
}

func (f field) i64(v *int64) {
	if f.want(protowire.VarintType) {
		*v = int64(f.num)
	}
}

func (f field) bool(v *bool) {
	if f.want(protowire.VarintType) {
		*v = f.num != 0
	}
}

// bytes gives the field's content, not copied.
func (f field) bytes(v *[]byte) {
	if f.want(protowire.BytesType) {
		*v = f.data
	}
}

func (f field) string(v *string) {
	if f.want(protowire.BytesType) {
		*v = string(f.data)
	}
}

// message decodes a nested message.
func (f field) message(parse func(b []byte) error) {
	if f.want(protowire.BytesType) {
		if err := parse(f.data); err != nil && f.m.err == nil {
			f.m.err = err
		}
	}
}

// decodeKeyValue decodes mvccpb.KeyValue (etcd v3.5.15 api/mvccpb/kv.proto): 1 key bytes, 2 create_revision i64, 3 mod_revision i64,
// 4 version i64, 5 value bytes, 6 lease i64. Key and Value are parts of b.
func decodeKeyValue(b []byte) (kv KV, err error) {
	err = decode("KeyValue", b, func(f field) {
		switch f.n {
		case 1:
			f.bytes(&kv.Key)
		case 2:
			f.i64(&kv.Create)
		case 3:
			f.i64(&kv.Mod)
		case 4:
			f.i64(&kv.Version)
		case 5:
			f.bytes(&kv.Value)
		case 6:
			f.i64(&kv.Lease)
		}
	})
	return kv, err
}

// Lease is leasepb.Lease (etcd v3.5.15 server/lease/leasepb/lease.proto): 1 ID, 2 TTL, 3 RemainingTTL, all i64; seconds.
type Lease struct {
	ID, TTL, RemainingTTL int64
}

func decodeLease(b []byte) (l Lease, err error) {
	err = decode("Lease", b, func(f field) {
		switch f.n {
		case 1:
			f.i64(&l.ID)
		case 2:
			f.i64(&l.TTL)
		case 3:
			f.i64(&l.RemainingTTL)
		}
	})
	return l, err
}

// alarm is AlarmMember (etcd v3.5.15 api/etcdserverpb/rpc.proto): 1 memberID u64, 2 alarm (1 NOSPACE, 2 CORRUPT).
type alarm struct {
	member uint64
	kind   uint64
}

const (
	alarmNoSpace = 1
	alarmCorrupt = 2
)

func decodeAlarm(b []byte) (a alarm, err error) {
	err = decode("AlarmMember", b, func(f field) {
		switch f.n {
		case 1:
			f.u64(&a.member)
		case 2:
			f.u64(&a.kind)
		}
	})
	return a, err
}
