package pd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// The states of DR Auto-Sync (section 10.1).
const (
	DRSync        = "sync"
	DRAsyncWait   = "async_wait"
	DRAsync       = "async"
	DRSyncRecover = "sync_recover"
)

// DRStatus is the value of replication_mode/dr-auto-sync and of the file DR_STATE: one JSON object, absent fields are zero.
// AvailableStores absent means none. There is no TSO and no commit point in it.
//
//	{"state":"sync","state_id":10}
//	{"state":"async_wait","state_id":57,"available_stores":[1,3]}
//	{"state":"async","state_id":59,"async_start":"2026-11-21T04:56:58.087162083Z"}
//	{"state":"sync_recover","state_id":60,"recover_start":"2026-11-21T04:57:04.587503702Z"}
//
// Source: tikv/pd pkg/replication/replication_mode.go drAutoSyncStatus (release-8.5).
type DRStatus struct {
	State           string   `json:"state,omitempty"`
	StateID         uint64   `json:"state_id,omitempty"`
	AsyncStart      string   `json:"async_start,omitempty"`
	RecoverStart    string   `json:"recover_start,omitempty"`
	TotalRegions    int      `json:"total_regions,omitempty"`
	SyncedRegions   int      `json:"synced_regions,omitempty"`
	RecoverProgress float32  `json:"recover_progress,omitempty"`
	AvailableStores []uint64 `json:"available_stores,omitempty"`
}

// DRRecord is a status with where it was found.
type DRRecord struct {
	DRStatus
	Source Source `json:"source"`
}

// DR is the replication mode.
type DR struct {
	// Mode is replication-mode of the persisted configuration: majority, dr-auto-sync; empty: never persisted, majority.
	Mode     string   `json:"mode"`
	Settings DRLabels `json:"settings"`
	// Last is the record with the highest state_id; nil when DR Auto-Sync was never on.
	Last *DRRecord `json:"last,omitempty"`
	// Records are the ones of etcd and of the file; History what etcd still has of earlier ones, oldest first.
	Records []DRRecord `json:"records"`
	History []DRRecord `json:"history"`
}

// DRLabels is the dr-auto-sync part of the persisted configuration.
type DRLabels struct {
	LabelKey         string `json:"label-key"`
	Primary          string `json:"primary"`
	DR               string `json:"dr"`
	PrimaryReplicas  int    `json:"primary-replicas"`
	DRReplicas       int    `json:"dr-replicas"`
	WaitStoreTimeout string `json:"wait-store-timeout"`
}

// ParseDRStatus decodes a status. Unknown fields are ignored, an unknown state is an error.
func ParseDRStatus(b []byte) (DRStatus, error) {
	var s DRStatus
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("not a replication status: %w", err)
	}
	if !slices.Contains([]string{DRSync, DRAsyncWait, DRAsync, DRSyncRecover}, s.State) {
		return s, fmt.Errorf("there is no replication state %q", s.State)
	}
	return s, nil
}

func (s DRStatus) String() string {
	text := fmt.Sprintf("%s, state id %d", s.State, s.StateID)
	switch {
	case s.AsyncStart != "":
		text += ", since " + s.AsyncStart
	case s.RecoverStart != "":
		text += ", since " + s.RecoverStart
	}
	if s.State == DRAsync || s.State == DRAsyncWait {
		if len(s.AvailableStores) == 0 {
			return text + ", in step: no store"
		}
		text += fmt.Sprintf(", in step: stores %v", s.AvailableStores)
	}
	return text
}

// add takes a record; the highest state_id counts, of equals the first that was added.
func (d *DR) add(r DRRecord) {
	d.Records = append(d.Records, r)
	if d.Last == nil || r.StateID > d.Last.StateID {
		d.Last = &r
	}
}

// maxDRState bounds DR_STATE: a line of JSON with a list of stores.
const maxDRState = 1 << 20

// readDRState reads the file next to etcd's directory (section 10.2). It was written without fsync and without rename: empty or cut
// it is worth a warning, never an error.
func readDRState(fs base.FS, dir string) (rec *DRRecord, warning string, err error) {
	path := fs.PathJoin(dir, drStateFile)
	st, err := fs.Stat(path)
	if there, e := base.Exists(fs, path); e != nil || !there {
		return nil, "", e
	}
	if err != nil {
		return nil, "", base.IO("stat", path, err)
	}
	if st.Size() > maxDRState {
		return nil, fmt.Sprintf("%s has %d bytes and is not read", path, st.Size()), nil
	}
	b, err := base.ReadFile(fs, path)
	if err != nil {
		return nil, "", err
	}
	s, err := ParseDRStatus(bytes.TrimSpace(b))
	if err != nil {
		return nil, fmt.Sprintf("%s does not decode and is ignored (PD writes it without fsync): %v", path, err), nil
	}
	return &DRRecord{s, Source{Dir: dir, File: path, Certainty: Copied}}, "", nil
}
