package raftlog

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func errIndex(want, got uint64) error {
	return fmt.Errorf("the entry stored under index %d says that it is %d", want, got)
}

// blockCursor holds one open file and one decoded block: entries that follow each other mostly share them.
type blockCursor struct {
	e    *Engine
	file vfs.File
	open uint32 // index of file in e.files
	data []byte
	at   uint32 // index of data in e.blocks
	have bool
}

func (c *blockCursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// load returns the decoded entries block i, valid until the next call.
func (c *blockCursor) load(i uint32) ([]byte, error) {
	if c.have && c.at == i {
		return c.data, nil
	}
	if c.e.cached != nil && c.e.cachedAt == i {
		c.data, c.at, c.have = c.e.cached, i, true
		return c.data, nil
	}
	ref := c.e.blocks[i]
	lf := &c.e.files[ref.file]
	if c.file == nil || c.open != ref.file {
		c.close()
		f, err := c.e.fs.Open(lf.path)
		if err != nil {
			return nil, base.IO("open", lf.path, err)
		}
		c.file, c.open = f, ref.file
	}
	c.at, c.have = i, false
	raw, err := readBlock(newWindow(c.file, lf.path, lf.size), ref)
	if _, bad := err.(*badBatch); bad {
		return nil, c.corrupt(err)
	}
	if err != nil {
		return nil, err
	}
	data, err := DecodeBlock(raw, ref.compression)
	if err != nil {
		return nil, c.corrupt(err)
	}
	c.data, c.have = data, true
	c.e.cached, c.e.cachedAt = data, i
	return data, nil
}

// corrupt places an error at the block that was loaded last.
func (c *blockCursor) corrupt(err error) error {
	ref := c.e.blocks[c.at]
	return base.Corruptf(c.e.files[ref.file].path, ref.off, "%v", err)
}

// VerifyBlocks reads every entries block that holds a live entry, in file order, and every live entry in it, and calls fn for
// each block or entry that is broken. dead says which entries do not count (at or below the truncated index, above
// last_index); nil counts all. It returns I/O errors and those of fn.
func (e *Engine) VerifyBlocks(dead func(region, index uint64) bool, fn func(region uint64, err error) error) error {
	c := blockCursor{e: e}
	defer c.close()
	for file := range e.files {
		if err := e.verifyFile(&c, uint32(file), dead, fn); err != nil {
			return err
		}
	}
	return nil
}

// verifyFile looks through all groups for the entries of one file: the list of them is bounded by the file, not by the store.
func (e *Engine) verifyFile(c *blockCursor, file uint32, dead func(region, index uint64) bool,
	fn func(region uint64, err error) error) error {
	type live struct {
		pos
		region, index uint64
	}
	var all []live
	for id, g := range e.groups {
		for i, p := range g.entries {
			index := g.first + uint64(i)
			if e.blocks[p.block].file == file && (dead == nil || !dead(id, index)) {
				all = append(all, live{p, id, index})
			}
		}
	}
	slices.SortFunc(all, func(a, b live) int {
		return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(a.region, b.region), cmp.Compare(a.index, b.index))
	})
	broken := int64(-1) // block that was reported already
	for _, l := range all {
		if broken == int64(l.block) {
			continue
		}
		data, err := c.load(l.block)
		if err != nil {
			if !isCorrupt(err) {
				return err
			}
			broken = int64(l.block)
		} else if _, cerr := cutEntry(data, l.span, l.index); cerr != nil {
			err = c.corrupt(cerr)
		}
		if err != nil {
			if err := fn(l.region, withRegion(err, l.region)); err != nil {
				return err
			}
		}
	}
	return nil
}

var _ Store = (*Engine)(nil)
