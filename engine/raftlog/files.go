package raftlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Queue is one of the two independent sequences of files.
type Queue int

// The queues. Rewrite holds old data that was copied out of append files which were then purged: it is replayed first.
const (
	Append Queue = iota
	Rewrite
)

// String gives the name used in reports.
func (q Queue) String() string {
	if q == Rewrite {
		return "rewrite"
	}
	return "append"
}

// MarshalText gives String.
func (q Queue) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// File names of a raft-engine directory, tikv/raft-engine 0.4.2 src/file_pipe_log/format.rs (parse_file_name):
//
//	| 16 characters, a decimal number | anything | .raftlog           append queue
//	                                             | .rewrite           rewrite queue
//	                                             | .raftlog.reserved  recycled or prefilled, content without meaning
const (
	suffixAppend   = ".raftlog"
	suffixRewrite  = ".rewrite"
	suffixReserved = ".raftlog.reserved"
	numberLen      = 16
)

// nameClass says what a name stands for.
type nameClass int

const (
	nameOther nameClass = iota
	nameAppend
	nameRewrite
	nameReserved
)

// classify applies the engine's rule: a number in the first 16 characters, and a suffix; what stands between is not looked at.
func classify(name string) (nameClass, uint64) {
	if len(name) <= numberLen {
		return nameOther, 0
	}
	var class nameClass
	switch {
	case strings.HasSuffix(name, suffixReserved):
		class = nameReserved
	case strings.HasSuffix(name, suffixAppend):
		class = nameAppend
	case strings.HasSuffix(name, suffixRewrite):
		class = nameRewrite
	default:
		return nameOther, 0
	}
	digits := name[:numberLen]
	if digits[0] == '+' {
		digits = digits[1:] // Rust's parser takes one
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return nameOther, 0
	}
	return class, seq
}

// FileName is the name of file seq of a queue.
func FileName(q Queue, seq uint64) string {
	if q == Rewrite {
		return fmt.Sprintf("%016d%s", seq, suffixRewrite)
	}
	return fmt.Sprintf("%016d%s", seq, suffixAppend)
}

// logFile is one file of a queue.
type logFile struct {
	queue   Queue
	seq     uint64
	path    string
	size    int64
	version uint64 // of its header; 0 until it is read
}

// listing is what the directories hold.
type listing struct {
	queues   [2][]logFile // indexed by Queue, contiguous
	ignored  []string     // cut by the hole rule
	reserved []string
	odd      []string // names that would make the engine panic
}

// scanDirs lists the main directory, then the spill directory, merges them by number and applies the hole rule.
func scanDirs(fs base.FS, dirs ...string) (listing, error) {
	var l listing
	for _, dir := range dirs {
		names, err := fs.List(dir)
		if err != nil {
			return l, base.IO("list", dir, err)
		}
		slices.Sort(names)
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			odd := !utf8.ValidString(name)
			class, seq := classify(name)
			if class == nameOther && !odd {
				continue
			}
			st, err := fs.Stat(path)
			if errors.Is(err, os.ErrNotExist) {
				continue // a dangling symbolic link is no file to the engine
			}
			if err != nil {
				return l, base.IO("stat", path, err)
			}
			if !st.Mode().IsRegular() {
				continue
			}
			if odd {
				l.odd = append(l.odd, path)
				continue
			}
			switch class {
			case nameReserved:
				l.reserved = append(l.reserved, path)
			case nameRewrite:
				l.queues[Rewrite] = append(l.queues[Rewrite], logFile{queue: Rewrite, seq: seq, path: path, size: st.Size()})
			case nameAppend:
				l.queues[Append] = append(l.queues[Append], logFile{queue: Append, seq: seq, path: path, size: st.Size()})
			}
		}
	}
	for q := range l.queues {
		kept, cut := cutHoles(l.queues[q])
		l.queues[q] = kept
		for _, f := range cut {
			l.ignored = append(l.ignored, f.path)
		}
	}
	return l, nil
}

// cutHoles sorts stably by number and keeps what follows the last place where two neighbours do not differ by exactly one
// (tikv/raft-engine src/file_pipe_log/pipe_builder.rs scan_and_sort). Holes are normal: a purge that frees more files than
// may be recycled keeps the oldest and deletes those above them. Of a duplicate number the copy in the later directory stays.
func cutHoles(files []logFile) (kept, cut []logFile) {
	slices.SortStableFunc(files, func(a, b logFile) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	start := 0
	for i := 1; i < len(files); i++ {
		if files[i].seq-files[i-1].seq != 1 {
			start = i
		}
	}
	return files[start:], files[:start]
}
