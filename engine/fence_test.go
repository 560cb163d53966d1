package engine_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
)

const mark = "/data/panic_mark_file"

func fenceFS(t *testing.T) (*vfs.MemFS, base.FS) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	fs := base.NewMem(mem)
	if err := fs.MkdirAll("/data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := base.SyncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
	return mem, fs
}

func crashed(mem *vfs.MemFS) base.FS { return base.NewMem(mem.CrashClone(vfs.CrashCloneCfg{})) }

func mustFence(t *testing.T, fs base.FS) *engine.Fence {
	t.Helper()
	f, err := engine.ReadFence(fs, "/data")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The fence goes up and down, each time for good: a power failure right after the call changes nothing.
func TestFenceUpAndDown(t *testing.T) {
	mem, fs := fenceFS(t)
	if f := mustFence(t, fs); f != nil {
		t.Fatalf("fence %+v in an empty directory", f)
	}
	for range 2 {
		if err := engine.WriteFence(fs, "/data", "p-1"); err != nil {
			t.Fatal(err)
		}
		f := mustFence(t, crashed(mem))
		if f == nil || !f.Ours || f.PlanID != "p-1" {
			t.Fatalf("after a crash: %+v", f)
		}
		for _, line := range []string{"\ntikv-repair plan: p-1\n", "tikv-repair status /data\n"} {
			if !bytes.Contains(f.Raw, []byte(line)) {
				t.Errorf("fence does not say %q:\n%s", line, f.Raw)
			}
		}
	}
	if err := engine.WriteFence(fs, "/data", "p-2"); !errors.Is(err, base.ErrPlanMismatch) || !strings.Contains(err.Error(), "p-1") {
		t.Errorf("another plan's fence: %v", err)
	}
	if err := engine.RemoveFence(fs, "/data", "p-2"); !errors.Is(err, base.ErrPlanMismatch) {
		t.Errorf("removing another plan's fence: %v", err)
	}
	for range 2 {
		if err := engine.RemoveFence(fs, "/data", "p-1"); err != nil {
			t.Fatal(err)
		}
		if f := mustFence(t, crashed(mem)); f != nil {
			t.Errorf("after remove and crash: %+v", f)
		}
	}
}

// TiKV's own mark is empty; neither it nor any other text is touched.
func TestForeignMarkStays(t *testing.T) {
	for _, text := range []string{"", "corrupted", "tikv-repair plan: \n", "tikv-repair plan: p-1", "x tikv-repair plan: p-1\n",
		"tikv-repair plan: p-1\ntikv-repair plan: p-2\n", "tikv-repair plan: p 1\n", "tikv-repair plan: p-1\r\n"} {
		_, fs := fenceFS(t)
		if err := base.WriteFileSync(fs, mark, []byte(text), ""); err != nil {
			t.Fatal(err)
		}
		if f := mustFence(t, fs); f == nil || f.Ours || f.PlanID != "" || string(f.Raw) != text {
			t.Errorf("%q: %+v", text, f)
		}
		for _, act := range []func(base.FS, string, string) error{engine.WriteFence, engine.RemoveFence} {
			if err := act(fs, "/data", "p-1"); !errors.Is(err, base.ErrPlanMismatch) {
				t.Errorf("%q: %v", text, err)
			}
		}
		if b, err := base.ReadFile(fs, mark); err != nil || string(b) != text {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
}

func TestBadPlanID(t *testing.T) {
	_, fs := fenceFS(t)
	for _, id := range []string{"", "a b", "a\nb", "a/b", strings.Repeat("x", 129)} {
		if err := engine.WriteFence(fs, "/data", id); !errors.Is(err, base.ErrUsage) {
			t.Errorf("%q: %v", id, err)
		}
		if err := engine.RemoveFence(fs, "/data", id); !errors.Is(err, base.ErrUsage) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A directory name with odd characters cannot forge a fence line, and the command to type stays safe to paste.
func TestFenceOfOddDirectory(t *testing.T) {
	_, fs := fenceFS(t)
	const odd = "/data/it's\ntikv-repair plan: other"
	if err := fs.MkdirAll(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := engine.WriteFence(fs, odd, "p-1"); err != nil {
		t.Fatal(err)
	}
	f, err := engine.ReadFence(fs, odd)
	if err != nil || !f.Ours || f.PlanID != "p-1" || !bytes.Contains(f.Raw, []byte(`status '/data/it'\''s?tikv-repair plan: other'`)) {
		t.Errorf("%v: %s", err, f.Raw)
	}
}

// Each file operation fails once, and the power is cut right then: whatever is left is no mark, or our whole fence, never
// something that a rerun takes for TiKV's. The rerun succeeds.
func TestFenceCrashAtEveryOperation(t *testing.T) {
	stop := errors.New("injected")
	const seed = 1
	t.Logf("seed %d", seed)
	for _, act := range []struct {
		name string
		call func(base.FS, string, string) error
		had  bool // a fence is there before
	}{{"write", engine.WriteFence, false}, {"remove", engine.RemoveFence, true}} {
		ops := 0
		for done := false; !done; ops++ {
			mem, fs := fenceFS(t)
			if act.had {
				if err := engine.WriteFence(fs, "/data", "p-1"); err != nil {
					t.Fatal(err)
				}
			}
			left := ops
			inject := errorfs.InjectorFunc(func(errorfs.Op) error {
				if left--; left < 0 {
					return stop
				}
				return nil
			})
			err := act.call(base.NewMem(errorfs.Wrap(mem, inject)), "/data", "p-1")
			if done = err == nil; !done && !errors.Is(err, stop) {
				t.Fatalf("%s, operation %d: %v", act.name, ops, err)
			}
			for _, keep := range []int{0, 50, 100} {
				clone := base.NewMem(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(seed, uint64(ops)))}))
				if f := mustFence(t, clone); f != nil && (!f.Ours || f.PlanID != "p-1") {
					t.Errorf("%s, operation %d, %d%% kept: %q", act.name, ops, keep, f.Raw)
				}
				if err := act.call(clone, "/data", "p-1"); err != nil {
					t.Errorf("%s, operation %d, %d%% kept, rerun: %v", act.name, ops, keep, err)
				}
				if f := mustFence(t, clone); (f == nil) != act.had {
					t.Errorf("%s, operation %d, rerun: fence %+v", act.name, ops, f)
				}
			}
		}
		if ops < 5 {
			t.Errorf("%s: only %d operations", act.name, ops)
		}
	}
}

func FuzzFence(f *testing.F) {
	f.Add([]byte("This store is being repaired.\ntikv-repair plan: p-1\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := base.NewMem(vfs.NewMem())
		if err := base.WriteFileSync(fs, "/panic_mark_file", b, ""); err != nil {
			t.Fatal(err)
		}
		got, err := engine.ReadFence(fs, "/")
		if err != nil || got == nil || !bytes.Equal(got.Raw, b) {
			t.Fatalf("%+v, %v", got, err)
		}
		if got.Ours && !bytes.Contains(append([]byte("\n"), b...), []byte("\ntikv-repair plan: "+got.PlanID+"\n")) {
			t.Errorf("%q gives plan %q", b, got.PlanID)
		}
		if !got.Ours && got.PlanID != "" {
			t.Errorf("plan %q of a foreign mark", got.PlanID)
		}
	})
}

func TestFreeSpace(t *testing.T) {
	free, err := engine.FreeSpace(base.NewOS(), t.TempDir())
	if err != nil || free == 0 {
		t.Errorf("%d, %v", free, err)
	}
	if _, err := engine.FreeSpace(base.NewOS(), t.TempDir()+"/none"); !errors.Is(err, base.ErrIO) {
		t.Errorf("missing directory: %v", err)
	}
}
