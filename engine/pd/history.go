package pd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/bolt"
)

// drHistory finds the replication states that the backend still holds: compaction, hourly in PD, drops all but the newest.
func (k *Knowledge) drHistory(fs base.FS) error {
	if k.DR.Last == nil {
		return nil
	}
	key := fmt.Appendf(nil, "/pd/%d/replication_mode/dr-auto-sync", k.ClusterID.Value)
	f, err := bolt.Open(fs, k.Etcd.Backend)
	if err != nil {
		return err
	}
	err = f.Each(func(bucket string, _, value []byte, _ int64) error {
		if bucket != "key" || !bytes.Contains(value, key) {
			return nil
		}
		v, ok := parseRevision(value)
		if !ok || !bytes.Equal(v.key, key) {
			return nil
		}
		s, err := ParseDRStatus(v.value)
		if err != nil {
			k.Bad = append(k.Bad, fmt.Sprintf("%s (revision %d): %v", key, v.mod, err))
			return nil
		}
		r := DRRecord{s, Source{Dir: k.Dir, Key: string(key), Revision: v.mod, Certainty: Superseded}}
		if slices.ContainsFunc(k.DR.Records, func(x DRRecord) bool { return x.Source.Revision == v.mod }) {
			r.Source.Certainty = Certain
		}
		k.DR.History = append(k.DR.History, r)
		return nil
	})
	return errors.Join(err, f.Close())
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
