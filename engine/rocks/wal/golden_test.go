package wal

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// TestGolden shows real WALs byte by byte.
func TestGolden(t *testing.T) {
	datadriven.RunTest(t, "testdata/wal.txt", func(t *testing.T, d *datadriven.TestData) string {
		var file []byte
		if d.Cmd == "hex" {
			file = unhex(t, d.Input)
		} else {
			var fixture, path string
			d.ScanArgs(t, "fixture", &fixture)
			d.ScanArgs(t, "path", &path)
			var err error
			if file, err = base.ReadFile(base.NewMem(fixtures.Mem(t, fixture)), path); err != nil {
				t.Fatal(err)
			}
		}
		count := 1 << 30
		if d.HasArg("count") {
			d.ScanArgs(t, "count", &count)
		}
		return annotate(t, file, count)
	})
}

type annotator struct {
	out strings.Builder
	pos int
}

// line prints bytes; of long values the first ones and the count.
func (a *annotator) line(b []byte, format string, args ...any) {
	hex := fmt.Sprintf("% x", b)
	if len(b) > 18 {
		hex = fmt.Sprintf("% x ..%d", b[:14], len(b))
	}
	fmt.Fprintf(&a.out, "%05d  %-55s %s\n", a.pos, hex, fmt.Sprintf(format, args...))
	a.pos += len(b)
}

// annotate prints the first count records; each must be one physical record.
func annotate(t *testing.T, file []byte, count int) string {
	t.Helper()
	a := &annotator{}
	for n := 0; a.pos < len(file) && n < count; n++ {
		head := file[a.pos : a.pos+7]
		size := int(binary.LittleEndian.Uint16(head[4:]))
		if head[6] != typeFull {
			t.Fatalf("record %d at %d is fragmented: take another one", n, a.pos)
		}
		body := file[a.pos+7 : a.pos+7+size]
		a.line(head[:4], "crc")
		a.line(head[4:6], "length %d", size)
		a.line(head[6:], "type full")
		b, e := parseBatch(body)
		if e != nil {
			t.Fatal(e)
		}
		a.line(body[:8], "  sequence %d", b.seq)
		a.line(body[8:12], "  count %d", b.count)
		it := b.records()
		for {
			before := it.rest
			if !it.next() {
				break
			}
			took := before[:len(before)-len(it.rest)]
			val := len(it.rec.Value)
			if val > 0 {
				val = len(lp(nil, string(it.rec.Value)))
			}
			user := len(it.rec.Key.User)
			a.line(took[:len(took)-val-user], "  %s of column family %d, key length %d", it.rec.Key.Kind, it.rec.CF, user)
			a.line(it.rec.Key.User, "    key @%d", it.rec.Key.Seq)
			if val > 0 {
				a.line(took[len(took)-val:], "    value length and value (end of the range)")
			}
		}
		if left := len(it.rest); left > 0 {
			t.Fatalf("%d bytes behind the records", left)
		}
	}
	return a.out.String()
}
