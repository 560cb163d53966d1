package main

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// refused are the answers that are no failure of the load: they are what a replay must arrive at too.
var refused = []error{rpctypes.ErrEmptyKey, rpctypes.ErrKeyNotFound, rpctypes.ErrLeaseNotFound, rpctypes.ErrLeaseExist, rpctypes.ErrDuplicateKey,
	rpctypes.ErrCompacted, rpctypes.ErrFutureRev, rpctypes.ErrNoSpace}

// load does n operations of all kinds.
func (c *cluster) load(ctx context.Context, cl *clientv3.Client, n int) error {
	for range n {
		err := c.step(ctx, cl)
		for _, r := range refused {
			if errors.Is(rpctypes.Error(err), r) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

func (c *cluster) key() string {
	dirs := []string{"a/", "b/", "/pd/1/", "/pd/1/raft/s/"}
	return fmt.Sprintf("%s%02d", dirs[c.rng.Intn(len(dirs))], c.rng.Intn(25))
}

func (c *cluster) value() string { return fmt.Sprintf("%0*d", c.rng.Intn(120), c.rng.Intn(4)) }

func (c *cluster) lease() clientv3.LeaseID {
	if len(c.leases) == 0 {
		return 0
	}
	return c.leases[c.rng.Intn(len(c.leases))]
}

// do sends one operation and remembers the revision of the answer.
func (c *cluster) do(ctx context.Context, cl *clientv3.Client, op clientv3.Op) error {
	r, err := cl.Do(ctx, op)
	if err != nil {
		return err
	}
	var h *pb.ResponseHeader
	switch {
	case r.Put() != nil:
		h = r.Put().Header
	case r.Del() != nil:
		h = r.Del().Header
	case r.Txn() != nil:
		h = r.Txn().Header
	}
	c.acked = max(c.acked, h.GetRevision())
	return nil
}

func (c *cluster) step(ctx context.Context, cl *clientv3.Client) error {
	rng := c.rng
	switch k := rng.Intn(100); {
	case k < 35:
		return c.do(ctx, cl, c.put())
	case k < 45:
		return c.do(ctx, cl, clientv3.OpDelete(c.key()))
	case k < 48:
		from := c.key()
		end := clientv3.WithRange(from + "z")
		switch rng.Intn(6) {
		case 0:
			end = clientv3.WithPrefix()
		case 1:
			end = clientv3.WithRange(c.key())
		}
		if rng.Intn(30) == 0 {
			from, end = "b/", clientv3.WithFromKey()
		}
		return c.do(ctx, cl, clientv3.OpDelete(from, end))
	case k < 86:
		t := c.txn(0)
		return c.do(ctx, cl, clientv3.OpTxn(t.compares, t.then, t.otherwise))
	case k < 91:
		r, err := cl.Grant(ctx, int64(600+rng.Intn(600)))
		if err == nil {
			c.leases = append(c.leases, r.ID)
		}
		return err
	case k < 94 && len(c.leases) > 3 && !c.keepLeases:
		i := rng.Intn(len(c.leases))
		_, err := cl.Revoke(ctx, c.leases[i]) // the id stays in the list: later puts with it are refused
		return err
	case k < 95 && c.compacts:
		_, err := cl.Compact(ctx, c.acked-int64(rng.Intn(50)))
		return err
	case k < 96:
		// A read through the log, as a transaction that changes nothing.
		return c.do(ctx, cl, clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(c.key(), clientv3.WithPrefix())}, nil))
	default:
		// There is no such lease.
		return c.do(ctx, cl, clientv3.OpPut(c.key(), c.value(), clientv3.WithLease(clientv3.LeaseID(rng.Int63()))))
	}
}

func (c *cluster) put() clientv3.Op {
	var opts []clientv3.OpOption
	value := c.value()
	switch c.rng.Intn(8) {
	case 0, 1:
		opts = append(opts, clientv3.WithLease(c.lease()))
	case 2:
		value, opts = "", append(opts, clientv3.WithIgnoreValue())
	case 3:
		opts = append(opts, clientv3.WithIgnoreLease())
	case 4:
		value, opts = "", append(opts, clientv3.WithIgnoreValue(), clientv3.WithLease(c.lease()))
	case 5:
		opts = append(opts, clientv3.WithPrevKV())
	}
	return clientv3.OpPut(c.key(), value, opts...)
}

type txn struct {
	compares        []clientv3.Cmp
	then, otherwise []clientv3.Op
}

func (c *cluster) txn(depth int) txn {
	var t txn
	for range c.rng.Intn(3) {
		t.compares = append(t.compares, c.compare())
	}
	t.then, t.otherwise = c.branch(depth), c.branch(depth)
	return t
}

func (c *cluster) branch(depth int) []clientv3.Op {
	var ops []clientv3.Op
	for range c.rng.Intn(4) {
		switch k := c.rng.Intn(10); {
		case k < 5:
			ops = append(ops, c.put())
		case k < 7:
			ops = append(ops, clientv3.OpDelete(c.key()))
		case k < 8:
			ops = append(ops, clientv3.OpGet(c.key()))
		case depth < 3:
			t := c.txn(depth + 1)
			ops = append(ops, clientv3.OpTxn(t.compares, t.then, t.otherwise))
		}
	}
	return ops
}

func (c *cluster) compare() clientv3.Cmp {
	result := []string{"=", "!=", ">", "<"}[c.rng.Intn(4)]
	key := c.key()
	revision := max(0, c.acked-int64(c.rng.Intn(120)))
	var cmp clientv3.Cmp
	switch c.rng.Intn(6) {
	case 0:
		cmp = clientv3.Compare(clientv3.Value(key), result, c.value())
	case 1:
		cmp = clientv3.Compare(clientv3.Version(key), result, c.rng.Intn(4))
	case 2:
		cmp = clientv3.Compare(clientv3.CreateRevision(key), result, revision)
	case 3:
		cmp = clientv3.Compare(clientv3.CreateRevision(key), "=", 0) // the key is not there
	case 4:
		cmp = clientv3.Compare(clientv3.ModRevision(key), result, revision)
	default:
		cmp = clientv3.Compare(clientv3.LeaseValue(key), result, c.lease())
	}
	switch c.rng.Intn(10) {
	case 0:
		cmp = cmp.WithPrefix()
	case 1:
		cmp = cmp.WithRange(key + "z")
	}
	return cmp
}

// nospace raises the alarm for a full database, goes on, lowers it, raises it again and dies.
func (c *cluster) nospace() error {
	return c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		alarm := func(action pb.AlarmRequest_AlarmAction) error {
			_, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: 7, Alarm: pb.AlarmType_NOSPACE})
			return err
		}
		for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE, pb.AlarmRequest_ACTIVATE} {
			if err := c.load(ctx, cl, 80); err != nil {
				return err
			}
			if err := alarm(action); err != nil {
				return err
			}
		}
		return c.load(ctx, cl, 80)
	})
}
