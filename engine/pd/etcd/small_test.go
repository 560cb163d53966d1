package etcd

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// files are the contents of a member directory by path below it.
type files map[string][]byte

// small reads the directory that a killed etcd left in testdata.
func small(tb testing.TB) files {
	tb.Helper()
	f := files{}
	root := filepath.Join("testdata", "small", "member")
	must(tb, filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f[filepath.ToSlash(rel)], err = os.ReadFile(p)
		return err
	}))
	return f
}

const memberDir = "/pd/member"

// mem puts the files into memory.
func (f files) mem(tb testing.TB) base.FS {
	tb.Helper()
	fs := base.NewMem(vfs.NewMem())
	for _, dir := range []string{"snap", "wal"} {
		must(tb, fs.MkdirAll(memberDir+"/"+dir, 0o755))
	}
	for name, content := range f {
		must(tb, base.WriteFileSync(fs, memberDir+"/"+name, content, ""))
	}
	return fs
}

// with is a copy in which one file has other content; nil removes it.
func (f files) with(name string, content []byte) files {
	c := maps.Clone(f)
	if content == nil {
		delete(c, name)
	} else {
		c[name] = content
	}
	return c
}

func (f files) open(tb testing.TB) *State {
	tb.Helper()
	s, err := Open(f.mem(tb), memberDir, Options{})
	must(tb, err)
	return s
}

// render writes a view in the form of served.txt.
func render(v *View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d\n", v.Revision)
	for _, id := range slices.Sorted(maps.Keys(v.Leases)) {
		fmt.Fprintf(&b, "lease %x\n", id)
	}
	for _, m := range v.Members {
		fmt.Fprintf(&b, "member %x %s %s\n", m.ID, m.Name, strings.Join(m.PeerURLs, " "))
	}
	for _, kv := range v.Keys {
		fmt.Fprintf(&b, "%s\t%s\t%d\t%d\t%d\t%x\n", kv.Key, kv.Value, kv.Create, kv.Mod, kv.Version, kv.Lease)
	}
	return b.String()
}

// history renders the state after each entry, from the log alone: history[i] is the one after entry i.
func history(tb testing.TB, f files) []string {
	tb.Helper()
	log, err := wal.Read(f.mem(tb), memberDir+"/wal", 0)
	must(tb, err)
	m, members := newMachine(), newMembership()
	var out []string
	shot := func() {
		v := m.view(0)
		v.Members = members.list()
		out = append(out, render(v))
	}
	shot()
	for i, e := range log.Entries {
		if e.Index != uint64(i)+1 {
			tb.Fatalf("entry %d follows %d", e.Index, i)
		}
		if e.Type == wal.EntryNormal {
			must(tb, m.apply(e.Data))
		}
		must(tb, members.entry(e.Type, e.Data))
		shot()
	}
	return out
}

func TestSmallIsWhatEtcdServed(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "small", "served.txt"))
	must(t, err)
	f := small(t)
	s := f.open(t)
	if got := render(s.Possible); got != string(want) {
		t.Errorf("ours\n%s\netcd's\n%s", got, want)
	}
	if len(s.Damage) != 0 || len(s.Notes) != 0 {
		t.Errorf("damage %v, notes %v", s.Damage, s.Notes)
	}
	if s.ConsistentIndex >= s.Commit || s.Commit != s.LastIndex || path.Base(s.Snapshot) != "0000000000000002-00000000000000ff.snap" {
		t.Errorf("consistent index %d, commit %d, last %d, snapshot %s", s.ConsistentIndex, s.Commit, s.LastIndex, s.Snapshot)
	}
	r, err := s.CheckReplay(f.mem(t))
	if err != nil || r.Index != s.ConsistentIndex || len(r.Differences) != 0 {
		t.Errorf("replay %+v, %v", r, err)
	}
	if h := history(t, f); h[len(h)-1] != string(want) {
		t.Error("the log alone leads elsewhere")
	}
}

// What a directory that lacks something still tells, and that it says what it lacks.
func TestMissingParts(t *testing.T) {
	f := small(t)
	h := history(t, f)
	whole := f.open(t)
	const newest = "snap/0000000000000002-00000000000000ff.snap"
	for _, c := range []struct {
		name       string
		files      files
		certain    uint64 // index
		damage     string // part of it; "" none
		note       string
		errorClass error
	}{
		{"no database: etcd applies the whole log", dropSnaps(f.with("snap/db", nil)), whole.Commit, "", "everything is taken from the log", nil},
		{"no database, but a snapshot to go with one", f.with("snap/db", nil), 0, "", "", base.ErrCorrupt},
		{"no newest snapshot", f.with(newest, nil), whole.Commit, "", "", nil},
		{"newest snapshot unreadable", f.with(newest, []byte("x")), whole.Commit, "00000000000000ff.snap", "", nil},
		{"no snapshot at all", dropSnaps(f), whole.Commit, "", "", nil},
		{"no log", dropWAL(f), whole.ConsistentIndex, "no WAL segment", "", nil},
		{"no first segment", f.with("wal/0000000000000000-0000000000000000.wal", nil), whole.Commit, "", "", nil},
		{"no middle segment", f.with("wal/0000000000000001-0000000000000061.wal", nil), whole.ConsistentIndex, "segment before this one is missing", "", nil},
		{"no last segment", f.with("wal/0000000000000002-0000000000000108.wal", nil), 0x107, "", "", nil},
		{"nothing", files{}, 0, "", "", base.ErrNotStore},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(c.files.mem(t), memberDir, Options{})
			if c.errorClass != nil {
				if !isClass(err, c.errorClass) {
					t.Errorf("%v, want %v", err, c.errorClass)
				}
				return
			}
			must(t, err)
			if s.Certain.Index != c.certain || render(s.Certain) != h[c.certain] {
				t.Errorf("certain is entry %d, want %d, content right: %v", s.Certain.Index, c.certain, render(s.Certain) == h[s.Certain.Index])
			}
			if got := fmt.Sprint(s.Damage); c.damage == "" && len(s.Damage) != 0 || !strings.Contains(got, c.damage) {
				t.Errorf("damage %v, want %q", got, c.damage)
			}
			if got := fmt.Sprint(s.Notes); !strings.Contains(got, c.note) {
				t.Errorf("notes %v, want %q", got, c.note)
			}
		})
	}
}

func dropSnaps(f files) files {
	c := maps.Clone(f)
	maps.DeleteFunc(c, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".snap") })
	return c
}

func dropWAL(f files) files {
	c := maps.Clone(f)
	maps.DeleteFunc(c, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".wal") })
	return c
}
