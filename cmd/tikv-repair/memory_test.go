package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// peakFile names the file that gets the peak memory of mainWithPeak, in KiB.
const peakFile = "TIKV_REPAIR_TEST_PEAK"

// mainWithPeak runs the tool and leaves the kernel's word on how much memory it had at most. The peak that the parent is told is no
// less than the parent's own.
func mainWithPeak() {
	status := Main()
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(b)) {
			if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				if err := os.WriteFile(os.Getenv(peakFile), []byte(strings.TrimSuffix(strings.TrimSpace(kib), " kB")), 0o600); err != nil {
					status = exitBug
				}
			}
		}
	}
	os.Exit(status)
}

const (
	longLogRecords = 1_200_000
	longLogPadding = 60
)

// testLog is one more write-ahead log of a store, in batches of a thousand records.
type testLog struct {
	t   *testing.T
	f   *os.File
	w   *record.Writer
	cfs map[string]uint32
	seq uint64 // of the first record of the batch
	n   uint32
	b   []byte
}

func appendLog(t *testing.T, dir string) *testLog {
	t.Helper()
	s, err := scan.Open(base.NewOS(), dir, scan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &testLog{t: t, cfs: map[string]uint32{}, seq: s.DB.LastSeq + 1}
	for _, cf := range s.DB.Names() {
		l.cfs[cf] = s.DB.CF(cf).Meta.ID
	}
	number := s.DB.Log.MaxLog + 1
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if l.f, err = os.Create(filepath.Join(dir, "db", fmt.Sprintf("%06d.log", number))); err != nil {
		t.Fatal(err)
	}
	l.w = record.NewWriter(l.f)
	return l
}

func (l *testLog) put(cf string, key, value []byte) {
	if l.n == 0 {
		l.b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(l.b[:0], l.seq), 0)
	}
	l.b = binary.AppendUvarint(append(l.b, byte(0x05)), uint64(l.cfs[cf])) // a Put with its column family
	l.b = append(binary.AppendUvarint(l.b, uint64(len(key))), key...)
	l.b = append(binary.AppendUvarint(l.b, uint64(len(value))), value...)
	if l.n++; l.n == 1000 {
		l.flush()
	}
}

func (l *testLog) flush() {
	if l.n == 0 {
		return
	}
	binary.LittleEndian.PutUint32(l.b[8:], l.n)
	rec, err := l.w.Next()
	if err == nil {
		_, err = rec.Write(l.b)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.seq, l.n = l.seq+uint64(l.n), 0
}

func (l *testLog) close() {
	l.t.Helper()
	l.flush()
	if err := errors.Join(l.w.Close(), l.f.Close()); err != nil {
		l.t.Fatal(err)
	}
}

// longLog appends a write-ahead log to a store: as many commits above T, in no order, each of a value that lies in the default column
// family. 1.2 million of them need about 130 MB, the list of values that go 90 MB.
func longLog(t *testing.T, dir string, ts mvcc.TS, records int) {
	t.Helper()
	l := appendLog(t, dir)
	var user []byte
	padding := make([]byte, longLogPadding) // a field of a TiKV to come
	for i := range records {
		user = append(user[:0], "t\x80\x00\x00\x00\x00\x00\x00\x77_r"...)
		user = binary.BigEndian.AppendUint64(user, uint64(i)*7919%uint64(records))
		l.put(scan.CFWrite, mvcc.DataKey(user, ts+mvcc.TS(2*i)+10),
			append(mvcc.Write{Type: mvcc.WritePut, StartTS: ts + mvcc.TS(2*i) + 9}.Append(nil), padding...))
	}
	l.close()
}

// --memory is a bound: a store whose log and whose list of values to delete are larger is rewound within it.
func TestMemoryBound(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a log of 130 MB")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the kernel does not tell the peak")
	}
	ts := mvcc.TS(fixtures.Facts(t, "single-default").T2)
	for _, mib := range []int{64, 128} {
		dir := fixtures.Dir(t, "single-default")
		data := filepath.Join(dir, "data")
		before := rowsAt(t, data, ts)
		longLog(t, data, ts, longLogRecords)
		peak := filepath.Join(t.TempDir(), "peak")
		cmd := exec.Command("tikv-repair-peak", "reset", "--to-ts", ts.String(), "--safe-point", "1", "--yes", "--json", "--progress=none",
			"--threads", "16", "--memory", fmt.Sprintf("%dMiB", mib), data)
		cmd.Env = append(os.Environ(), peakFile+"="+peak)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
		var res repair.Result
		if err := json.Unmarshal(out.Bytes(), &res); err != nil {
			t.Fatal(err)
		}
		if res.State != repair.StateDone || res.DefaultRows < longLogRecords {
			t.Errorf("%d MiB: %+v", mib, res)
		}
		b, err := os.ReadFile(peak)
		if err != nil {
			t.Fatal(err)
		}
		kib, err := strconv.Atoi(string(b))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("bound %d MiB, peak %d MiB, %.1f s", mib, kib>>10, res.Seconds)
		if kib > mib<<10 {
			t.Errorf("bound %d MiB, peak %d MiB", mib, kib>>10)
		}
		if after := rowsAt(t, data, ts); !bytes.Equal(after, before) {
			t.Errorf("%d MiB: other rows at T than before", mib)
		}
		deletes(t, data)
	}
}

func rowsAt(t *testing.T, dir string, ts mvcc.TS) []byte {
	t.Helper()
	out, err := exec.Command("tikv-repair", "dump", "--at", ts.String(), dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// deletes checks that each value of the long log has its tombstone.
func deletes(t *testing.T, dir string) {
	t.Helper()
	s, err := scan.Open(base.NewOS(), dir, scan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	it, err := s.DB.CF(scan.CFDefault).NewIter([]byte("zt"), []byte("zu"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key().Kind == ikey.KindDelete {
			n++
		}
	}
	if err := it.Err(); err != nil || n < longLogRecords {
		t.Errorf("%d tombstones for %d values, %v", n, longLogRecords, err)
	}
}
