package rewind_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// plain is a shape of several levels without anything hidden.
func plain() shape { return shape{rng: rand.New(rand.NewPCG(1, 2)), deep: 3} }

// A record whose fence is above T can lie in a file that has nothing above T and is left alone. It is then written once more, on top.
func TestFenceInFileThatStays(t *testing.T) {
	total := 0
	for _, name := range singles {
		mem := shapedMem(t, name, plain())
		for _, ts := range named(t, name) {
			found := int64(0)
			fs := base.NewMem(cloneMem(t, mem))
			res := reset(t, fs, dataDir, to(ts))
			s := open(t, fs, dataDir)
			vis := contentOf(t, s)[scan.CFWrite]
			it, err := s.DB.CF(scan.CFWrite).NewIter(nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for ok := it.First(); ok; ok = it.Next() {
				w, err := mvcc.ParseWrite(it.Value())
				if err != nil || w.GCFence <= ts {
					continue
				}
				found++
				r := vis[string(it.Key().User)]
				top, err := mvcc.ParseWrite([]byte(r.value))
				if err != nil || r.seq <= it.Key().Seq || top.GCFence != 0 || !top.HasGCFence || !top.OverlappedRollback || top.StartTS != w.StartTS || !bytes.Equal(top.ShortValue, w.ShortValue) {
					t.Errorf("%s at %s: %v has a fence at %s; visible is %+v (%v)", name, ts, it.Key(), w.GCFence, top, err)
				}
			}
			closing(t, it)
			closing(t, s)
			if total += int(found); res.FencesCleared < found {
				t.Errorf("%s at %s: %d fences cleared, %d of them on top of files that stay", name, ts, res.FencesCleared, found)
			}
		}
	}
	if total == 0 {
		t.Error("no such record: the test shows nothing")
	}
	t.Logf("%d records", total)
}

// sharedLock encodes a shared lock.
//
//	'H' | 'h' | n varint | n x (length zigzag varint | ordinary lock)
func sharedLock(locks ...mvcc.Lock) string {
	b := binary.AppendUvarint([]byte{'H', 'h'}, uint64(len(locks)))
	for _, l := range locks {
		rec := l.Append(nil)
		b = append(binary.AppendVarint(b, int64(len(rec))), rec...)
	}
	return string(b)
}

// Shared locks hold no data: each goes as a whole, whoever holds it and whether it still has holders.
func TestSharedLocks(t *testing.T) {
	for _, name := range []string{"single-levels", "single-clean-stop"} {
		ts := named(t, name)[1]
		key := func(i byte) string {
			return string(mvcc.LockKey(append([]byte("t\x80\x00\x00\x00\x00\x00\x00\x7f_r"), i)))
		}
		old := mvcc.Lock{Type: mvcc.LockLock, Primary: []byte("t\x80primary"), StartTS: ts - 5, TTL: 3000, MinCommitTS: ts - 4}
		young := mvcc.Lock{Type: mvcc.LockPessimistic, Primary: []byte("t\x80other"), StartTS: ts + 5, TTL: 3000, ForUpdateTS: ts + 6}
		sh := plain()
		sh.edit = func(c content) {
			c[scan.CFLock][key(1)] = rec{kind: ikey.KindPut, value: sharedLock(old, young)}
			c[scan.CFLock][key(2)] = rec{kind: ikey.KindPut, value: sharedLock(young)}
			c[scan.CFLock][key(3)] = rec{kind: ikey.KindPut, value: sharedLock()}
		}
		mem := shapedMem(t, name, sh)
		fs := base.NewMem(mem)
		s := open(t, fs, dataDir)
		before := dump(t, s, ts)
		closing(t, s)
		res := reset(t, fs, dataDir, to(ts))
		s = open(t, fs, dataDir)
		if left := contentOf(t, s)[scan.CFLock]; len(left) > 0 {
			t.Errorf("%s: left are %v", name, left)
		}
		same(t, name, dump(t, s, mvcc.MaxTS), before)
		closing(t, s)
		if want := int64(3); res.LocksRemoved < want {
			t.Errorf("%s: %d locks removed", name, res.LocksRemoved)
		}
	}
}

// Alone, an empty shared lock is nothing to repair, and nothing to complain about.
func TestEmptySharedLockAlone(t *testing.T) {
	const name = "single-levels"
	ts := named(t, name)[0]
	mem := fixtures.Mem(t, name)
	fs := base.NewMem(mem)
	reset(t, fs, dataDir, to(ts))
	sh := plain()
	sh.edit = func(c content) {
		c[scan.CFLock]["zt\x80\x00\x00\x00\x00\x00\x00\xff\x7f\x00\x00\x00\x00\x00\x00\x00\xf8"] = rec{kind: ikey.KindPut, value: sharedLock()}
	}
	sh.apply(t, mem)
	for _, want := range []string{repair.StateDone, repair.StateUnchanged} {
		if res := reset(t, fs, dataDir, to(ts)); res.State != want {
			t.Errorf("%+v, want %s", res, want)
		}
	}
}

// A damaged store can have a lock beside the version that its own transaction committed at the same key. The lock goes; the value
// is the version's and stays.
func TestLockBesideItsOwnVersion(t *testing.T) {
	const name = "single-levels"
	ts := named(t, name)[1]
	h := historyOf(t, name)
	var user []byte
	var start mvcc.TS
	sh := plain()
	sh.edit = func(c content) {
		for _, commit := range h.commits {
			r, ok := c[scan.CFDefault][string(mvcc.DataKey(commit.Key, mvcc.TS(commit.StartTS)))]
			if ok && !commit.Delete && mvcc.TS(commit.CommitTS) <= ts && r.kind == ikey.KindPut {
				user, start = commit.Key, mvcc.TS(commit.StartTS)
			}
		}
		l := mvcc.Lock{Type: mvcc.LockPut, Primary: user, StartTS: start, TTL: 3000, ForUpdateTS: ts + 1}
		c[scan.CFLock][string(mvcc.LockKey(user))] = rec{kind: ikey.KindPut, value: string(l.Append(nil))}
	}
	mem := shapedMem(t, name, sh)
	if user == nil {
		t.Fatal("no version at or before T has its value in the default column family")
	}
	fs := base.NewMem(mem)
	reset(t, fs, dataDir, to(ts))
	s := open(t, fs, dataDir)
	defer closing(t, s)
	c := contentOf(t, s)
	if _, ok := c[scan.CFDefault][string(mvcc.DataKey(user, start))]; !ok || len(c[scan.CFLock]) > 0 {
		t.Errorf("value there: %v, %d locks", ok, len(c[scan.CFLock]))
	}
	same(t, "rows", dump(t, s, mvcc.MaxTS), fixtures.ExpectAt(t, name, uint64(ts)))
}

// A file that was ingested while older records waited in the memtable has a newer sequence than they; their flush, which a rewind
// makes up for, has the newer epoch. Without a common key that is in order; with one, readers by level and by sequence disagree.
func TestFoldBesideIngestedFile(t *testing.T) {
	const name = "raw-v2" // its default column family gets nothing from the rewind itself
	ts := named(t, name)[2]
	for _, common := range []bool{false, true} {
		mem := fixtures.Mem(t, name)
		fs := base.NewMem(mem)
		s := open(t, fs, dataDir)
		cf := s.DB.CF(scan.CFDefault)
		var logged []op
		it := cf.Log().Iter()
		for ok := it.First(); ok; ok = it.Next() {
			if prefix, _, ok := mvcc.SplitKey(it.Key().User); ok && mvcc.IsRawV2Prefix(prefix) {
				logged = append(logged, op{kind: ikey.KindPut, key: string(it.Key().User), value: string(it.Value())})
			}
		}
		in := logged[len(logged)/2]
		if in.seq = s.DB.LastSeq + 10; !common {
			prefix, _, _ := split(in.key)
			in.key = string(mvcc.AppendTS([]byte(prefix), 5)) // an old version, which the log does not have
		}
		next, err := s.DB.FreeNumber()
		if err != nil {
			t.Fatal(err)
		}
		b := &shaper{shape: plain(), t: t, fs: fs, s: s, next: next, seq: in.seq + 1}
		b.file(cf, 0, []op{in}, nil, nil, nil, 1000)
		// Something to rewind, elsewhere.
		b.file(s.DB.CF(scan.CFWrite), 0, []op{{kind: ikey.KindPut, key: string(mvcc.DataKey([]byte("x"), farFuture)), seq: in.seq,
			value: string(mvcc.Write{Type: mvcc.WriteDelete, StartTS: 7}.Append(nil))}}, nil, nil, nil, 1000)
		b.publish()
		closing(t, s)
		res, err := tryReset(fs, dataDir, to(ts))
		if common {
			if !errors.Is(err, base.ErrPartial) {
				t.Errorf("a version that contradicts itself: %+v, %v", res, err)
			}
			continue
		}
		if err != nil || res.State != repair.StateDone {
			t.Fatalf("%+v, %v", res, err)
		}
		s = open(t, fs, dataDir)
		if n := s.DB.CF(scan.CFDefault).Files()[0]; n.Level != 0 || n.LargestSeq >= in.seq || n.Epoch != 1001 {
			t.Errorf("the newest file is %+v: the test shows nothing", n.FileMeta)
		}
		same(t, name, rawRows(t, s, ts), fixtures.ExpectAt(t, name, uint64(ts)))
		closing(t, s)
	}
}
