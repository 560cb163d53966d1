package raftlog

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Mode is raft-engine's setting recovery-mode: what an engine does at its start with bytes that do not decode
// (tikv/raft-engine 0.4.2 src/config.rs RecoveryMode, src/file_pipe_log/pipe_builder.rs recover_queue_imp).
//
//	                                         absolute   tail (default)         any
//	last file, header or batch               refuses    cut at the good end    cut at the good end
//	file that others follow, header          refuses    refuses                emptied, skipped
//	file that others follow, batch           refuses    refuses                cut: its later batches are lost, newer files count
//
// The entries block of a file's final batch counts as part of it. "Bytes that do not decode" takes in the preallocated or recycled
// space behind the last batch, so that absolute-consistency refuses nearly every TiKV that did not close its engine.
type Mode string

// The modes, by the names that TiKV's configuration has for them.
const (
	TolerateTail Mode = "tolerate-tail-corruption"
	Absolute     Mode = "absolute-consistency"
	TolerateAny  Mode = "tolerate-any-corruption"
)

// ModeSetting is the key of the configuration that Mode is the value of.
const ModeSetting = "raft-engine.recovery-mode"

// ParseMode reads the value of the setting; "" is the default. TiKV itself writes the default under another name.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case TolerateTail, Absolute, TolerateAny:
		return m, nil
	case "", "tolerate-corrupted-tail-records":
		return TolerateTail, nil
	}
	return "", fmt.Errorf("%q is no recovery mode of raft-engine", s)
}

// judge decides about the file lf whose bytes at off do not decode: nil to read on without them, or the error with which the engine
// refuses to open. last tells that no newer file of the queue follows.
func (m Mode) judge(lf *logFile, last bool, off int64, cause error) error {
	if m == TolerateAny || m == TolerateTail && last {
		return nil
	}
	const lost = "newer files follow this one; restore the file from a copy"
	if m != Absolute {
		err := base.Corruptf(lf.path, off, "%v", cause)
		err.Next = "TiKV does not open this raft-engine either: " + lost
		return err
	}
	err := base.Corruptf(lf.path, off, "%v; TiKV does not open this raft-engine either, because %s is %q", cause, ModeSetting, m)
	if err.Next = lost; last {
		err.Next = fmt.Sprintf("a TiKV that was killed, or stopped by SIGTERM, leaves such an end of its last file behind; to read and start without it, "+
			"set %s to %q in TiKV's configuration and in last_tikv.toml", ModeSetting, TolerateTail)
	}
	return err
}

// SkippedWhat is a sentence part about a file with Skipped.
func (f *FileReport) SkippedWhat() string {
	return fmt.Sprintf("%d bytes from offset %d on do not decode (%s); newer files follow, and TiKV goes on with them because %s is %q",
		f.Size-f.Valid, f.Valid, f.Stop, ModeSetting, TolerateAny)
}
