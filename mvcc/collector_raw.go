package mvcc

// expiry is the pair of properties that TTL checks use; neither is written when nothing expires.
type expiry struct{ min, max uint64 }

func (e *expiry) add(ts uint64) {
	if e.max == 0 {
		*e = expiry{ts, ts}
		return
	}
	e.min, e.max = min(e.min, ts), max(e.max, ts)
}

func (e *expiry) finish(props map[string]string) {
	if e.max == 0 {
		return
	}
	props[PropMaxExpireTS] = u64Prop(e.max)
	props[PropMinExpireTS] = u64Prop(e.min)
}

type ttlCollector struct{ expiry }

// NewTTLCollector collects what TiKV's tikv.ttl-properties-collector would over a default-CF file of a V1 store with TTL:
// the earliest and the latest expiry in seconds since 1970. A value that never expires does not count.
// Source: tikv components/engine_rocks/src/ttl_properties.rs (TtlPropertiesCollector), master.
func NewTTLCollector() Collector { return &ttlCollector{} }

func (c *ttlCollector) Name() string { return TTLCollectorName }

func (c *ttlCollector) Add(userKey []byte, kind byte, value []byte) {
	if kind != KindPut || len(userKey) == 0 || userKey[0] != DataPrefix {
		return
	}
	if _, expire, err := ParseRawV1TTL(value); err == nil && expire != 0 {
		c.add(expire)
	}
}

func (c *ttlCollector) Finish(props map[string]string) { c.finish(props) }

// RawMVCCOptions configure NewRawMVCCCollector.
type RawMVCCOptions struct {
	MVCCOptions
	// Now is the time at which expired values count as deleted, in seconds since 1970. TiKV takes the wall clock when it
	// opens the file for writing.
	Now uint64
}

type rawMVCCCollector struct {
	mvccCounts
	expiry expiry
	opts   RawMVCCOptions
}

// NewRawMVCCCollector collects what TiKV's tikv.rawkv-mvcc-properties-collector would over a default-CF file of an API V2
// store. Transactional rows of the same file count too, with their start_ts.
// Source: tikv components/engine_rocks/src/properties.rs (RawMvccPropertiesCollector), master.
func NewRawMVCCCollector(o RawMVCCOptions) Collector {
	return &rawMVCCCollector{mvccCounts: newMVCCCounts(), opts: o}
}

func (c *rawMVCCCollector) Name() string { return RawMVCCCollectorName }

func (c *rawMVCCCollector) Add(userKey []byte, kind byte, value []byte) {
	if !c.count(userKey, kind) {
		return
	}
	if kind == KindBlobIndex {
		c.puts++
		return
	}
	_, expire, deleted, err := ParseRawV2(value)
	if err != nil {
		c.errors++
		return
	}
	if expire != 0 {
		c.expiry.add(expire)
	}
	if deleted || expire != 0 && expire <= c.opts.Now {
		c.deletes++
	} else {
		c.puts++
	}
}

func (c *rawMVCCCollector) Finish(props map[string]string) {
	c.finish(props, c.opts.StaleTS)
	c.expiry.finish(props)
}
