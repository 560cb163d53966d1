package scan

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// rawMode is Store.RawMode without the tables that do not open.
func (c *checker) rawMode() RawMode {
	db := c.s.DB
	if c.s.HasRawV2() {
		return RawV2
	}
	for _, f := range db.CF(CFDefault).Files() {
		r, done, err := db.CF(CFDefault).Table(f.FileMeta)
		if err != nil {
			continue
		}
		ttl := strings.Contains(r.Props().Collectors, mvcc.TTLCollectorName)
		_ = done() // closes an idle file at most
		if ttl {
			return RawV1TTL
		}
	}
	for _, name := range []string{CFWrite, CFLock} {
		if cf := db.CF(name); len(cf.Files()) > 0 || cf.Log().Len() > 0 {
			return RawNone
		}
	}
	if n, err := c.s.BareKeys(); err == nil && n > 0 {
		return RawV1
	}
	return RawNone
}

// rawVersions looks at the versions of an API V2 raw key.
func (w *shard) rawVersions(ctx context.Context) error {
	for w.w.ok && sameKey(w.w.User(), w.key) {
		w.badRecord(CFWrite, w.w.User(), errors.New("a write record of a raw key"))
		w.w.Next()
	}
	if w.l.ok && bytes.Equal(w.l.User(), w.key) {
		w.badRecord(CFLock, w.l.User(), errors.New("a lock of a raw key"))
		w.l.Next()
	}
	for ; w.d.ok && sameKey(w.d.User(), w.key); w.d.Next() {
		if err := w.step(ctx, 1, w.d.User()); err != nil {
			return err
		}
		w.counts.Values++
		v, ok := w.value(CFDefault, w.d)
		if !ok {
			continue
		}
		if _, _, _, err := mvcc.ParseRawV2(v); err != nil {
			w.badRecord(CFDefault, w.d.User(), err)
		}
	}
	return nil
}

// bare looks at raw pairs of API V1, which have nothing to check but a time to live.
func (w *shard) bare(ctx context.Context) error {
	for ; w.in(w.d); w.d.Next() {
		if err := w.step(ctx, 1, w.d.User()); err != nil {
			return err
		}
		w.counts.Values++
		v, ok := w.value(CFDefault, w.d)
		if !ok || w.mode != RawV1TTL {
			continue
		}
		if _, _, err := mvcc.ParseRawV1TTL(v); err != nil {
			w.badRecord(CFDefault, w.d.User(), err)
		}
	}
	return nil
}
