package pd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/bolt"
)

// drHistory finds the replication states, and the values of min-resolved-ts around them, that the backend still holds: compaction, hourly
// in PD, drops what was replaced more than an hour ago.
func (k *Knowledge) drHistory(fs base.FS) error {
	if k.DR.Last == nil {
		return nil
	}
	states := fmt.Appendf(nil, "/pd/%d/replication_mode/dr-auto-sync", k.ClusterID.Value)
	resolved := fmt.Appendf(nil, "/pd/%d/raft/min_resolved_ts", k.ClusterID.Value)
	f, err := bolt.Open(fs, k.Etcd.Backend)
	if err != nil {
		return err
	}
	err = f.Each(func(bucket string, _, value []byte, _ int64) error {
		if bucket != "key" || !bytes.Contains(value, states) && !bytes.Contains(value, resolved) {
			return nil
		}
		v, ok := parseRevision(value)
		if !ok || len(v.value) == 0 {
			return nil // a deletion
		}
		from := Source{Dir: k.Dir, Key: string(v.key), Revision: v.mod, Certainty: Superseded}
		switch {
		case bytes.Equal(v.key, resolved):
			if ts, err := textTS(v.value, 16); err == nil {
				k.resolved = append(k.resolved, stamp(ts, from))
			}
		case bytes.Equal(v.key, states):
			s, err := ParseDRStatus(v.value)
			if err != nil {
				k.Bad = append(k.Bad, fmt.Sprintf("%s (revision %d): %v", v.key, v.mod, err))
				return nil
			}
			if slices.ContainsFunc(k.DR.Records, func(x DRRecord) bool { return x.Source.Revision == v.mod }) {
				from.Certainty = Certain
			}
			k.DR.History = append(k.DR.History, DRRecord{s, from})
		}
		return nil
	})
	return errors.Join(err, f.Close())
}

// ConsistentTS is the latest timestamp at which the data of one site alone is proven to be consistent; nil with the reason when nothing
// proves one.
//
// While every commit needs both sites (sync, async_wait), it is the min-resolved-ts. Without DR Auto-Sync it is as well, for a majority of the
// voters of each region: no replica alone is known to have everything. After the switch to async that
// goes on growing without the other site: PD leaves out stores that lead no region (tikv/pd server/cluster/cluster.go
// CheckAndUpdateMinResolvedTS, pkg/core/store.go IsAvailableForMinResolvedTS), and those of a DR site lead none. What counts then is the
// last value that PD wrote before it wrote the switch: etcd's revisions give the order.
func (k *Knowledge) ConsistentTS() (*Timestamp, string) {
	if k.MinResolvedTS == nil || k.MinResolvedTS.TS == 0 {
		return nil, "PD has persisted no min-resolved-ts (pd-server.min-resolved-ts-persistence-interval is off)"
	}
	if k.DR.Last == nil || k.DR.Mode != "dr-auto-sync" {
		return k.MinResolvedTS, "the min-resolved-ts of the cluster, which holds for the replicas that led; one that lagged behind, such as a learner, may hold less"
	}
	if s := k.DR.Last.State; s == DRSync || s == DRAsyncWait {
		return k.MinResolvedTS, "the min-resolved-ts, while commits needed both sites"
	}
	states := slices.Clone(k.DR.History)
	for _, r := range k.DR.Records {
		if r.Source.Certainty == Possible {
			states = append(states, r)
		}
	}
	slices.SortStableFunc(states, func(a, b DRRecord) int { return cmp.Compare(a.Source.Revision, b.Source.Revision) })
	at := -1 // the last time that all was in sync
	for i, s := range states {
		if s.State == DRSync {
			at = i
		}
	}
	if at < 0 {
		return nil, "etcd has no record of the last sync any more (it keeps about an hour): which min-resolved-ts is older than the switch to async is not known"
	}
	for _, s := range states[at:] {
		if s.State == DRSync || s.State == DRAsyncWait {
			continue
		}
		for i := len(k.resolved) - 1; i >= 0; i-- {
			if r := k.resolved[i]; r.Source.Revision < s.Source.Revision {
				return &r, fmt.Sprintf("the last min-resolved-ts that PD wrote (revision %d) before the switch to %s (revision %d)", r.Source.Revision, s.State, s.Source.Revision)
			}
		}
		return nil, fmt.Sprintf("PD wrote every min-resolved-ts that is left after the switch to %s (revision %d): stores that lead no region, as those of a DR site, did not hold it back", s.State, s.Source.Revision)
	}
	return nil, "the switch away from sync is in a file only, not in etcd: its place in time is not known"
}

// revision is what is needed of one record of bucket "key".
type revision struct {
	key, value []byte
	mod        int64
}

// parseRevision decodes mvccpb.KeyValue: 1 key, 3 mod_revision, 5 value (section 3). The parts share b.
func parseRevision(b []byte) (r revision, ok bool) {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return r, false
		}
		b = b[size:]
		switch {
		case t == protowire.VarintType && n == 3:
			var mod uint64
			mod, size = protowire.ConsumeVarint(b)
			r.mod = int64(mod)
		case t == protowire.BytesType && n == 1:
			r.key, size = protowire.ConsumeBytes(b)
		case t == protowire.BytesType && n == 5:
			r.value, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, t, b)
		}
		if size < 0 {
			return r, false
		}
		b = b[size:]
	}
	return r, len(r.key) > 0
}
