package raftlog

import (
	"fmt"
	"io"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// engineEdit adds one file to the append queue of a raft-engine.
//
//	… N-1 | N [batches][tail]          before; the tail does not decode, and only the last file may have one
//	… N-1 | N [batches]                after the cut: what the engine itself would do at its next start
//	… N-1 | N [batches] | N+1 [ours]   after the rename, which is the one moment at which all changes take effect
//
// A last file without a readable header holds nothing, but would be fatal if another followed: the new file takes its place.
type engineEdit struct {
	e   *Engine
	b   *Batch
	out []*outcome

	version, seq uint64
	final        string // path of the new file
	like         string // file whose owner and mode it gets
	next         string // the file that an engine would begin after it
	replace      bool   // final is there
	cut          string // last file with a tail; "" when there is none
	cutTo        int64
	cutBytes     int64
	size         int64
}

// maxSeq bounds file numbers: a name has sixteen digits.
const maxSeq = 1e16 - 2

func planEngine(e *Engine, b *Batch, out []*outcome) (Edit, error) {
	p := &engineEdit{e: e, b: b, out: out}
	if b.Empty() {
		return p, nil
	}
	if err := p.place(); err != nil {
		return nil, err
	}
	if err := p.refuse(); err != nil {
		return nil, err
	}
	var err error
	p.size, _, err = WriteLog(io.Discard, p.version, p.seq, b)
	return p, err
}

// place decides which file comes and which is cut.
func (p *engineEdit) place() error {
	e := p.e
	var last *FileReport
	for i := range e.report.Files {
		f := &e.report.Files[i]
		if f.Skipped {
			return behindSkipped(f)
		}
		p.like = f.Path
		if f.Version != 0 {
			p.version = f.Version // the last append file with a header comes last
		}
		if f.Queue == Append {
			last = f
		}
	}
	if p.version == 0 {
		p.version = 1 // every line reads it, and the engine itself makes such a file anew as version 1
	}
	name := func(seq uint64) string { return e.fs.PathJoin(e.dir, FileName(Append, seq)) }
	switch {
	case last == nil:
		p.seq = 1
		p.final = name(1)
	case last.BadHeader != "":
		p.seq, p.final, p.replace = last.Seq, last.Path, true
	default:
		p.seq, p.final = last.Seq+1, name(last.Seq+1)
		if p.cutBytes = last.Size - last.Valid; p.cutBytes > 0 {
			p.cut, p.cutTo = last.Path, last.Valid
		}
	}
	if p.seq > maxSeq {
		return base.Unsupportedf(p.final, "file number %d leaves no room for the names that follow", p.seq)
	}
	p.next = name(p.seq + 1)
	free := []string{p.next}
	if !p.replace {
		free = append(free, p.final)
	}
	for _, f := range free {
		if there, err := base.Exists(e.fs, f); err != nil {
			return err
		} else if there {
			return base.Unsupportedf(f, "the name of a log file to come is taken")
		}
	}
	return nil
}

// behindSkipped is the error of an edit after a corruption in the middle of the log. What the lost batches said is not known: a vote
// that the replica has given, a log that was cleaned. A state that is written on top would make the guess durable. Besides, whether
// a server opens the directory at all then hangs on a setting that may change before it is started.
func behindSkipped(f *FileReport) error {
	return &base.Error{Class: base.ErrCorrupt, Op: "plan raft edit", Path: f.Path, Offset: f.Valid,
		Reason: fmt.Sprintf("%s; %d bytes are skipped there because %s is %q, and newer files follow: raft states may be older than what the replicas have promised, so nothing is written to this raft store",
			f.Stop, f.Size-f.Valid, ModeSetting, TolerateAny),
		Next: "restore the file from a copy; without one, let the other replicas serve and add this store anew"}
}

// refuse names what must not be done to this store.
func (p *engineEdit) refuse() error {
	cleaned := map[uint64]bool{}
	for _, op := range p.b.ops {
		switch first, have := p.e.appendFirst[op.region]; op.kind {
		case opClean:
			cleaned[op.region] = true
		case opEntries:
			// 6.1.0 replays with the rule for live writes, which panics.
			if p.version == 1 && have && op.entries[0].Index < first && !cleaned[op.region] {
				return &base.Error{Class: base.ErrUnsupported, Op: "plan raft edit", Path: p.final, Offset: -1, Region: op.region,
					Reason: fmt.Sprintf("entry %d lies below the first one of the append files, %d, which TiKV 6.1.0 does not start on", op.entries[0].Index, first),
					Next:   "clean the region and write its whole log again"}
			}
		}
	}
	for _, o := range p.out {
		if !o.cleaned {
			continue
		}
		for _, k := range p.e.Keys(o.region) {
			if _, again := o.put[string(k)]; !again && string(k) != stateKey {
				return &base.Error{Class: base.ErrUnsupported, Op: "plan raft edit", Path: p.final, Offset: -1, Region: o.region,
					Reason: fmt.Sprintf("the region has the key %X besides its raft state: cleaning it would lose what raftstore-v2 keeps there", k)}
			}
		}
	}
	return nil
}

func (p *engineEdit) Empty() bool { return p.b.Empty() }

func (p *engineEdit) Dirs() []string {
	if p.Empty() {
		return nil
	}
	return []string{p.e.fs.PathDir(p.final)}
}

func (p *engineEdit) Bytes() int64 { return p.size + p.cutBytes }

func (p *engineEdit) Summary() Summary {
	s := Summary{File: p.final, Regions: len(p.out), Cut: p.cut, CutBytes: p.cutBytes, Replaced: p.replace}
	for _, op := range p.b.ops {
		s.Entries += len(op.entries)
	}
	return s
}

func (p *engineEdit) Stage(sink Sink) (err error) {
	if p.Empty() {
		return nil
	}
	if p.cut != "" {
		if err := sink.Cut(p.cut, p.cutTo); err != nil {
			return err
		}
	}
	if p.replace {
		if err := sink.Save(p.final); err != nil {
			return err
		}
	}
	f, err := sink.Create(p.final)
	if err != nil {
		return err
	}
	_, _, err = WriteLog(f, p.version, p.seq, p.b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return base.IO("write", p.final, err)
	}
	if err := sink.Add(p.final, p.like); err != nil {
		return err
	}
	return sink.Log(p.final, p.next)
}

func (p *engineEdit) Staged(suffix string) (Store, error) {
	o := overlay{FS: p.e.fs}
	if !p.Empty() {
		o.staged = map[string]string{p.final: p.final + suffix}
		o.size = map[string]int64{}
		if p.cut != "" {
			o.size[p.cut] = p.cutTo
		}
	}
	return p.open(o)
}

func (p *engineEdit) Published() (Store, error) { return p.open(p.e.fs) }

// open reads the directory and compares it with what was there before and with the batch.
func (p *engineEdit) open(fs base.FS) (Store, error) {
	after, rep, err := OpenEngineMode(fs, p.e.dir, p.e.spill, p.e.mode)
	if err != nil {
		return nil, err
	}
	if p.Empty() {
		return after, nil
	}
	if i := slices.IndexFunc(rep.Files, func(f FileReport) bool { return f.Queue == Append && f.Seq == p.seq }); i < 0 {
		return nil, readBack(0, "the new file %s is not among the live ones", p.final)
	} else if f := rep.Files[i]; f.Stop != "" || f.Size != p.size || f.Path != p.final {
		return nil, readBack(0, "%s: %d bytes of %d, %s", f.Path, f.Size, p.size, f.Stop)
	}
	if err := p.sameEntries(after); err != nil {
		return nil, err
	}
	return after, verify(p.e, after, p.out)
}

// sameEntries demands that every old entry that stays is still read from the same place.
func (p *engineEdit) sameEntries(after *Engine) error {
	before := p.e
	if n := len(before.blocks); n > len(after.blocks) || !slices.Equal(before.blocks, after.blocks[:n]) {
		return readBack(0, "the batches of the old files are not the same")
	}
	keep := map[uint64]uint64{}
	for _, o := range p.out {
		keep[o.region] = o.keepBelow
	}
	for id, g := range before.groups {
		n := len(g.entries)
		if below, ok := keep[id]; ok {
			n = int(max(below, g.first) - g.first)
		}
		if n == 0 {
			continue
		}
		h := after.groups[id]
		if h == nil || h.first != g.first || len(h.entries) < n || !slices.Equal(g.entries[:n], h.entries[:n]) {
			return readBack(id, "the old entries from %d on are not the same", g.first)
		}
	}
	return nil
}
