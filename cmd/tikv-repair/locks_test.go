package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// manyLocks appends a write-ahead log with locks, ten of a transaction, to a store: of transactions that began before T and never committed, of
// such that can only commit after T, and of such that committed at their primary. Keys come in no order.
func manyLocks(t *testing.T, dir string, ts mvcc.TS, locks int) (committed int64) {
	t.Helper()
	log := appendLog(t, dir)
	user := func(i int) []byte {
		return binary.BigEndian.AppendUint64([]byte("t\x80\x00\x00\x00\x00\x00\x00\x77_r"), uint64(i)*7919%uint64(locks))
	}
	const ofTxn = 10
	for i := range locks {
		txn := i / ofTxn
		start := ts - mvcc.TS(10*locks) + mvcc.TS(10*txn)
		l := mvcc.Lock{Type: mvcc.LockPut, Primary: user(txn * ofTxn), StartTS: start, TTL: 3000, ShortValue: []byte("value"), HasShortValue: true}
		switch {
		case txn%3 == 1:
			l.MinCommitTS = ts + 1
		case txn%3 == 2 && i%ofTxn == 0:
			log.put(scan.CFWrite, mvcc.DataKey(user(i), start+5), mvcc.Write{Type: mvcc.WritePut, StartTS: start, ShortValue: []byte("value"), HasShortValue: true}.Append(nil))
			continue
		case txn%3 == 2:
			committed++
		}
		log.put(scan.CFLock, mvcc.LockKey(user(i)), l.Append(nil))
	}
	log.close()
	return committed
}

// Hundreds of thousands of locks are decided, shown, checked, dumped and collected within --memory, and reset makes of each what its transaction says.
func TestManyLocks(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a log with 300,000 locks")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the kernel does not tell the peak")
	}
	const locks = 300_000
	const memory = "64MiB"
	ts := mvcc.TS(fixtures.Facts(t, "single-default").T2)
	data := filepath.Join(fixtures.Dir(t, "single-default"), "data")
	committed := manyLocks(t, data, ts, locks)
	run := func(bound int, args ...string) []byte {
		t.Helper()
		peak := filepath.Join(t.TempDir(), "peak")
		cmd := exec.Command("tikv-repair-peak", append(args, "--progress=none", "--threads=4", "--memory", memory)...)
		cmd.Env = append(os.Environ(), peakFile+"="+peak)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v\n%.2000s", args, err, errs.String())
		}
		b, err := os.ReadFile(peak)
		if err != nil {
			t.Fatal(err)
		}
		kib, err := strconv.Atoi(string(b))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-10s peak %d MiB, bound %d MiB", args[0], kib>>10, bound)
		if kib > bound<<10 {
			t.Errorf("%v: peak %d MiB, bound %d MiB", args, kib>>10, bound)
		}
		return out.Bytes()
	}
	before := run(64, "dump", "--at", ts.String(), data)
	run(64, "inspect", data)
	run(64, "check", "--quick", data)
	report := filepath.Join(t.TempDir(), "report")
	run(64, "collect", "--to-ts", ts.String(), "--safe-point", "1", "-o", report, data)
	args := []string{"reset", "--to-ts", ts.String(), "--safe-point", "1", "--json", "--yes", data}
	var res repair.Result
	if err := json.Unmarshal(run(64, args...), &res); err != nil {
		t.Fatal(err)
	}
	if res.State != repair.StateDone || res.LocksCommitted < committed || res.LocksCommitted > committed+100 || res.LocksRemoved+res.LocksCommitted < locks*29/30 {
		t.Errorf("%d locks committed, %d removed, state %s; %d were to be committed", res.LocksCommitted, res.LocksRemoved, res.State, committed)
	}
	if after := run(64, "dump", "--at", ts.String(), data); !bytes.Equal(after, before) {
		t.Error("other rows at T than before")
	}
	if n := bytes.Count(before, []byte("\n")); int64(n) < committed {
		t.Errorf("%d rows, %d locks committed", n, committed)
	}
}
