package scan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// DumpFormat is how rows are printed.
type DumpFormat string

const (
	// TSV is user key and value in upper-case hex with a tab between.
	TSV DumpFormat = "tsv"
	// JSONL is one JSON object per line.
	JSONL DumpFormat = "jsonl"
)

// DumpOptions of Dump.
type DumpOptions struct {
	T            mvcc.TS
	Lower, Upper []byte // raw user keys, nil: open
	Format       DumpFormat
	// Keyspace, when set, leaves only the raw and transactional keys of this API V2 keyspace, with the mode byte and the
	// keyspace id taken off: the keys that its clients use.
	Keyspace *uint32
	Meter    *Meter
	Threads  int // 0: one a core
	// Bad is called for each row that cannot be read.
	Bad func(err error)
}

// DumpResult counts what was printed.
type DumpResult struct {
	Rows  int64
	Bytes int64 // keys and values
	Bad   int64 // rows that could not be read and are not in the output
}

// dumpRow is a line of JSONL.
type dumpRow struct {
	Key        string       `json:"key"`
	KeyDecoded mvcc.KeyInfo `json:"key_decoded"`
	Value      string       `json:"value"`
	CommitTS   mvcc.TS      `json:"commit_ts,omitempty"`
	CommitTime string       `json:"commit_time,omitempty"`
	StartTS    mvcc.TS      `json:"start_ts,omitempty"`
	StartTime  string       `json:"start_time,omitempty"`
	ExpireTime uint64       `json:"expire_unix_seconds,omitempty"`
}

// Dump prints the rows that a client reads at o.T, sorted by user key. Rows that cannot be read are left out, counted and
// handed to o.Bad; the result is then valid and the error of class base.ErrCorrupt.
func (v *View) Dump(ctx context.Context, w io.Writer, o DumpOptions) (DumpResult, error) {
	if o.Meter == nil {
		o.Meter = new(Meter)
	}
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	out := bufio.NewWriterSize(w, 256<<10)
	d := dump{v: v, o: o, out: out, slices: v.slices(v.segments(v.dbBound(o.Lower), v.dbBound(o.Upper)))}
	err := d.run(ctx)
	if e := out.Flush(); e != nil && !errors.Is(err, base.ErrIO) {
		err = errors.Join(err, base.IO("write", "the output", e))
	}
	res := d.res
	if err != nil {
		return res, err
	}
	if res.Bad > 0 {
		return res, &base.Error{Class: base.ErrCorrupt, Op: "dump", Path: v.s.Layout.Dir, Offset: -1,
			Reason: plural(res.Bad, "row") + " could not be read and " + areIs(res.Bad) + " not in the output",
			Next:   "look at each key named above with tikv-repair mvcc; another replica of the region may have the value"}
	}
	return res, nil
}

// clientKey is the key as it is printed.
func (o *DumpOptions) clientKey(user []byte) ([]byte, bool) {
	if o.Keyspace == nil {
		return user, true
	}
	id := *o.Keyspace
	prefix := []byte{byte(id >> 16), byte(id >> 8), byte(id)}
	if !mvcc.IsRawV2Key(user) && !mvcc.IsTxnV2Key(user) || !bytes.Equal(user[1:4], prefix) {
		return nil, false
	}
	return user[4:], true
}

const hexDigits = "0123456789ABCDEF"

func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

func tsvLine(dst []byte, _ *Rows, key, value []byte) ([]byte, error) {
	dst = append(appendHex(dst, key), '\t')
	return append(appendHex(dst, value), '\n'), nil
}

func jsonLine(dst []byte, r *Rows, key, value []byte) ([]byte, error) {
	b, err := json.Marshal(dumpRow{
		Key: upperHex(key), KeyDecoded: mvcc.DescribeUserKey(r.UserKey()), Value: upperHex(value),
		CommitTS: r.CommitTS(), CommitTime: Time(r.CommitTS()), StartTS: r.StartTS(), StartTime: Time(r.StartTS()),
		ExpireTime: r.Expire(),
	})
	return append(append(dst, b...), '\n'), err
}
