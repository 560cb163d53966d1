// Package edit changes the files of one stopped data directory so that it can be killed at any instruction and taken back:
// begin (backup directory, plan, journal, fence) → stage (new files under names that no engine reads) → save (hard links of
// everything that the new version no longer refers to) → publish (tails cut, renames, CURRENT last) → finish (result, fence
// removed).
// Undo goes back from any of these points; Discard frees the backup.
//
// Order of writes: each step is durable (file synced, then its directory) before the next begins. What a crash between two steps
// leaves, and what a TiKV that is started there would do, stands at each step below.
package edit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// State is how far an edit came. It only moves along begun → staged → published → done, and from any of them
// → undoing → undone; done and undone may end in discarding.
type State string

// The states of an edit.
const (
	Begun      State = "begun"
	Staged     State = "staged"
	Published  State = "published"
	Done       State = "done"
	Undoing    State = "undoing"
	Undone     State = "undone"
	Discarding State = "discarding"
)

// BackupRoot is the directory below the data directory that holds one backup per plan.
const BackupRoot = "tikv-repair"

// StagedSuffix marks files that are not published yet. RocksDB and raft-engine ignore names that they cannot parse
// (tikv/rocksdb 8.10.tikv file/filename.cc ParseFileName).
const StagedSuffix = ".tikv-repair"

const journalFormat = 1

// startedLayout sorts as text. A second holds several repairs when a script runs them, and undo without an id means the last one.
const startedLayout = "2006-01-02T15:04:05.000000Z07:00"

// Journal is the durable record of one edit, backup/journal.json. It is replaced whole by rename at each change of state.
//
// Invariants: paths are relative to the data directory when they lie below it, else absolute. For every Switch with State in
// {begun, staged} before publishing the file holds Old, afterwards New. Every file in Saved, and the tail of every Cut, exists
// under Backup once the state is staged. No file is both Saved and Cut: a hard link would be cut with it.
type Journal struct {
	Format  int    `json:"format"`
	PlanID  string `json:"plan_id"`
	Verb    string `json:"verb"`
	State   State  `json:"state"`
	Started string `json:"started"` // RFC 3339, in startedLayout: the order of repairs
	// Dirs are the directories that may hold staged files.
	Dirs []string `json:"dirs"`
	// Created are the final names of new files; the staged name has StagedSuffix.
	Created []string `json:"created,omitempty"`
	// Saved are the files that the edit stops referring to.
	Saved []Saved `json:"saved,omitempty"`
	// Cuts are files that lose their tail in place, before any of Created is in place.
	Cuts []Cut `json:"cuts,omitempty"`
	// Logs are those of Created that an engine appends to once it is started.
	Logs []Log `json:"logs,omitempty"`
	// Moved are those of Saved that lose their place when the edit is published: only the name in the backup stays.
	Moved []string `json:"moved,omitempty"`
	// Switches are replaced in this order, after all Created are in place.
	Switches []Switch `json:"switches,omitempty"`
	// Proof is a digest of what the staged files were found to hold when they were read back, in the form of whoever made the edit. It
	// is there for a rerun, which has not made the edit and no longer has the store of before to compare with.
	Proof string `json:"proof,omitempty"`
	// Renames are directories that move into the backup when the edit is published.
	Renames []Rename `json:"renames,omitempty"`
	// Witness are files that tell whether an engine has been started since.
	Witness []Witness `json:"witness,omitempty"`
	// Unfenced tells that the edit has no fence: the directory is PD's.
	Unfenced bool `json:"unfenced,omitempty"`
	// ForeignPanicMark tells that a panic_mark_file which is not ours was there and lies in the backup.
	ForeignPanicMark bool `json:"foreign_panic_mark,omitempty"`
}

// Saved is one file and its second name in the backup.
type Saved struct {
	Path   string `json:"path"`
	Backup string `json:"backup"`
	Copied bool   `json:"copied,omitempty"` // a hard link was not possible
	Bytes  int64  `json:"bytes"`
}

// Switch is a small file whose whole content is replaced by rename, such as CURRENT.
type Switch struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// writeJSON replaces a file atomically and durably.
func writeJSON(fs base.FS, path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return base.ReplaceFile(fs, path, ".tmp", append(b, '\n'), "")
}

func readJSON(fs base.FS, path string, v any) error {
	b, err := base.ReadFile(fs, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &base.Error{Class: base.ErrCorrupt, Op: "read", Path: path, Offset: -1, Err: err,
			Next: "the file is written by this tool alone; restore it, or put the saved files back by hand"}
	}
	return nil
}

// rel shortens a path below dir.
func rel(dir, path string) string {
	if s, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/"); ok {
		return s
	}
	return path
}

// abs is the inverse of rel.
func abs(fs base.FS, dir, path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return fs.PathJoin(dir, path)
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }
