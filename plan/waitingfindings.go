package plan

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"snapshot-files":  func() Problem { return new(SnapshotFiles) },
		"ingest-file":     func() Problem { return new(IngestFile) },
		"leftover-files":  func() Problem { return new(LeftoverFiles) },
		"region-leftover": func() Problem { return new(RegionLeftover) },
	})
}

// SnapshotFiles: a region is in the middle of applying a snapshot, and its files are not whole.
type SnapshotFiles struct {
	Store    uint64                `json:"store_id,omitempty"`
	Snapshot raftstate.SnapshotKey `json:"snapshot"`
	Path     string                `json:"path"` // of its metadata
	Reason   string                `json:"reason"`
}

// Name is part of Problem, as are Severity, Where, What and Next of this and the following types.
func (*SnapshotFiles) Name() string       { return "snapshot-files" }
func (*SnapshotFiles) Severity() Severity { return Error }
func (p *SnapshotFiles) Where() string {
	return places(atRegion(p.Store, p.Snapshot.Region), p.Path)
}
func (p *SnapshotFiles) What() string {
	return "the region is half way through this snapshot, and cannot finish it: " + p.Reason + "; TiKV panics soon after it has started"
}
func (p *SnapshotFiles) Next() string {
	return fmt.Sprintf("restore the files of snap/ from a copy of the directory; if other stores have the region, give this replica up: tombstone --regions %d", p.Snapshot.Region)
}

// IngestFile: an entry of a log that is not applied ingests a file of import/ which TiKV could not take.
type IngestFile struct {
	Store     uint64 `json:"store_id,omitempty"`
	Region    uint64 `json:"region_id"`
	Index     uint64 `json:"index"`
	Committed bool   `json:"committed"`
	File      string `json:"file"` // name, or for a file that is missing the part that is known
	Missing   bool   `json:"missing,omitempty"`
	Reason    string `json:"reason"`
}

func (*IngestFile) Name() string       { return "ingest-file" }
func (*IngestFile) Severity() Severity { return Error }
func (p *IngestFile) Where() string    { return atRegion(p.Store, p.Region) }
func (p *IngestFile) What() string {
	s := fmt.Sprintf("log entry %d ingests %s of import/: %s; TiKV panics when it applies the entry", p.Index, p.File, p.Reason)
	if !p.Committed {
		s += ", if the entry is committed"
	}
	return s
}
func (p *IngestFile) Next() string {
	return fmt.Sprintf("restore the file from a copy, or from import/ of another store of the region; else cut-tail --regions %d drops the entry and says what is lost", p.Region)
}

// LeftoverFile is one snapshot or table of LeftoverFiles.
type LeftoverFile struct {
	File   string          `json:"file"`
	Region uint64          `json:"region_id"`
	Epoch  raftstate.Epoch `json:"region_epoch,omitzero"`  // of a table, from its name
	Start  string          `json:"start_key,omitempty"`    // database key, upper-case hex: the first one of a table
	End    string          `json:"end_key,omitempty"`      // the last one
	Match  bool            `json:"region_fits,omitempty"`  // the region is here, with this epoch
	Reason string          `json:"not_complete,omitempty"` // why it is of no use
}

// LeftoverFiles: snapshots in snap/, or tables in import/, that nothing on this store waits for.
type LeftoverFiles struct {
	Store  uint64         `json:"store_id,omitempty"`
	Dir    string         `json:"dir"`
	Import bool           `json:"import,omitempty"` // tables of import/, not snapshots
	Count  int            `json:"count"`
	Bytes  int64          `json:"bytes"`
	Broken int            `json:"not_complete,omitempty"`
	Fit    int            `json:"region_fits,omitempty"` // tables whose region is here with their epoch
	Files  []LeftoverFile `json:"files"`                 // the first ones
}

func (*LeftoverFiles) Name() string       { return "leftover-files" }
func (*LeftoverFiles) Severity() Severity { return Info }
func (p *LeftoverFiles) Where() string    { return places(atStore(p.Store), p.Dir) }
func (p *LeftoverFiles) What() string {
	s := plural(p.Count, "snapshot") + fmt.Sprintf(" of %d bytes that no region waits for", p.Bytes)
	if p.Import {
		s = plural(p.Count, "table") + fmt.Sprintf(" of %d bytes that no log entry wants", p.Bytes)
	}
	if p.Broken > 0 {
		s += fmt.Sprintf(", %d of them not complete", p.Broken)
	}
	var ids []uint64
	seen := map[uint64]bool{}
	for _, f := range p.Files {
		if !seen[f.Region] && len(ids) < 8 {
			ids = append(ids, f.Region)
		}
		seen[f.Region] = true
	}
	if len(ids) > 0 {
		s += ": " + regionList(ids, len(seen)-len(ids))
	}
	switch {
	case !p.Import:
		return s + "; TiKV removes them after some hours"
	case p.Fit > 0:
		return s + fmt.Sprintf("; %d fit their region still: the import that uploaded them may go on", p.Fit)
	}
	return s + "; their regions have changed since: TiKV removes them"
}
func (p *LeftoverFiles) Next() string {
	if p.Import && p.Fit > 0 {
		return "nothing has to be done; before a rewind end the import, or it goes on afterwards"
	}
	return "nothing has to be done"
}

// RegionLeftover: records of a region that has no region state, or of a snapshot that is not being applied.
type RegionLeftover struct {
	Store   uint64   `json:"store_id,omitempty"`
	Region  uint64   `json:"region_id"`
	State   string   `json:"state,omitempty"` // of the region; "": it has none here
	Records []string `json:"records"`         // "apply state", "raft state", "log entries 6 to 90"
}

func (*RegionLeftover) Name() string       { return "region-leftover" }
func (*RegionLeftover) Severity() Severity { return Warning }
func (p *RegionLeftover) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RegionLeftover) What() string {
	have := strings.Join(p.Records, ", ")
	if p.State != "" {
		return fmt.Sprintf("in state %s it needs no %s, and one is there: TiKV does not look at it", p.State, have)
	}
	return "there is no region state, but there is: " + have + ". TiKV does not know the region, and removes its data when it starts"
}
func (p *RegionLeftover) Next() string {
	if p.State != "" {
		return fmt.Sprintf("nothing has to be done; details: region --region %d", p.Region)
	}
	return fmt.Sprintf("if no other store has the region, its state may be lost: copy the directory before TiKV is started, and look with raft-log --region %d", p.Region)
}
