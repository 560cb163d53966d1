package rewind_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func truths(t testing.TB, mem *vfs.MemFS, ts mvcc.TS, full bool) []string {
	t.Helper()
	s := open(t, base.NewMem(mem), dataDir)
	defer closing(t, s)
	fs, err := repair.Verify(context.Background(), s, repair.VerifyOptions{T: ts, Full: full})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range fs {
		out = append(out, f.Truth)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A rewound store that is then spoilt in one way is found out, by the name of the truth that does not hold any more.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	const name = "single-levels"
	ts := named(t, name)
	at := ts[1]
	if got := truths(t, fixtures.Mem(t, name), at, false); !slices.Equal(got, []string{"no-locks", "nothing-above-t"}) {
		t.Errorf("before any rewind: %v", got)
	}
	good := fixtures.Mem(t, name)
	reset(t, base.NewMem(good), dataDir, to(at))
	if got := truths(t, good, ts[0], false); !slices.Contains(got, "nothing-above-t") {
		t.Errorf("rewound to a later T: %v", got)
	}
	first := func(m map[string]rec, want func(mvcc.Write) bool) (key string, w mvcc.Write) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if w, err := mvcc.ParseWrite([]byte(m[k].value)); err == nil && want(w) {
				return k, w
			}
		}
		t.Fatal("no such record")
		return "", mvcc.Write{}
	}
	for _, c := range []struct {
		what string
		edit func(content)
		full []string // found by a full verification
		fast []string // found without reading everything
	}{
		{"nothing", func(content) {}, nil, nil},
		{"a lock", func(c content) {
			l := mvcc.Lock{Type: mvcc.LockLock, Primary: []byte("k"), StartTS: 5, TTL: 1}
			c[scan.CFLock][string(mvcc.LockKey([]byte("k")))] = rec{kind: ikey.KindPut, value: string(l.Append(nil))}
		}, []string{"no-locks"}, []string{"no-locks"}},
		{"a version above T", func(c content) {
			k, _ := first(c[scan.CFWrite], func(w mvcc.Write) bool { return w.HasShortValue })
			prefix, _, _ := split(k)
			c[scan.CFWrite][string(mvcc.AppendTS([]byte(prefix), at+1))] = c[scan.CFWrite][k]
		}, []string{"nothing-above-t"}, []string{"nothing-above-t"}},
		{"a fence above T", func(c content) {
			k, w := first(c[scan.CFWrite], func(w mvcc.Write) bool { return w.Type == mvcc.WritePut && w.HasShortValue })
			w.OverlappedRollback, w.HasGCFence, w.GCFence = true, true, at+1
			c[scan.CFWrite][k] = rec{kind: ikey.KindPut, value: string(w.Append(nil))}
		}, []string{"no-fence-above-t"}, nil},
		{"a value that is gone", func(c content) {
			k, w := first(c[scan.CFWrite], mvcc.Write.NeedsDefault)
			prefix, _, _ := split(k)
			delete(c[scan.CFDefault], string(mvcc.AppendTS([]byte(prefix), w.StartTS)))
		}, []string{"every-value-is-there"}, nil},
		{"a value without owner", func(c content) {
			k, _ := first(c[scan.CFWrite], mvcc.Write.NeedsDefault)
			prefix, _, _ := split(k)
			c[scan.CFDefault][string(mvcc.AppendTS([]byte(prefix), 3))] = rec{kind: ikey.KindPut, value: "x"}
		}, []string{"no-orphan"}, nil},
		{"a write record that does not decode", func(c content) {
			k, _ := first(c[scan.CFWrite], func(w mvcc.Write) bool { return w.HasShortValue && w.Type == mvcc.WritePut })
			c[scan.CFWrite][k] = rec{kind: ikey.KindPut, value: "?"}
		}, []string{"records-decode"}, []string{"records-decode"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			mem := cloneMem(t, good)
			sh := plain()
			sh.edit = c.edit
			sh.apply(t, mem)
			if got := truths(t, mem, at, true); !slices.Equal(got, c.full) {
				t.Errorf("full: %v, want %v", got, c.full)
			}
			if got := truths(t, mem, at, false); !slices.Equal(got, c.fast) {
				t.Errorf("without reading everything: %v, want %v", got, c.fast)
			}
		})
	}
	// A version above T that a tombstone hides is there all the same: TiKV's garbage collection would see it.
	mem := cloneMem(t, good)
	sh := plain()
	sh.junk, sh.junkAbove = 0.05, at
	sh.apply(t, mem)
	if got := truths(t, mem, at, false); !slices.Equal(got, []string{"nothing-above-t"}) {
		t.Errorf("hidden versions above T: %v", got)
	}
}

// On a real file system: hard links, modes and times. The second run touches nothing, undo brings everything back.
func TestOnDisk(t *testing.T) {
	for _, name := range []string{"single-levels", "single-raftdb", "single-titan"} {
		fs := base.NewOS()
		dir := fs.PathJoin(fixtures.Dir(t, name), "data")
		was := tree(t, fs, dir)
		at := named(t, name)[1]
		o := to(at)
		if res := reset(t, fs, dir, o); res.State != repair.StateDone {
			t.Errorf("%+v", res)
		}
		s := open(t, fs, dir)
		same(t, name, dump(t, s, mvcc.MaxTS), fixtures.ExpectAt(t, name, uint64(at)))
		closing(t, s)
		// Every name with its size, mode and time, the backup's included.
		stamp := func() map[string]string {
			out := map[string]string{}
			var walk func(string)
			walk = func(d string) {
				names, err := fs.List(d)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					st, err := fs.Stat(fs.PathJoin(d, n))
					if err != nil {
						t.Fatal(err)
					}
					out[fs.PathJoin(d, n)] = st.Mode().String() + " " + st.ModTime().String()
					if st.IsDir() {
						walk(fs.PathJoin(d, n))
					}
				}
			}
			walk(dir)
			return out
		}
		after := stamp()
		if res := reset(t, fs, dir, o); res.State != repair.StateUnchanged {
			t.Errorf("%+v", res)
		}
		fixtures.SameTree(t, name+": after the second reset", stamp(), after)
		if _, err := repair.Undo(fs, dir, repair.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		fixtures.SameTree(t, name+": after undo", tree(t, fs, dir), was)
	}
}
