package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// stateKey is the key of RaftLocalState within a region's group; tikv/tikv components/raft_log_engine/src/engine.rs
// (RAFT_LOG_STATE_KEY). Group 0 is the store itself, in raftstore-v2 only.
const stateKey = "\x52"

// Engine is a stopped raft-engine directory. It keeps 12 bytes per entry and opens files when entries are read.
type Engine struct {
	fs     base.FS
	files  []logFile
	blocks []block
	groups table

	// cached is the entries block that was decoded last: a region's entries are asked for several times in a row.
	cached   []byte
	cachedAt uint32

	dir, spill string
	mode       Mode
	report     *Report
	// appendFirst has the first index that each group holds in the append queue alone.
	appendFirst map[uint64]uint64
}

// Tail says what stands after the last batch of a file.
type Tail string

// The tails. They say nothing about how TiKV was stopped: a stop by SIGTERM leaves them as well.
const (
	TailNone  Tail = "none"
	TailZero  Tail = "zero"  // preallocated space
	TailOther Tail = "other" // a recycled file's former content, or a torn write
)

// FileReport describes one live file.
type FileReport struct {
	Path    string `json:"path"`
	Queue   Queue  `json:"queue"`
	Seq     uint64 `json:"seq"`
	Version uint64 `json:"version"` // of the header; 0 when it does not decode
	Size    int64  `json:"size"`    // bytes
	Valid   int64  `json:"valid"`   // offset behind the last good batch: what TiKV truncates the file to
	Batches int    `json:"batches"`
	Tail    Tail   `json:"tail"`
	// Torn is set when the final batch was dropped because its entries block is broken: lines before 7.4 accept it.
	Torn bool `json:"torn,omitempty"`
	// BadHeader is set when the header does not decode: TiKV empties such a file and goes on.
	BadHeader string `json:"bad_header,omitempty"`
	// Stop is why reading ended at Valid; empty at a clean end.
	Stop string `json:"stop,omitempty"`
	// Skipped is set when reading ended at Valid although newer files of the queue follow: what stood behind it is lost, and the
	// newer files count nevertheless. Only with TolerateAny.
	Skipped bool `json:"skipped,omitempty"`
}

// Report describes what OpenEngine found.
type Report struct {
	Dir      string       `json:"dir"`
	SpillDir string       `json:"spill_dir,omitempty"`
	Mode     Mode         `json:"recovery_mode"`
	Files    []FileReport `json:"files"`    // live files, rewrite queue first, by number
	Ignored  []string     `json:"ignored"`  // cut off by a gap in the numbers, as TiKV does
	Reserved []string     `json:"reserved"` // recycled or prefilled, no content
	Odd      []string     `json:"odd,omitempty"`
	Groups   int          `json:"groups"`
	Entries  uint64       `json:"entries"`
	// DroppedAtomic is the number of atomic groups of the rewrite queue that never ended.
	DroppedAtomic int `json:"dropped_atomic,omitempty"`
}

// OpenEngine is OpenEngineMode with TiKV's default recovery mode.
func OpenEngine(fs base.FS, dir, spillDir string) (*Engine, *Report, error) {
	return OpenEngineMode(fs, dir, spillDir, TolerateTail)
}

// OpenEngineMode reads a raft-engine directory as a TiKV with this recovery mode does: the rewrite queue, then the append queue
// over it. spillDir is the configured second directory, or empty; so is mode, which then is TolerateTail. Errors: class ErrCorrupt where TiKV would refuse to open,
// ErrUnsupported for files that are encrypted, ErrNotStore when there is no log file, ErrIO.
func OpenEngineMode(fs base.FS, dir, spillDir string, mode Mode) (*Engine, *Report, error) {
	if mode == "" {
		mode = TolerateTail
	}
	dirs := []string{dir}
	if spillDir != "" {
		dirs = append(dirs, spillDir)
	}
	l, err := scanDirs(fs, dirs...)
	if err != nil {
		return nil, nil, err
	}
	if len(l.queues[Append])+len(l.queues[Rewrite]) == 0 {
		return nil, nil, &base.Error{Class: base.ErrNotStore, Op: "open raft-engine", Path: dir, Offset: -1,
			Reason: "it holds no .raftlog and no .rewrite file"}
	}
	if err := refuseEncrypted(fs, dir, &l); err != nil {
		return nil, nil, err
	}
	size := int64(0)
	for _, q := range l.queues {
		for i := range q {
			size += q[i].size
		}
	}
	defer base.Begin(fs, "reading raft-engine").Reads(size).End()
	e := &Engine{fs: fs, groups: table{}, dir: dir, spill: spillDir, mode: mode, appendFirst: map[uint64]uint64{}}
	rep := &Report{Dir: dir, SpillDir: spillDir, Mode: mode, Ignored: l.ignored, Reserved: l.reserved, Odd: l.odd}
	pending := atomicGroups{}
	err = e.replay(l.queues[Rewrite], rep, func(b *batch) error { return e.applyRewrite(b, pending) })
	if err != nil {
		return nil, nil, err
	}
	rep.DroppedAtomic = len(pending)
	newer := table{}
	if err := e.replay(l.queues[Append], rep, func(b *batch) error { return e.applyAppend(b, newer) }); err != nil {
		return nil, nil, err
	}
	for id, g := range newer {
		if len(g.entries) > 0 {
			e.appendFirst[id] = g.first
		}
	}
	e.groups.overlay(newer)
	e.report = rep
	rep.Groups = len(e.groups)
	for _, g := range e.groups {
		rep.Entries += uint64(len(g.entries))
	}
	return e, rep, nil
}

// refuseEncrypted looks at the beginning of every file before any of them is judged: with encryption at rest no file begins
// with the magic, and the default recovery mode would take the last one for an empty one.
func refuseEncrypted(fs base.FS, dir string, l *listing) error {
	total, strange := 0, ""
	bad := 0
	for q := range l.queues {
		for i := range l.queues[q] {
			lf := &l.queues[q][i]
			total++
			if lf.size < int64(len(magic)) {
				continue
			}
			head := make([]byte, len(magic))
			f, err := fs.Open(lf.path)
			if err != nil {
				return base.IO("open", lf.path, err)
			}
			err = base.ReadFullAt(f, lf.path, head, 0)
			f.Close()
			if err != nil {
				return err
			}
			if string(head) != magic && len(bytes.Trim(head, "\x00")) > 0 {
				bad++
				strange = lf.path
			}
		}
	}
	if bad == 0 {
		return nil
	}
	dict, err := base.Exists(fs, fs.PathJoin(fs.PathDir(dir), "file.dict"))
	if err != nil {
		return err
	}
	if dict || bad == total {
		return base.Unsupportedf(strange, "no raft-engine file header: the directory is encrypted at rest, and no key was given")
	}
	return nil
}

// replay reads the files of one queue in order. The mode says which of them may end badly.
func (e *Engine) replay(files []logFile, rep *Report, apply func(b *batch) error) error {
	for i := range files {
		lf := files[i]
		last := i == len(files)-1
		e.files = append(e.files, lf)
		s, err := scanFile(e.fs, &lf, func(b *batch) error {
			if err := apply(b); err != nil {
				return replayFailed(lf.path, b.off, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		fr := FileReport{Path: lf.path, Queue: lf.queue, Seq: lf.seq, Version: s.header.Version, Size: lf.size, Valid: s.valid,
			Batches: s.batches, Torn: s.torn, Tail: TailNone}
		e.files[len(e.files)-1].version = s.header.Version
		if s.badHead != nil {
			fr.BadHeader, s.bad = s.badHead.Error(), s.badHead
		}
		if s.bad != nil {
			if err := e.mode.judge(&lf, last, s.valid, s.bad); err != nil {
				return err
			}
			fr.Stop, fr.Skipped = s.bad.Error(), !last
		}
		if fr.Tail, err = e.tailOf(&lf, s.valid); err != nil {
			return err
		}
		rep.Files = append(rep.Files, fr)
	}
	return nil
}

// replayFailed is the error of a batch that does not fit what was read before it. An engine that reads with several threads replays
// parts of the queue on their own, and a Clean or Compact of a later part may hide from it what it would panic on otherwise.
func replayFailed(path string, off int64, cause error) error {
	err := base.Corruptf(path, off, "%v", cause)
	err.Next = "batches before it are lost: restore the log files from a copy; TiKV panics here too, or, with several raft-engine.recovery-threads, may start without noticing"
	return err
}

// tailOf looks at the first 64 KiB after off.
func (e *Engine) tailOf(lf *logFile, off int64) (Tail, error) {
	if off >= lf.size {
		return TailNone, nil
	}
	f, err := e.fs.Open(lf.path)
	if err != nil {
		return "", base.IO("open", lf.path, err)
	}
	defer f.Close()
	b := make([]byte, min(lf.size-off, 64<<10))
	if err := base.ReadFullAt(f, lf.path, b, off); err != nil {
		return "", err
	}
	if len(bytes.TrimLeft(b, "\x00")) == 0 {
		return TailZero, nil
	}
	return TailOther, nil
}

// addBlock registers the entries block of b if an item refers to it.
func (e *Engine) addBlock(b *batch) uint32 {
	for i := range b.items {
		if len(b.items[i].spans) > 0 {
			e.blocks = append(e.blocks, b.blockRef(uint32(len(e.files)-1)))
			break
		}
	}
	return uint32(len(e.blocks) - 1)
}

func (e *Engine) applyRewrite(b *batch, pending atomicGroups) error {
	blk := e.addBlock(b)
	id, m, ok := marker(b.items)
	if !ok {
		return e.applyItems(b.items, blk)
	}
	if m > markEnd {
		return fmt.Errorf("atomic group %d has a mark of %d: raft-engine panics", id, m)
	}
	for _, p := range pending.accept(id, m, pendingBatch{section: bytes.Clone(b.section), block: blk}) {
		items, err := decodeItems(nil, p.section)
		if err != nil {
			return err
		}
		if err := e.applyItems(items, p.block); err != nil {
			return err
		}
		for i := range items {
			if !bytes.Equal(items[i].key, atomicKey) {
				e.groups.at(items[i].group) // as in the engine: there, though it may be empty
			}
		}
	}
	return nil
}

func (e *Engine) applyItems(items []item, blk uint32) error {
	for i := range items {
		if err := e.groups.apply(&items[i], blk, true); err != nil {
			return err
		}
	}
	return nil
}

// applyAppend replays a batch of the append queue. e.groups then is the complete rewrite queue, and tombstones reach it too.
func (e *Engine) applyAppend(b *batch, newer table) error {
	blk := e.addBlock(b)
	for i := range b.items {
		it := &b.items[i]
		if err := newer.apply(it, blk, false); err != nil {
			return err
		}
		e.groups.bury(it)
	}
	return nil
}

// Close implements Store. Files are open only while entries are read.
func (e *Engine) Close() error { return nil }

// Regions implements Store. Group 0, the store-level data of raftstore-v2, is not a region.
func (e *Engine) Regions() ([]uint64, error) {
	var ids []uint64
	for id, g := range e.groups {
		if _, ok := g.kv.get(stateKey); id != 0 && (ok || len(g.entries) > 0) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Groups lists the ids of all groups, ascending: the regions, those that hold neither a state nor entries any more, and group 0.
func (e *Engine) Groups() []uint64 { return slices.Sorted(maps.Keys(e.groups)) }

// RaftState implements Store.
func (e *Engine) RaftState(region uint64) ([]byte, bool, error) {
	v, ok := e.Value(region, []byte(stateKey))
	return v, ok, nil
}

// Value returns the value of a key of a group; raftstore-v2 keeps more than the raft state there. The result must not be
// changed.
func (e *Engine) Value(group uint64, key []byte) ([]byte, bool) {
	g := e.groups[group]
	if g == nil {
		return nil, false
	}
	v, ok := g.kv.get(string(key))
	return v, ok
}

// Keys lists the keys of a group in byte order.
func (e *Engine) Keys(group uint64) [][]byte {
	g := e.groups[group]
	if g == nil {
		return nil
	}
	keys := make([][]byte, 0, len(g.kv))
	for _, x := range g.kv {
		keys = append(keys, []byte(x.key))
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys
}

// Bounds implements Store.
func (e *Engine) Bounds(region uint64) (first, last uint64, ok bool, err error) {
	g := e.groups[region]
	if g == nil || len(g.entries) == 0 {
		return 0, 0, false, nil
	}
	return g.first, g.last(), true, nil
}

// Entries implements Store. The checksum of every block that is touched is verified, and that each entry has the index under
// which it is stored: TiKV panics where it has not.
func (e *Engine) Entries(region, from, to uint64, fn func(e raftstate.Entry) error) error {
	g := e.groups[region]
	if g == nil || len(g.entries) == 0 || to <= g.first || from > g.last() || from >= to {
		return nil
	}
	from, to = max(from, g.first), min(to-1, g.last())+1
	c := blockCursor{e: e}
	defer c.close()
	for i, p := range g.entries[from-g.first : to-g.first] {
		index := from + uint64(i)
		data, err := c.load(p.block)
		if err != nil {
			return withRegion(err, region)
		}
		entry, err := cutEntry(data, p.span, index)
		if err != nil {
			return withRegion(c.corrupt(err), region)
		}
		if err := fn(entry); err != nil {
			return err
		}
	}
	return nil
}

// cutEntry takes an entry out of its decoded block.
func cutEntry(data []byte, s span, index uint64) (raftstate.Entry, error) {
	if s == badSpan || uint64(s.off)+uint64(s.len) > uint64(len(data)) {
		return raftstate.Entry{}, errors.New("the place of an entry is outside of its block")
	}
	entry, err := raftstate.ParseEntry(data[s.off : s.off+s.len : s.off+s.len])
	if err != nil {
		return entry, err
	}
	if entry.Index != index {
		return entry, errIndex(index, entry.Index)
	}
	return entry, nil
}
