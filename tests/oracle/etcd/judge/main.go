// etcd-judge lets real etcd say what a member directory holds, and makes directories. The version is the one that PD 8.5 embeds.
//
//	etcd-judge dump DIR             what etcd's own libraries read: the WAL from its start snapshot, and the database as it is. DIR
//	                                is a data directory (with member/ in it) and must be a copy: opening a database writes to it
//	etcd-judge serve [-force-new-cluster] NAME=DIR=PEERPORT...
//	                                starts these members on loopback and prints what a client reads. The directories are changed
//	etcd-judge hold NAME=DIR=PEERPORT
//	                                runs this member until stdin ends; prints a line when it serves
//	etcd-judge make SCENARIO SEED OUT
//	                                makes data directories OUT/<name> and OUT/members.json; see make.go
//	etcd-judge member ...           one member in a process of its own, for make
//
// The answers are JSON on stdout.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/cindex"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/mvcc"
	"go.etcd.io/etcd/server/v3/mvcc/backend"
	"go.etcd.io/etcd/server/v3/wal"
	"go.etcd.io/etcd/server/v3/wal/walpb"
	"go.uber.org/zap"
)

// KV is one key.
type KV struct {
	Key, Value                  []byte
	Create, Mod, Version, Lease int64
}

func keyValue(kv *mvccpb.KeyValue) KV {
	return KV{kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
}

// Member is one member.
type Member struct {
	ID                   uint64
	Name                 string
	PeerURLs, ClientURLs []string
	Learner              bool
}

// Entry is one entry of the log.
type Entry struct {
	Type, Term, Index uint64
	Data              []byte
}

// Dump is the answer of dump.
type Dump struct {
	Error              string // of ReadAll; then the fields of the WAL are empty
	Term, Vote, Commit uint64
	StartIndex         uint64 // of the snapshot
	StartTerm          uint64
	Entries            []Entry

	ConsistentIndex uint64
	Revision        int64
	FirstRevision   int64
	Keys            []KV
	Leases          []int64
}

// Served is the answer of serve.
type Served struct {
	Revision int64
	Keys     []KV
	Leases   []int64
	Members  []Member
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "etcd-judge:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: dump DIR | serve NAME=DIR=PEERPORT... | make SCENARIO SEED OUT")
	}
	var answer any
	var err error
	switch args[0] {
	case "dump":
		answer, err = dump(args[1])
	case "serve":
		answer, err = serve(args[1:])
	case "hold":
		return hold(args[1])
	case "make":
		return makeDirs(args[1:])
	case "member":
		return member(args[1:])
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// dump reads without a server.
func dump(dir string) (*Dump, error) {
	lg := zap.NewNop()
	waldir, snapdir := filepath.Join(dir, "member", "wal"), filepath.Join(dir, "member", "snap")
	d := &Dump{}
	if err := d.log(lg, waldir, snapdir); err != nil {
		d.Error = err.Error()
	}
	cfg := backend.DefaultBackendConfig()
	cfg.Path, cfg.Logger = filepath.Join(snapdir, "db"), lg
	be := backend.New(cfg)
	defer be.Close()
	d.ConsistentIndex, _ = cindex.ReadConsistentIndex(be.ReadTx())
	le := lease.NewLessor(lg, be, noCluster{}, lease.LessorConfig{MinLeaseTTL: 1})
	defer le.Stop()
	for _, l := range le.Leases() {
		d.Leases = append(d.Leases, int64(l.ID))
	}
	kv := mvcc.NewStore(lg, be, le, mvcc.StoreConfig{})
	defer kv.Close()
	d.Revision, d.FirstRevision = kv.Rev(), kv.FirstRev()
	r, err := kv.Range(context.Background(), []byte{0}, []byte{}, mvcc.RangeOptions{})
	if err != nil {
		return nil, err
	}
	for i := range r.KVs {
		d.Keys = append(d.Keys, keyValue(&r.KVs[i]))
	}
	return d, nil
}

func (d *Dump) log(lg *zap.Logger, waldir, snapdir string) error {
	valid, err := wal.ValidSnapshotEntries(lg, waldir)
	if err != nil {
		return err
	}
	start := walpb.Snapshot{}
	s, err := snap.New(lg, snapdir).LoadNewestAvailable(valid)
	switch {
	case err == nil:
		start.Index, start.Term = s.Metadata.Index, s.Metadata.Term
	case err != snap.ErrNoSnapshot:
		return err
	}
	w, err := wal.OpenForRead(lg, waldir, start)
	if err != nil {
		return err
	}
	defer w.Close()
	_, hs, entries, err := w.ReadAll()
	if err != nil {
		return err
	}
	d.Term, d.Vote, d.Commit, d.StartIndex, d.StartTerm = hs.Term, hs.Vote, hs.Commit, start.Index, start.Term
	for _, e := range entries {
		d.Entries = append(d.Entries, Entry{uint64(e.Type), e.Term, e.Index, e.Data})
	}
	return nil
}
