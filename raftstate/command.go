package raftstate

import (
	"fmt"
	"strings"

	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"
)

// CommandKind sorts log entries by what applying them does.
type CommandKind int

// The kinds of command.
const (
	CommandEmpty      CommandKind = iota // the no-op of a new leader
	CommandWrite                         // puts, deletes, range deletes, ingests
	CommandAdmin                         // one admin command in a normal entry
	CommandConfChange                    // a ConfChange or ConfChangeV2 entry; Admin is the command in its context, if any
	CommandOther                         // decodes, but this tool does not know what applying it does
)

// String gives the name used in output.
func (k CommandKind) String() string {
	names := [...]string{"empty", "write", "admin", "conf-change", "other"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("CommandKind(%d)", int(k))
	}
	return names[k]
}

// MarshalText gives String.
func (k CommandKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Op is what one request of a write command does.
type Op int

// The operations of a request.
const (
	OpOther Op = iota // reads (Get, Snap, ReadIndex), Prewrite, or unknown: never proposed by a server of the lines read here
	OpPut
	OpDelete
	OpDeleteRange
	OpIngest
)

// String gives the name used in output.
func (o Op) String() string {
	names := [...]string{"other", "put", "delete", "delete_range", "ingest_sst"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("Op(%d)", int(o))
	}
	return names[o]
}

// MarshalText gives String.
func (o Op) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// SST is the file that an ingest names: the data is in import/, not in the log.
type SST struct {
	UUID     Key    `json:"uuid"`
	CF       string `json:"cf"`
	Start    Key    `json:"start"`
	End      Key    `json:"end"`
	Length   uint64 `json:"length"`
	RegionID uint64 `json:"region_id"`
	Epoch    Epoch  `json:"region_epoch"`
}

// Request is one operation. Keys are encoded as in the kv db, without the leading 'z'; in the write CF the last 8 bytes are
// the commit_ts, as bitwise complement in big endian.
type Request struct {
	Op         Op     `json:"op"`
	CF         string `json:"cf"` // never empty: "default" is filled in
	Key        Key    `json:"key"`
	EndKey     Key    `json:"end_key,omitempty"` // of OpDeleteRange
	Value      Key    `json:"value,omitempty"`   // of OpPut
	NotifyOnly bool   `json:"notify_only,omitempty"`
	SST        *SST   `json:"sst,omitempty"`
	Name       string `json:"name,omitempty"` // protobuf name of an OpOther
}

// Header is the part of raft_cmdpb.RaftRequestHeader that is checked when the command is applied.
type Header struct {
	RegionID uint64 `json:"region_id"`
	PeerID   uint64 `json:"peer_id"`
	Epoch    Epoch  `json:"region_epoch"`
	Term     uint64 `json:"term"`
	Flags    uint64 `json:"flags,omitempty"`
}

// Command is what an entry's data says. Byte slices may share memory with the entry.
//
//	RaftCmdRequest: 1 header {1 region_id, 2 peer, 5 region_epoch, 6 term, 10 flags, ...}, 2 requests, 3 admin_request, 4 status_request
//	Request:        1 cmd_type, 4 put {1 cf, 2 key, 3 value}, 5 delete {1 cf, 2 key}, 8 delete_range {1 cf, 2 start, 3 end, 4 notify_only},
//	                9 ingest_sst {1 SSTMeta}, others read only
//
// Source: pingcap/kvproto proto/raft_cmdpb.proto; tikv/tikv components/raftstore/src/store/fsm/apply.rs
// (handle_raft_entry_normal, handle_raft_entry_conf_change).
type Command struct {
	Kind        CommandKind `json:"kind"`
	SimpleWrite bool        `json:"simple_write,omitempty"` // raftstore-v2's own codec
	HasHeader   bool        `json:"-"`
	Header      Header      `json:"header"`
	Requests    []Request   `json:"requests,omitempty"`
	Admin       *Admin      `json:"admin,omitempty"`
	// NodeChanges are raft's own view in a ConfChange entry.
	NodeChanges []NodeChange `json:"node_changes,omitempty"`
	// Unknown is set when the message holds fields that this tool does not know.
	Unknown bool `json:"unknown_fields,omitempty"`
}

// NodeChange is one change of raft's configuration; node ids are peer ids.
type NodeChange struct {
	Type   string `json:"type"`
	NodeID uint64 `json:"node_id"`
}

// Epoch is the region epoch in the command's header; ok is false for an entry without a command.
func (c Command) Epoch() (e Epoch, ok bool) { return c.Header.Epoch, c.HasHeader }

// Decode interprets an entry's data. Errors are of class ErrCorrupt: TiKV panics on such an entry when it applies it.
func Decode(e Entry) (Command, error) {
	switch e.Type {
	case EntryNormal:
		if len(e.Data) == 0 {
			return Command{Kind: CommandEmpty}, nil
		}
		if e.Data[0] == simpleWriteMagic {
			return decodeSimpleWrite(e.Data)
		}
		return decodeCmdRequest(e.Data)
	case EntryConfChange:
		var cc eraftpb.ConfChange
		if err := cc.Unmarshal(e.Data); err != nil {
			return Command{}, &DecodeError{What: "ConfChange", Err: err}
		}
		return decodeConfChange(cc.Context, []NodeChange{{cc.ChangeType.String(), cc.NodeId}})
	case EntryConfChangeV2:
		var cc eraftpb.ConfChangeV2
		if err := cc.Unmarshal(e.Data); err != nil {
			return Command{}, &DecodeError{What: "ConfChangeV2", Err: err}
		}
		var changes []NodeChange
		for _, c := range cc.Changes {
			changes = append(changes, NodeChange{c.ChangeType.String(), c.NodeId})
		}
		return decodeConfChange(cc.Context, changes)
	}
	return Command{}, corruptf("Entry", "type %d is unknown", int32(e.Type))
}

// decodeConfChange reads the command inside a conf change. raft itself proposes a leave-joint entry without one.
func decodeConfChange(context []byte, changes []NodeChange) (Command, error) {
	var c Command
	if len(context) > 0 {
		var err error
		if c, err = decodeCmdRequest(context); err != nil {
			return Command{}, err
		}
	}
	c.Kind, c.NodeChanges = CommandConfChange, changes
	return c, nil
}

func decodeCmdRequest(b []byte) (Command, error) {
	var m raft_cmdpb.RaftCmdRequest
	if err := m.Unmarshal(b); err != nil {
		return Command{}, &DecodeError{What: "RaftCmdRequest", Err: err}
	}
	c := Command{HasHeader: m.Header != nil, Header: headerOf(m.Header), Unknown: len(m.XXX_unrecognized) > 0}
	if m.AdminRequest != nil {
		c.Kind = CommandAdmin
		a, err := adminOf(m.AdminRequest)
		if err != nil {
			return Command{}, err
		}
		c.Admin = &a
		return c, nil
	}
	if len(m.Requests) == 0 && m.StatusRequest == nil && !c.Unknown {
		// Nothing is applied, but unlike a leader's no-op it has a header.
		c.Kind = CommandWrite
		return c, nil
	}
	c.Kind = CommandOther
	for _, r := range m.Requests {
		c.Kind = CommandWrite
		c.Requests = append(c.Requests, requestOf(r))
		c.Unknown = c.Unknown || len(r.XXX_unrecognized) > 0
	}
	return c, nil
}

func headerOf(h *raft_cmdpb.RaftRequestHeader) Header {
	return Header{RegionID: h.GetRegionId(), PeerID: h.GetPeer().GetId(), Epoch: epochOf(h.GetRegionEpoch()), Term: h.GetTerm(),
		Flags: h.GetFlags()}
}

func requestOf(r *raft_cmdpb.Request) Request {
	switch r.CmdType {
	case raft_cmdpb.CmdType_Put:
		p := r.GetPut()
		return Request{Op: OpPut, CF: cfName(p.GetCf()), Key: p.GetKey(), Value: p.GetValue()}
	case raft_cmdpb.CmdType_Delete:
		d := r.GetDelete()
		return Request{Op: OpDelete, CF: cfName(d.GetCf()), Key: d.GetKey()}
	case raft_cmdpb.CmdType_DeleteRange:
		d := r.GetDeleteRange()
		return Request{Op: OpDeleteRange, CF: cfName(d.GetCf()), Key: d.GetStartKey(), EndKey: d.GetEndKey(),
			NotifyOnly: d.GetNotifyOnly()}
	case raft_cmdpb.CmdType_IngestSST:
		return ingestOf(r.GetIngestSst().GetSst())
	}
	return Request{Op: OpOther, Name: r.CmdType.String()}
}

func ingestOf(m *import_sstpb.SSTMeta) Request {
	s := &SST{UUID: m.GetUuid(), CF: cfName(m.GetCfName()), Start: m.GetRange().GetStart(), End: m.GetRange().GetEnd(),
		Length: m.GetLength(), RegionID: m.GetRegionId(), Epoch: epochOf(m.GetRegionEpoch())}
	return Request{Op: OpIngest, CF: s.CF, Key: s.Start, EndKey: s.End, SST: s}
}

// cfName fills in the column family that an empty name means. The copy keeps a request from pinning a whole entry.
func cfName(s string) string {
	switch s {
	case "", "default":
		return "default"
	case "write":
		return "write"
	case "lock":
		return "lock"
	}
	return strings.Clone(s)
}
