package crash

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// What the crash tests rely on in pebble's file system in memory: content lasts after a sync of the file, names after a sync of
// their directory, and a rename needs that of both.
//
// What it cannot express, and what the tests do about it: a removed name always comes back until its directory is synced, even with
// 100% of what was not synced, and a rename can leave both names (therefore also "process killed", where everything is as it
// was); hard links become copies in a clone; a sync that failed has no effect, and one that is repeated works (a disk may
// forget the data); there are no owners, modes and other mounts.
func TestCrashMemFSKeepsWhatIsSynced(t *testing.T) {
	write := func(fs vfs.FS, name string, sync bool) {
		f, err := fs.Create(name, base.DiskWriteCategory)
		must(t, err)
		_, err = f.Write([]byte(name))
		must(t, err)
		if sync {
			must(t, f.Sync())
		}
		must(t, f.Close())
	}
	dirs := func(fs vfs.FS, names ...string) {
		for _, n := range names {
			must(t, base.SyncDir(base.NewMem(fs), n))
		}
	}
	for _, c := range []struct {
		name  string
		do    func(fs vfs.FS)
		want  []string // with nothing of what was not synced
		after []string // with all of it
	}{
		{"a synced file in a directory that is not", func(fs vfs.FS) { write(fs, "/a/new", true) }, []string{"b/", "old"}, []string{"b/", "new", "old"}},
		{"a file that is not synced in a directory that is", func(fs vfs.FS) { write(fs, "/a/new", false); dirs(fs, "/a") },
			[]string{"b/", "new: empty", "old"}, []string{"b/", "new", "old"}},
		{"a rename", func(fs vfs.FS) { must(t, fs.Rename("/a/old", "/a/new")) }, []string{"b/", "old"}, []string{"b/", "new", "old"}},
		{"a rename with the directory synced", func(fs vfs.FS) { must(t, fs.Rename("/a/old", "/a/new")); dirs(fs, "/a") },
			[]string{"b/", "new"}, []string{"b/", "new"}},
		{"a rename to another directory, only the old one synced: the file is lost",
			func(fs vfs.FS) { must(t, fs.Rename("/a/old", "/a/b/old")); dirs(fs, "/a") }, []string{"b/"}, []string{"b/", "b/old"}},
		{"a link", func(fs vfs.FS) { must(t, fs.Link("/a/old", "/a/b/old")) }, []string{"b/", "old"}, []string{"b/", "b/old", "old"}},
		{"a link with its directory synced", func(fs vfs.FS) { must(t, fs.Link("/a/old", "/a/b/old")); dirs(fs, "/a/b") },
			[]string{"b/", "b/old", "old"}, []string{"b/", "b/old", "old"}},
		{"a removed name comes back", func(fs vfs.FS) { must(t, fs.Remove("/a/old")) }, []string{"b/", "old"}, []string{"b/", "old"}},
		{"a removed name with the directory synced", func(fs vfs.FS) { must(t, fs.Remove("/a/old")); dirs(fs, "/a") }, []string{"b/"}, []string{"b/"}},
	} {
		fs := vfs.NewCrashableMem()
		must(t, fs.MkdirAll("/a/b", 0o755))
		write(fs, "/a/old", true)
		dirs(fs, "/a/b", "/a", "/")
		c.do(fs)
		for percent, want := range map[int][]string{0: c.want, 100: c.after} {
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
			got, err := tree(clone, "/a")
			must(t, err)
			var names []string
			for _, n := range sorted(got) {
				if got[n] == "" && n != "b/" {
					n += ": empty"
				}
				names = append(names, n)
			}
			if !slices.Equal(names, want) {
				t.Errorf("%s, %d%%: %v, want %v", c.name, percent, names, want)
			}
		}
	}
}
