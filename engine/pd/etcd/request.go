package etcd

import (
	"errors"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/internal/pb"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

const (
	entryNormal     = wal.EntryNormal
	entryConfChange = wal.EntryConfChange
)

// request is etcdserverpb.InternalRaftRequest (etcd v3.5.15 api/etcdserverpb/raft_internal.proto), as far as it changes keys, leases or
// members:
//
//	 2 v2  3 range  4 put  5 delete_range  6 txn  7 compaction  8 lease_grant  9 lease_revoke  10 alarm  11 lease_checkpoint
//	100 header  1000.. auth  1300 cluster_version_set  1301 cluster_member_attr_set  1302 downgrade_info_set
type request struct {
	v2          *v2Request
	isRange     bool
	put         *putRequest
	deleteRange *rangeRequest
	txn         *txnRequest
	compaction  *int64 // revision
	leaseGrant  *Lease
	leaseRevoke *int64 // id
	alarm       *alarmRequest
	attributes  *attributesRequest
}

// putRequest: 1 key, 2 value, 3 lease i64, 4 prev_kv, 5 ignore_value, 6 ignore_lease.
type putRequest struct {
	key, value               []byte
	lease                    int64
	ignoreValue, ignoreLease bool
}

// rangeRequest is a RangeRequest (1 key, 2 range_end, 4 revision) or a DeleteRangeRequest (1 key, 2 range_end).
type rangeRequest struct {
	key, end []byte
	revision int64
}

// txnRequest: 1 compare, 2 success, 3 failure, all repeated.
type txnRequest struct {
	compares         []compare
	success, failure []operation
}

// operation is a RequestOp: one of 1 range, 2 put, 3 delete_range, 4 txn; the last one counts.
type operation struct {
	rangeOf     *rangeRequest
	put         *putRequest
	deleteRange *rangeRequest
	txn         *txnRequest
}

// compare is a Compare: 1 result, 2 target, 3 key, one of 4 version, 5 create, 6 mod, 7 value, 8 lease; 64 range_end.
type compare struct {
	result, target uint64
	key, end       []byte
	union          uint64 // the field of the value: 4..8; 0 none
	number         int64
	value          []byte
}

// Compare.result and Compare.target.
const (
	resultEqual    = 0
	resultGreater  = 1
	resultLess     = 2
	resultNotEqual = 3

	targetVersion = 0
	targetCreate  = 1
	targetMod     = 2
	targetValue   = 3
	targetLease   = 4

	unionValue = 7
)

// alarmRequest: 1 action (1 activate, 2 deactivate), 2 member u64, 3 alarm.
type alarmRequest struct {
	action uint64
	alarm
}

// attributesRequest is ClusterMemberAttrSetRequest: 1 member_ID u64, 2 {1 name, 2 client_urls repeated}.
type attributesRequest struct {
	id         uint64
	name       string
	clientURLs []string
}

// maxNesting bounds transactions in transactions. etcd takes at most 128 operations per request, nested ones included.
const maxNesting = 130

// errNotV3: the entry is not an InternalRaftRequest; then it is a request of the old API.
var errNotV3 = errors.New("not an InternalRaftRequest")

// decodeRequest decodes the data of a normal entry; slices are parts of b. When it does not parse the error is errNotV3.
func decodeRequest(b []byte) (*request, error) {
	r := &request{}
	err := pb.Decode("InternalRaftRequest", b, func(f pb.Field) {
		switch f.N {
		case 1:
			var id uint64
			f.U64(&id)
		case 2:
			f.Message(func(b []byte) (err error) {
				r.v2 = &v2Request{}
				*r.v2, err = decodeV2Request(b)
				return err
			})
		case 3:
			r.isRange = true
			f.Message(func(b []byte) error { _, err := decodeRange(b); return err })
		case 4:
			f.Message(func(b []byte) (err error) { r.put, err = decodePut(b); return err })
		case 5:
			f.Message(func(b []byte) (err error) { r.deleteRange, err = decodeDelete(b); return err })
		case 6:
			f.Message(func(b []byte) (err error) { r.txn, err = decodeTxn(b, 0); return err })
		case 7:
			r.compaction = new(int64)
			f.Message(func(b []byte) error {
				return pb.Decode("CompactionRequest", b, func(f pb.Field) {
					if f.N == 1 {
						f.I64(r.compaction)
					}
				})
			})
		case 8: // 1 TTL, 2 ID: not the order of leasepb.Lease
			r.leaseGrant = &Lease{}
			f.Message(func(b []byte) error {
				return pb.Decode("LeaseGrantRequest", b, func(f pb.Field) {
					switch f.N {
					case 1:
						f.I64(&r.leaseGrant.TTL)
					case 2:
						f.I64(&r.leaseGrant.ID)
					}
				})
			})
		case 9:
			r.leaseRevoke = new(int64)
			f.Message(func(b []byte) error {
				return pb.Decode("LeaseRevokeRequest", b, func(f pb.Field) {
					if f.N == 1 {
						f.I64(r.leaseRevoke)
					}
				})
			})
		case 10:
			r.alarm = &alarmRequest{}
			f.Message(func(b []byte) error {
				return pb.Decode("AlarmRequest", b, func(f pb.Field) {
					switch f.N {
					case 1:
						f.U64(&r.alarm.action)
					case 2:
						f.U64(&r.alarm.member)
					case 3:
						f.U64(&r.alarm.kind)
					}
				})
			})
		case 1301:
			f.Message(func(b []byte) (err error) { r.attributes, err = decodeAttributes(b); return err })
		case 11, 100, 1300, 1302:
			f.Message(func([]byte) error { return nil })
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotV3, err)
	}
	return r, nil
}

func decodePut(b []byte) (*putRequest, error) {
	p := &putRequest{}
	return p, pb.Decode("PutRequest", b, func(f pb.Field) {
		var prevKV bool
		switch f.N {
		case 1:
			f.Bytes(&p.key)
		case 2:
			f.Bytes(&p.value)
		case 3:
			f.I64(&p.lease)
		case 4:
			f.Bool(&prevKV)
		case 5:
			f.Bool(&p.ignoreValue)
		case 6:
			f.Bool(&p.ignoreLease)
		}
	})
}

func decodeRange(b []byte) (*rangeRequest, error) {
	r := &rangeRequest{}
	return r, pb.Decode("RangeRequest", b, func(f pb.Field) {
		var other uint64
		switch f.N {
		case 1:
			f.Bytes(&r.key)
		case 2:
			f.Bytes(&r.end)
		case 4:
			f.I64(&r.revision)
		case 3, 5, 6, 7, 8, 9, 10, 11, 12, 13:
			f.U64(&other)
		}
	})
}

func decodeDelete(b []byte) (*rangeRequest, error) {
	r := &rangeRequest{}
	return r, pb.Decode("DeleteRangeRequest", b, func(f pb.Field) {
		var prevKV bool
		switch f.N {
		case 1:
			f.Bytes(&r.key)
		case 2:
			f.Bytes(&r.end)
		case 3:
			f.Bool(&prevKV)
		}
	})
}

func decodeTxn(b []byte, depth int) (*txnRequest, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("%w: more than %d transactions in each other", pb.ErrWire, maxNesting)
	}
	t := &txnRequest{}
	return t, pb.Decode("TxnRequest", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.Message(func(b []byte) error {
				c, err := decodeCompare(b)
				t.compares = append(t.compares, c)
				return err
			})
		case 2, 3:
			f.Message(func(b []byte) error {
				o, err := decodeOperation(b, depth)
				if f.N == 2 {
					t.success = append(t.success, o)
				} else {
					t.failure = append(t.failure, o)
				}
				return err
			})
		}
	})
}

func decodeOperation(b []byte, depth int) (o operation, err error) {
	err = pb.Decode("RequestOp", b, func(f pb.Field) {
		f.Message(func(b []byte) (err error) {
			switch f.N {
			case 1:
				o = operation{}
				o.rangeOf, err = decodeRange(b)
			case 2:
				o = operation{}
				o.put, err = decodePut(b)
			case 3:
				o = operation{}
				o.deleteRange, err = decodeDelete(b)
			case 4:
				o = operation{}
				o.txn, err = decodeTxn(b, depth+1)
			}
			return err
		})
	})
	return o, err
}

func decodeCompare(b []byte) (c compare, err error) {
	err = pb.Decode("Compare", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&c.result)
		case 2:
			f.U64(&c.target)
		case 3:
			f.Bytes(&c.key)
		case 4, 5, 6, 8:
			c.union, c.value = uint64(f.N), nil
			f.I64(&c.number)
		case unionValue:
			c.union, c.number = uint64(f.N), 0
			f.Bytes(&c.value)
		case 64:
			f.Bytes(&c.end)
		}
	})
	return c, err
}

func decodeAttributes(b []byte) (*attributesRequest, error) {
	a := &attributesRequest{}
	return a, pb.Decode("ClusterMemberAttrSetRequest", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&a.id)
		case 2:
			f.Message(func(b []byte) error {
				return pb.Decode("Attributes", b, func(f pb.Field) {
					var url string
					switch f.N {
					case 1:
						f.Text(&a.name)
					case 2:
						f.Text(&url)
						a.clientURLs = append(a.clientURLs, url)
					}
				})
			})
		}
	})
}
