package wal

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// NoSyncedSize marks a tracked WAL of which only the creation was recorded.
const NoSyncedSize = uint64(math.MaxUint64)

// noSequence is RocksDB's next_sequence before the first batch.
const noSequence = ikey.MaxSeq

// ReplayInput is what a MANIFEST says about the WALs of a RocksDB directory.
type ReplayInput struct {
	// Dir holds the *.log files: the directory itself, or its wal-dir.
	Dir string
	// MinLog is the LogNumber of each column family: WALs below it hold nothing that this family needs. Records of a
	// family that is not in the map are ignored; like the skipped ones they consume their sequence.
	MinLog map[uint32]uint64
	// MinLogToKeep is the MANIFEST's MinLogNumberToKeep, 0 when it has none.
	MinLogToKeep uint64
	// LastSequence is the MANIFEST's.
	LastSequence uint64
	// Tracked are the WALs that must exist, by number, with the size in bytes that they must have at least; NoSyncedSize
	// asks for nothing.
	Tracked map[uint64]uint64
	// HasSST tells whether the column family has live SST bytes. Nil means that all have.
	HasSST func(cf uint32) bool
}

// LogReport is what was found in one WAL.
type LogReport struct {
	Number uint64
	Path   string
	Size   int64
	// Skipped: below every column family's log number, not read.
	Skipped bool
	// Batches and Records were replayed; Emitted are the records that some column family needed.
	Batches, Records, Emitted uint64
	// FirstSeq and LastSeq are the first and the highest sequence of the replayed records; 0 without any.
	FirstSeq, LastSeq uint64
	// Damage in the order of offsets. At most the last one is not silent: it ended the replay of this WAL.
	Damage []*Damage
	// Cleared: a later WAL goes on with exactly the sequence that was expected here, so nothing is missing.
	Cleared bool
	// Dropped* is what is behind the damage, or the whole WAL when an earlier one is damaged, and was not replayed. Bytes
	// without records are the damaged ones.
	DroppedBytes                   int64
	DroppedBatches, DroppedRecords uint64
}

// fatal is the damage that ended the replay of this WAL, or nil.
func (l *LogReport) fatal() *Damage {
	if n := len(l.Damage); n > 0 && !l.Damage[n-1].Silent {
		return l.Damage[n-1]
	}
	return nil
}

// Report is the result of a replay.
type Report struct {
	// Logs by number.
	Logs []*LogReport
	// LastSequence = max(ReplayInput.LastSequence, every replayed sequence).
	LastSequence uint64
	// NextSequence is what the first batch of a new WAL must carry to be taken as the continuation. Without any replayed
	// batch (see Batches) RocksDB expects nothing and a damaged WAL cannot be continued.
	NextSequence uint64
	// Batches and Emitted are sums over Logs.
	Batches, Emitted uint64
	// MaxLog is the highest WAL number in the directory, 0 without WALs.
	MaxLog uint64
	// TornTail: the last WAL with data ends in the middle of a record, as a killed process leaves it. Normal.
	TornTail bool
	// Problems are what a writer refuses. A reader may go on: everything that RocksDB would recover was emitted.
	Problems []*Problem
}

// Err returns the first problem, or nil.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return r.Problems[0]
}

// Replay reads the WALs of a directory as DB::Open does in PointInTime mode, TiKV's default, and hands every record that
// some column family still needs to emit, in the order of the WALs, which is that of sequences unless SequenceRepeats is
// reported. Slices of a record are valid during the call only. Damage is no error but part of the Report; errors are
// failed file operations (base.ErrIO), two files for one WAL, and what emit returns.
//
// The rules (tikv/rocksdb 6.29.tikv and 8.10.tikv db/db_impl/db_impl_open.cc, RecoverLogFiles):
//   - WALs below max(MinLogToKeep, min over families of LogNumber) are not read, the others in the order of numbers.
//   - Damage ends a WAL and raises a stop flag. While it is raised each further WAL is dropped, unless a batch has exactly
//     the next expected sequence: that lowers the flag. Before the first batch there is no expected sequence.
//   - While the flag is down gaps in the sequence are legal: ingestion takes a sequence without a record.
//   - A flag that is still raised at the end together with a family whose LogNumber is above the damaged WAL, and which
//     has SSTs, means that this family went on without the others: "SST file is ahead of WALs".
func Replay(fs base.FS, in ReplayInput, emit func(rec Record) error) (*Report, error) {
	p := &replayer{fs: fs, in: in, emit: emit, rep: &Report{}, next: noSequence}
	if err := p.list(); err != nil {
		return nil, err
	}
	p.checkTracked()
	minLog := uint64(math.MaxUint64)
	for _, n := range in.MinLog {
		minLog = min(minLog, n)
	}
	if len(in.MinLog) == 0 {
		minLog = 0
	}
	minLog = max(minLog, in.MinLogToKeep)
	var size int64
	for _, l := range p.rep.Logs {
		if l.Number >= minLog {
			size += l.Size
		}
	}
	defer base.Begin(fs, "replaying the write-ahead logs").Reads(size).End()
	for _, l := range p.rep.Logs {
		if l.Number < minLog {
			l.Skipped = true
			continue
		}
		if err := p.log(l); err != nil {
			return nil, err
		}
		if p.halted {
			break
		}
	}
	p.conclude()
	return p.rep, nil
}

type replayer struct {
	fs   base.FS
	in   ReplayInput
	emit func(Record) error
	rep  *Report

	// next is RocksDB's next_sequence: the end of the batch replayed last, MaxSeq before the first.
	next uint64
	// maxNext is the highest end of any batch, 0 before the first.
	maxNext   uint64
	stopped   bool
	corrupted *LogReport // the WAL that raised the flag last
	halted    bool       // something that no version opens
}

// list finds the WALs.
func (p *replayer) list() error {
	names, err := p.fs.List(p.in.Dir)
	if err != nil {
		return base.IO("list", p.in.Dir, err)
	}
	seen := map[uint64]string{}
	for _, name := range names {
		n, ok := logNumber(name)
		if !ok {
			continue
		}
		path := p.fs.PathJoin(p.in.Dir, name)
		if other, twice := seen[n]; twice {
			return base.Corruptf(path, 0, "second file for log number %d besides %s", n, other)
		}
		seen[n] = name
		st, err := p.fs.Stat(path)
		if err != nil {
			return base.IO("stat", path, err)
		}
		p.rep.Logs = append(p.rep.Logs, &LogReport{Number: n, Path: path, Size: st.Size()})
		p.rep.MaxLog = max(p.rep.MaxLog, n)
	}
	sort.Slice(p.rep.Logs, func(i, j int) bool { return p.rep.Logs[i].Number < p.rep.Logs[j].Number })
	return nil
}

// logNumber reads the number of a WAL's name, any count of digits.
func logNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok || digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// checkTracked is WalSet::CheckWals.
func (p *replayer) checkTracked() {
	onDisk := map[uint64]*LogReport{}
	for _, l := range p.rep.Logs {
		onDisk[l.Number] = l
	}
	for _, n := range sortedKeys(p.in.Tracked) {
		size := p.in.Tracked[n]
		if size == NoSyncedSize {
			continue
		}
		switch l := onDisk[n]; {
		case l == nil:
			p.problem(MissingWAL, n, p.in.Dir, -1, "WAL %d is recorded in the MANIFEST with %d synced bytes and is not there", n, size)
		case uint64(l.Size) < size:
			p.problem(ShortWAL, n, l.Path, l.Size, "WAL %d has %d bytes, %d were synced", n, l.Size, size)
		}
	}
}

// log replays one WAL.
func (p *replayer) log(l *LogReport) error {
	f, err := p.fs.Open(l.Path, vfs.SequentialReadsOption)
	if err != nil {
		return base.IO("open", l.Path, err)
	}
	defer f.Close()
	rd := NewReader(f, l.Path, l.Number)
	for {
		payload, off, err := rd.Next()
		if err == io.EOF {
			return nil
		}
		var d *Damage
		switch {
		case errors.As(err, &d) && d.Silent:
			l.Damage = append(l.Damage, d)
			continue
		case d == nil && errors.Is(err, base.ErrUnsupported):
			p.refuse(l, off, err)
			return nil
		case d == nil && err != nil:
			return err
		case d == nil:
			stop, err := p.batch(l, payload, off)
			if err != nil || p.halted {
				return err
			}
			if !stop {
				continue
			}
			if n := len(l.Damage); n > 0 && !l.Damage[n-1].Silent {
				d = l.Damage[n-1]
				break
			}
			// The stop flag of an earlier WAL drops this one.
			l.DroppedBatches, l.DroppedRecords = 1, uint64(binary.LittleEndian.Uint32(payload[8:]))
			_, err = p.drain(rd, l)
			l.DroppedBytes = l.Size - off
			return err
		default:
			l.Damage = append(l.Damage, d)
		}
		clean, err := p.drain(rd, l)
		if err != nil {
			return err
		}
		d.AtTail = d.Torn() || clean && d.restZero
		l.DroppedBytes = l.Size - d.Offset
		p.stopped, p.corrupted = true, l
		return nil
	}
}

// batch replays one batch; stop ends the WAL, with a damage appended when the batch itself is the reason.
func (p *replayer) batch(l *LogReport, payload []byte, off int64) (stop bool, err error) {
	damage := func(kind DamageKind, reason string, silent bool) {
		l.Damage = append(l.Damage, &Damage{Kind: kind, Path: l.Path, Offset: off, Bytes: int64(len(payload)), Reason: reason, Silent: silent})
	}
	if len(payload) < batchHeader {
		damage(ShortRecord, "log record too small for a write batch", false)
		return true, nil
	}
	if seq := binary.LittleEndian.Uint64(payload); seq > ikey.MaxSeq {
		damage(SequenceTooLarge, "sequence "+strconv.FormatUint(seq, 10)+" is above the largest sequence", false)
		return true, nil
	}
	b, e := parseBatch(payload)
	if e != nil {
		if errors.Is(e, base.ErrUnsupported) {
			p.refuse(l, off, e)
			return true, nil
		}
		damage(BadBatch, e.Reason, false)
		return true, nil
	}
	if b.seq == p.next {
		p.lower()
	}
	if p.stopped {
		return true, nil
	}
	if b.count > 0 && b.seq < p.maxNext {
		damage(SequenceRepeats, "sequence "+strconv.FormatUint(b.seq, 10)+" after "+strconv.FormatUint(p.maxNext-1, 10), true)
	}
	it := b.records()
	count := uint64(b.count)
	for n := uint64(0); it.next(); n++ {
		first, known := p.in.MinLog[it.rec.CF]
		if !known || l.Number < first {
			continue
		}
		if it.rec.Inverted() {
			damage(InvertedRange, "range deletion that ends before it begins", false)
			count, stop = n, true
			break
		}
		if err := p.emit(it.rec); err != nil {
			return false, err
		}
		l.Emitted++
	}
	p.next = b.seq + count
	p.maxNext = max(p.maxNext, p.next)
	if count > 0 {
		if l.Records == 0 {
			l.FirstSeq = b.seq
		}
		l.LastSeq = max(l.LastSeq, p.next-1)
	}
	l.Batches++
	l.Records += count
	return stop, nil
}

// lower clears the stop flag: the WAL that raised it is continued without a gap.
func (p *replayer) lower() {
	if p.stopped {
		for _, l := range p.rep.Logs {
			if l.fatal() != nil {
				l.Cleared = true
			}
		}
	}
	p.stopped = false
}

// refuse records something that no version of TiKV writes and ends the whole replay: RocksDB fails here in every mode.
func (p *replayer) refuse(l *LogReport, off int64, err error) {
	p.halted = true
	p.problem(Unsupported, l.Number, l.Path, off, "%v", reasonOf(err))
	l.DroppedBytes = l.Size - off
}

// drain counts what is readable in the rest of a WAL that is not replayed; clean tells that nothing but zeros was left.
func (p *replayer) drain(rd *Reader, l *LogReport) (clean bool, err error) {
	for clean = true; ; clean = false {
		payload, _, err := rd.Next()
		var d *Damage
		switch {
		case err == io.EOF:
			return clean, nil
		case errors.As(err, &d):
			continue
		case errors.Is(err, base.ErrUnsupported):
			return false, nil
		case err != nil:
			return false, err
		}
		if len(payload) >= batchHeader {
			l.DroppedBatches++
			l.DroppedRecords += uint64(binary.LittleEndian.Uint32(payload[8:]))
		}
	}
}
