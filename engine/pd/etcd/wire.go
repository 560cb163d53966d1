package etcd

import "github.com/tikv-repair/tikv-repair/engine/pd/etcd/internal/pb"

// decodeKeyValue decodes mvccpb.KeyValue (etcd v3.5.15 api/mvccpb/kv.proto): 1 key bytes, 2 create_revision i64, 3 mod_revision i64,
// 4 version i64, 5 value bytes, 6 lease i64. Key and Value are parts of b.
func decodeKeyValue(b []byte) (kv KV, err error) {
	err = pb.Decode("KeyValue", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.Bytes(&kv.Key)
		case 2:
			f.I64(&kv.Create)
		case 3:
			f.I64(&kv.Mod)
		case 4:
			f.I64(&kv.Version)
		case 5:
			f.Bytes(&kv.Value)
		case 6:
			f.I64(&kv.Lease)
		}
	})
	return kv, err
}

// Lease is leasepb.Lease (etcd v3.5.15 server/lease/leasepb/lease.proto): 1 ID, 2 TTL, 3 RemainingTTL, all i64; seconds.
type Lease struct {
	ID, TTL, RemainingTTL int64
}

func decodeLease(b []byte) (l Lease, err error) {
	err = pb.Decode("Lease", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.I64(&l.ID)
		case 2:
			f.I64(&l.TTL)
		case 3:
			f.I64(&l.RemainingTTL)
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
	err = pb.Decode("AlarmMember", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&a.member)
		case 2:
			f.U64(&a.kind)
		}
	})
	return a, err
}
