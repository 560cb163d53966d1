package sst

import (
	"cmp"
	"slices"
	"strings"
)

// VerifyChecksums reads every block, those of the filter and of the metaindex included, and verifies its checksum and that
// it decompresses.
func (r *Reader) VerifyChecksums() error { return r.verify(true, nil) }

// VerifyMetaChecksums is VerifyChecksums without the data blocks.
func (r *Reader) VerifyMetaChecksums() error { return r.verify(false, nil) }

// VerifySteps is VerifyChecksums that calls step with the number of stored bytes of every stretch that has been verified; an error of
// step ends it.
func (r *Reader) VerifySteps(step func(n int) error) error { return r.verify(true, step) }

// blocks lists where blocks lie, in the order of the file.
func (r *Reader) blocks(data bool) ([]handle, error) {
	var all []handle
	for _, e := range r.index {
		if data {
			all = append(all, e.h)
		}
	}
	for _, e := range r.partitions {
		all = append(all, e.h)
	}
	if r.foot.version < 6 {
		all = append(all, r.foot.index)
	}
	all = append(all, r.foot.meta)
	for name, h := range r.meta {
		switch {
		case name == metaProperties || name == metaPropertiesLegacy:
			continue // Open has verified it, allowing for a patched sequence number
		case strings.HasPrefix(name, metaPartFilter):
			top, err := r.indexBlock(h, indexForm{userKey: r.form.userKey, delta: r.form.delta})
			if err != nil {
				return nil, err
			}
			for _, e := range top {
				all = append(all, e.h)
			}
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b handle) int { return cmp.Compare(a.off, b.off) })
	return all, nil
}

// verify reads neighbouring blocks at once: what it costs is to be the checksums and nothing else.
func (r *Reader) verify(data bool, step func(n int) error) error {
	all, err := r.blocks(data)
	if err != nil {
		return err
	}
	buf := batchPool.Get().(*batchBuffers)
	defer func() {
		if cap(buf.ahead) <= maxPooled && cap(buf.dec) <= maxPooled {
			batchPool.Put(buf)
		}
	}()
	for len(all) > 0 {
		run, end, err := r.stretch(all)
		if err != nil {
			return err
		}
		start := run[0].off
		n := int(end - start)
		if cap(buf.ahead) < n {
			buf.ahead = make([]byte, max(n, min(2*n, readAhead)))
		}
		raw := buf.ahead[:n]
		if err := r.readAt(raw, start); err != nil {
			return err
		}
		for _, h := range run {
			b := raw[h.off-start:][:h.size+trailerSize]
			if err := r.checksumError(h, b); err != nil {
				return err
			}
			if _, buf.dec, err = r.decompressed(h, b, buf.dec); err != nil {
				return err
			}
		}
		if step != nil {
			if err := step(n); err != nil {
				return err
			}
		}
		all = all[len(run):]
	}
	return nil
}

// stretch takes the first of the blocks, and of those behind it what lies close enough to be read at once, up to end.
func (r *Reader) stretch(all []handle) (run []handle, end uint64, err error) {
	for i, h := range all {
		if bad := r.foot.check(h); bad != "" {
			if i > 0 {
				break // once those before it have been looked at
			}
			return nil, 0, r.corrupt(min(h.off, uint64(r.size)), "%s", bad)
		}
		to := h.off + h.size + trailerSize
		if i > 0 && (h.off < end || h.off-end >= 4096 || to > all[0].off+readAhead) {
			break
		}
		run, end = all[:i+1], to
	}
	return run, end, nil
}
