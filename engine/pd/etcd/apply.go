package etcd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
)

// apply takes in the data of one normal entry, with the outcome that etcd gives it when it replays its log after a start: a request
// that etcd refuses changes nothing (etcd v3.5.15 server/etcdserver/apply.go, server.go applyEntryNormal). Errors: data that is no
// request of either API, or one that etcd itself would stop at.
func (m *machine) apply(data []byte) error {
	if len(data) == 0 { // of a new leader
		return nil
	}
	r, err := decodeRequest(data)
	if errors.Is(err, errNotV3) {
		_, err2 := decodeV2Request(data)
		if err2 != nil {
			return fmt.Errorf("neither a request (%w) nor one of the old API (%w)", err, err2)
		}
		return nil
	}
	if err != nil || r.v2 != nil || r.attributes != nil || r.isRange {
		return err
	}
	switch {
	case r.alarm != nil:
		m.applyAlarm(r.alarm)
	case m.raised(alarmCorrupt):
		// Nothing that could change keys is done under this alarm.
	case r.put != nil:
		m.applyPut(r.put)
	case r.deleteRange != nil:
		m.transaction(func(rev int64) bool { return m.remove(r.deleteRange.key, r.deleteRange.end) > 0 })
	case r.txn != nil:
		m.applyTxn(r.txn)
	case r.compaction != nil:
		if rev := *r.compaction; rev > m.compacted && rev <= m.revision {
			m.compacted = rev
		}
	case r.leaseGrant != nil:
		m.grant(*r.leaseGrant)
	case r.leaseRevoke != nil:
		m.revoke(*r.leaseRevoke)
	}
	return nil
}

// raised tells whether any member raised the alarm.
func (m *machine) raised(kind uint64) bool {
	for a := range m.alarms {
		if a.kind == kind {
			return true
		}
	}
	return false
}

func (m *machine) applyAlarm(r *alarmRequest) {
	const activate, deactivate = 1, 2
	switch {
	case r.action == activate && r.kind != 0:
		m.alarms[r.alarm] = true
	case r.action == deactivate:
		delete(m.alarms, r.alarm)
	}
}

// transaction runs fn with the next revision, which counts when fn changed something.
func (m *machine) transaction(fn func(rev int64) bool) {
	if fn(m.revision + 1) {
		m.revision++
	}
}

// maxLeaseTTL is 9,000,000,000 seconds (etcd v3.5.15 server/lease/lessor.go).
const maxLeaseTTL = 9_000_000_000

func (m *machine) grant(l Lease) {
	if _, exists := m.leases[l.ID]; exists || l.ID == 0 || l.TTL > maxLeaseTTL || m.raised(alarmNoSpace) {
		return
	}
	m.leases[l.ID] = l
}

// revoke deletes a lease with its keys, all in one revision.
func (m *machine) revoke(id int64) {
	if _, exists := m.leases[id]; !exists {
		return
	}
	m.transaction(func(int64) bool {
		changed := false
		for k := range m.byLease[id] { // gets empty by that
			changed = m.remove([]byte(k), nil) > 0 || changed
		}
		return changed
	})
	delete(m.leases, id)
}

// allowed are the conditions under which etcd refuses a put.
func (m *machine) allowed(p *putRequest) bool {
	if _, exists := m.leases[p.lease]; p.lease != 0 && !exists {
		return false
	}
	if p.ignoreValue || p.ignoreLease {
		_, exists := m.live[string(p.key)]
		return exists
	}
	return true
}

// write does a put that is allowed.
func (m *machine) write(rev int64, p *putRequest) {
	value, lease := p.value, p.lease
	old := m.live[string(p.key)]
	if p.ignoreValue {
		value = old.Value
	}
	if p.ignoreLease {
		lease = old.Lease
	}
	m.put(rev, p.key, value, lease)
}

func (m *machine) applyPut(p *putRequest) {
	if !m.raised(alarmNoSpace) && m.allowed(p) {
		m.transaction(func(rev int64) bool { m.write(rev, p); return true })
	}
}

// applyTxn evaluates all compares, those of nested transactions too, on the state before, checks the operations on the branches
// taken, and only then changes anything.
func (m *machine) applyTxn(t *txnRequest) {
	if m.raised(alarmNoSpace) && hasPut(t) {
		return
	}
	ops, ok := m.resolve(nil, t, true)
	if !ok {
		return
	}
	m.transaction(func(rev int64) bool {
		changed := false
		for _, o := range ops {
			switch {
			case o.put != nil:
				m.write(rev, o.put)
				changed = true
			case o.deleteRange != nil:
				changed = m.remove(o.deleteRange.key, o.deleteRange.end) > 0 || changed
			}
		}
		return changed
	})
}

// hasPut is etcd's measure of what costs space: puts at the top level of either branch.
func hasPut(t *txnRequest) bool {
	for _, list := range [][]operation{t.success, t.failure} {
		for _, o := range list {
			if o.put != nil {
				return true
			}
		}
	}
	return false
}

// resolve appends the operations of the branches taken; ok is false when etcd refuses one of them, and with it the whole. Reads at
// the top level are left out when a log is replayed (removeNeedlessRangeReqs), nested ones are still checked.
func (m *machine) resolve(ops []operation, t *txnRequest, top bool) (out []operation, ok bool) {
	branch := t.success
	for i := range t.compares {
		if !m.holds(&t.compares[i]) {
			branch = t.failure
			break
		}
	}
	for _, o := range branch {
		switch {
		case o.txn != nil:
			if ops, ok = m.resolve(ops, o.txn, false); !ok {
				return nil, false
			}
		case o.put != nil && !m.allowed(o.put):
			return nil, false
		case o.rangeOf != nil && !top && o.rangeOf.revision != 0 && (o.rangeOf.revision > m.revision || o.rangeOf.revision < m.compacted):
			return nil, false
		default:
			ops = append(ops, o)
		}
	}
	return ops, true
}

// holds evaluates a compare: for each key of its range; on a missing key as if all were zero, save that no value compares to nothing.
func (m *machine) holds(c *compare) bool {
	from, to := m.span(c.key, c.end)
	if from == to {
		return c.target != targetValue && c.test(KV{})
	}
	for _, k := range m.keys[from:to] {
		if !c.test(m.live[k]) {
			return false
		}
	}
	return true
}

func (c *compare) test(kv KV) bool {
	// A value of another kind than the target's counts as zero.
	var number int64
	if c.union == c.target+4 {
		number = c.number
	}
	var order int
	switch c.target {
	case targetVersion:
		order = cmp.Compare(kv.Version, number)
	case targetCreate:
		order = cmp.Compare(kv.Create, number)
	case targetMod:
		order = cmp.Compare(kv.Mod, number)
	case targetLease:
		order = cmp.Compare(kv.Lease, number)
	case targetValue:
		order = bytes.Compare(kv.Value, c.value)
	}
	switch c.result {
	case resultEqual:
		return order == 0
	case resultGreater:
		return order > 0
	case resultLess:
		return order < 0
	case resultNotEqual:
		return order != 0
	}
	return true
}
