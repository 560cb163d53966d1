package sst

import (
	"errors"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// headRead is what is read of a table's end at first: footer, metaindex and properties lie in it, unless the properties are very long.
const headRead = 8 << 10

var headPool = sync.Pool{New: func() any {
	b := make([]byte, headRead)
	return &b
}}

// Head is what the end of a table says.
type Head struct {
	// Props are the properties that were asked for, as far as the table has them, as stored.
	Props map[string]string
	// RangeDels tells whether there is a block of range tombstones.
	RangeDels bool
}

// ReadHead reads some properties of a table, verified as Open does, and nothing else: one read as a rule. A store may have 100,000
// tables, of which most are never opened.
func ReadHead(fs base.FS, path string, o ReaderOptions, names map[string]bool) (Head, error) {
	f, err := fs.Open(path)
	if err != nil {
		return Head{}, base.IO("open", path, err)
	}
	r := &Reader{path: path, f: f, o: o}
	var payload []byte
	buf := headPool.Get().(*[]byte)
	if err = r.readEnd(*buf); err == nil {
		payload, err = r.propertiesBlock()
	}
	props := map[string]string{}
	if err == nil {
		bad := eachEntry(payload, func(key, value []byte, _ int) string {
			if names[string(key)] {
				props[string(key)] = string(value)
			}
			return ""
		})
		if bad != "" {
			err = r.corrupt(r.foot.meta.off, "properties block: %s", bad)
		}
	}
	headPool.Put(buf)
	if e := r.Close(); err == nil {
		err = e
	}
	if err != nil {
		var e *base.Error
		if errors.As(err, &e) && e.CF == "" {
			e.CF = o.CF
		}
		return Head{}, err
	}
	_, dels := r.meta[metaRangeDel]
	return Head{Props: props, RangeDels: dels}, nil
}

// readEnd reads and decodes footer and metaindex; buf takes the end of the file.
func (r *Reader) readEnd(buf []byte) error {
	st, err := r.f.Stat()
	if err != nil {
		return base.IO("stat", r.path, err)
	}
	r.size = st.Size()
	if r.o.Size != 0 && r.o.Size != r.size {
		return r.corrupt(uint64(min(r.size, r.o.Size)), "file has %d bytes, the MANIFEST says %d", r.size, r.o.Size)
	}
	r.tail = buf[:min(r.size, int64(len(buf)))]
	if err := r.readAt(r.tail, uint64(r.size)-uint64(len(r.tail))); err != nil {
		return err
	}
	if r.foot, err = decodeFooter(r.path, r.tail, uint64(r.size)); err != nil {
		return err
	}
	return r.readMetaindex()
}
