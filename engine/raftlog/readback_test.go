package raftlog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
)

// A staged file that is not what was to be written is found before anything is published, and so is a published one.
func TestReadBack(t *testing.T) {
	b := func() *Batch { return script(t, entries(t, 2, 10, 11, 8), put(2, "R", "new"), clean(3)) }
	other := func(list ...*batchBuilder) func([]byte) []byte {
		return func([]byte) []byte { return batches(2, 9, list...) }
	}
	rest := func() *batchBuilder { return nb().put(2, "R", "new").clean(3) }
	for name, spoil := range map[string]func(b []byte) []byte{
		"a flipped bit in an entry":   func(b []byte) []byte { b[headerLenV2+17] ^= 1; return b },
		"a flipped bit in an item":    func(b []byte) []byte { b[len(b)-6] ^= 1; return b },
		"cut short":                   func(b []byte) []byte { return b[:len(b)-1] },
		"too long":                    func(b []byte) []byte { return append(b, 0) },
		"empty":                       func([]byte) []byte { return nil },
		"another number":              func([]byte) []byte { return batches(2, 8, nb().log(2, 10, 11, 8), rest()) },
		"another term":                other(nb().log(2, 10, 11, 7), rest()),
		"an entry less":               other(nb().log(2, 10, 10, 8), rest()),
		"an entry more":               other(nb().log(2, 10, 12, 8), rest()),
		"from another index":          other(nb().log(2, 9, 11, 8), rest()),
		"another state":               other(nb().log(2, 10, 11, 8), nb().put(2, "R", "old").clean(3)),
		"a region that was not asked": other(nb().log(2, 10, 11, 8), rest().put(4, "R", "x")),
		"a region that stayed":        other(nb().log(2, 10, 11, 8), nb().put(2, "R", "new")),
	} {
		mem := dataDir(tails()["zero tail"])
		fs := base.NewMem(mem)
		tx, p, err := begin(fs, b())
		must(t, err)
		final := p.Summary().File
		content, err := base.ReadFile(fs, final+edit.StagedSuffix)
		must(t, err)
		must(t, base.WriteFileSync(fs, final+edit.StagedSuffix, spoil(slices.Clone(content)), ""))
		if _, err := p.Staged(edit.StagedSuffix); err == nil {
			t.Errorf("%s: not found before publishing", name)
		}
		if err := tx.Publish(); !errors.Is(err, base.ErrPlanMismatch) {
			t.Errorf("%s: published: %v", name, err)
		}
		clone := base.NewMem(mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}))
		again, err := edit.Open(clone, testData, "p1")
		must(t, err)
		if err := again.Undo(nil); err != nil {
			t.Errorf("%s: undo: %v", name, err)
		}
		must(t, base.WriteFileSync(fs, final+edit.StagedSuffix, content, ""))
		must(t, tx.Publish())
		must(t, base.WriteFileSync(fs, final, spoil(slices.Clone(content)), ""))
		if _, err := p.Published(); err == nil {
			t.Errorf("%s: not found after publishing", name)
		}
	}
}

// The view of what is not published yet is for reading.
func TestOverlayIsReadOnly(t *testing.T) {
	o := overlay{FS: base.NewMem(dataDir(tails()["clean"]))}
	_, err := o.Create("/x", vfs.WriteCategoryUnspecified)
	for what, err := range map[string]error{"create": err, "truncate": o.Truncate("/x", 0), "rename": o.Rename("/x", "/y"), "remove": o.Remove("/x")} {
		if !errors.Is(err, errReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
