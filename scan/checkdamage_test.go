package scan_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/titan"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// state decodes a region state for a test to change, and gives its bytes.
func state(t *testing.T, r *scan.Region, change func(s *raft_serverpb.RegionLocalState)) []byte {
	t.Helper()
	var s raft_serverpb.RegionLocalState
	if err := s.Unmarshal(r.Raw); err != nil {
		t.Fatal(err)
	}
	change(&s)
	b, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// apply changes the apply state of a region.
func (p *patient) apply(id uint64, change func(*raft_serverpb.RaftApplyState)) {
	p.t.Helper()
	var value []byte
	p.look(func(s *scan.Store) {
		for _, r := range s.Regions {
			if r.ID == id {
				var a raft_serverpb.RaftApplyState
				p.must(a.Unmarshal(r.Apply.Raw))
				change(&a)
				var err error
				value, err = a.Marshal()
				p.must(err)
			}
		}
	})
	p.commit(op{scan.CFRaft, raftstate.ApplyStateKey(id), value})
}

var anyPut = func(v version) bool { return v.w.Type == mvcc.WritePut && v.w.HasShortValue }

// damage is one way to hurt a store, with what a check must say.
type damage struct {
	name    string
	fixture string
	hurt    func(p *patient)
	want    string // findings, by name, sorted as in the result
	words   string // in the text of the first one
	quick   string // findings of a quick check; "=": the same
}

// Each kind of damage on a copy of a sound store gives exactly its finding.
var damages = []damage{
	{"a byte of a data block is flipped", "single-levels", func(p *patient) {
		f, path := p.tableOf(scan.CFWrite)
		var off int64
		p.look(func(s *scan.Store) {
			r, done, err := s.DB.CF(scan.CFWrite).Table(f.FileMeta)
			p.must(err)
			b := r.BlockBounds()[1]
			off = int64(b.Offset + b.Size/2)
			p.must(done())
		})
		p.flip(path, off)
	}, "damaged-file", "checksum", ""},
	{"a table is missing", "single-levels", func(p *patient) {
		_, path := p.tableOf(scan.CFDefault)
		p.must(p.fs.Remove(path))
	}, "damaged-file", "it has data of region", "="},
	{"a table is cut off", "single-levels", func(p *patient) {
		_, path := p.tableOf(scan.CFWrite)
		p.write(path, p.read(path)[:1000])
	}, "damaged-file", "1000 bytes, the MANIFEST says", "="},
	{"a table of the raft RocksDB is missing", "single-raftdb", func(p *patient) {
		p.look(func(s *scan.Store) {
			db, err := rocks.Open(p.base(), s.Layout.RaftDir, rocks.Options{WALDir: s.Layout.RaftWALDir})
			p.must(err)
			n, err := db.FreeNumber()
			p.must(err)
			lower, upper := raftstate.RaftRange()
			p.publish(db, rocks.Change{NextNumber: n + 1, Add: []rocks.Added{{CF: scan.CFDefault, Level: 6, Meta: &manifest.FileMeta{Number: n, Size: 1000,
				Smallest: ikey.Key{User: lower, Seq: 1, Kind: ikey.KindPut}, Largest: ikey.Key{User: upper, Seq: 1, Kind: ikey.KindPut}, SmallestSeq: 1, LargestSeq: 1}}}})
			p.must(db.Close())
		})
	}, "damaged-file", "does not exist", "="},
	{"the properties of a table lie about its timestamps", "single-levels", func(p *patient) {
		p.rewrite(scan.CFWrite, liar{map[string]string{mvcc.PropMinTS: u64(1), mvcc.PropMaxTS: u64(2), mvcc.PropNumErrors: u64(0), mvcc.PropNumDeletes: u64(0)}}, nil)
	}, "wrong-properties", "outside [1, 2]", ""},
	{"the MANIFEST gives a table too small a range", "single-levels", func(p *patient) {
		p.rewrite(scan.CFWrite, liar{}, func(m *manifest.FileMeta) { m.Largest.Seq++ })
	}, "version-rule", "rule 3: last record", ""},
	{"a log is damaged in its middle", "single-default", func(p *patient) {
		logs := p.walFiles()
		b := p.read(logs[len(logs)-1])
		p.flip(logs[len(logs)-1], int64(len(bytes.TrimRight(b, "\x00"))*99/100))
	}, "wal-damage", "wal-mid-corruption", "="},

	{"the newest version has lost its value", "single-levels", func(p *patient) {
		v := p.find(func(v version) bool { return v.newest && v.w.NeedsDefault() })
		p.commit(op{cf: scan.CFDefault, key: mvcc.AppendTS(v.prefix, v.w.StartTS)})
	}, "lost-value", "the newest version", ""},
	{"a superseded version has lost its value", "single-levels", func(p *patient) {
		v := p.find(func(v version) bool { return !v.newest && v.w.NeedsDefault() })
		p.commit(op{cf: scan.CFDefault, key: mvcc.AppendTS(v.prefix, v.w.StartTS)})
	}, "missing-value", "has no row", ""},
	{"a lock has lost its value", "single-levels", func(p *patient) {
		var o op
		p.look(func(s *scan.Store) {
			locks, err := s.Locks()
			p.must(err)
			for _, l := range locks {
				if l.Locks[0].NeedsDefault() {
					o = op{cf: scan.CFDefault, key: mvcc.DataKey(l.User, l.Locks[0].StartTS)}
				}
			}
			if o.key == nil {
				p.t.Fatal("no lock has a long value")
			}
		})
		p.commit(o)
	}, "lost-value", "the lock of a transaction", ""},
	{"a write record is gone, its value is not", "single-levels", func(p *patient) {
		v := p.find(func(v version) bool { return v.w.NeedsDefault() })
		p.commit(op{cf: scan.CFWrite, key: v.key})
	}, "orphan-row", "belongs to no version and no lock", ""},
	{"a write record does not decode", "single-default", func(p *patient) {
		p.commit(op{scan.CFWrite, p.find(func(v version) bool { return v.w.NeedsDefault() }).key, []byte{'X', 1}})
	}, "bad-record", "unknown type", ""},
	{"a write key is not transactional", "single-default", func(p *patient) {
		p.commit(op{scan.CFWrite, []byte("zt"), []byte{'P', 1}})
	}, "bad-record", "not that of a transactional record", ""},
	{"a lock does not decode", "single-default", func(p *patient) {
		p.commit(op{scan.CFLock, mvcc.LockKey([]byte("t1")), []byte{'?'}})
	}, "bad-record", "unknown type", ""},
	{"a lock key does not decode", "single-default", func(p *patient) {
		p.commit(op{scan.CFLock, []byte("zt"), []byte{'P', 0, 1, 1}})
	}, "bad-record", "group is missing", ""},
	{"a version commits before it starts", "single-default", func(p *patient) {
		v := p.find(anyPut)
		v.w.StartTS = v.ts + 1
		p.commit(op{scan.CFWrite, v.key, v.w.Append(nil)})
	}, "timestamp-order", "has the later start_ts", ""},
	{"a rollback names another transaction", "single-default", func(p *patient) {
		v := p.find(func(v version) bool { return v.w.Type == mvcc.WriteRollback })
		v.w.StartTS--
		p.commit(op{scan.CFWrite, v.key, v.w.Append(nil)})
	}, "timestamp-order", "they must be equal", ""},
	{"an import has start_ts = commit_ts, which is legal", "single-default", func(p *patient) {
		v := p.find(anyPut)
		w := mvcc.Write{Type: mvcc.WritePut, StartTS: v.ts + 1}
		p.commit(op{scan.CFWrite, mvcc.AppendTS(v.prefix, v.ts+1), w.Append(nil)}, op{scan.CFDefault, mvcc.AppendTS(v.prefix, v.ts+1), []byte("imported")})
	}, "", "", ""},
	{"a raw value has unknown flags", "raw-v2", func(p *patient) {
		p.commit(op{scan.CFDefault, mvcc.DataKey([]byte{'r', 0, 0, 0, 'a'}, 7), []byte{0xF0}})
	}, "bad-record", "unknown flags", ""},
	{"a raw value is too short for its time to live", "raw-v1ttl", func(p *patient) {
		p.commit(op{scan.CFDefault, []byte("zshort"), []byte{1, 2}})
	}, "bad-record", "needs 8 bytes", ""},
	{"a raw key of API V1 in a transactional store", "single-default", func(p *patient) {
		p.commit(op{scan.CFDefault, []byte("zraw"), []byte("v")})
	}, "stray-keys", "1 key not of any form", ""},
	{"a local key that TiKV does not write", "single-default", func(p *patient) {
		p.commit(op{scan.CFRaft, []byte{1, 9}, []byte("v")})
	}, "stray-keys", "0109", "="},
	{"a key above all data", "single-default", func(p *patient) {
		p.commit(op{scan.CFLock, []byte{'z' + 1}, []byte("v")})
	}, "stray-keys", "7B", ""},

	{"a blob file is missing", "single-titan", func(p *patient) {
		blobs := p.files(p.path("db", "titandb"), ".blob")
		p.must(p.fs.Remove(blobs[0]))
	}, "damaged-file", "not on disk", "="},
	{"a byte of a blob record is flipped", "single-titan", func(p *patient) {
		var path string
		var off int64
		p.look(func(s *scan.Store) {
			v, err := s.DB.CF(scan.CFDefault).NewVisible([]byte{'z'}, nil, nil)
			p.must(err)
			for ok := v.First(); ok; ok = v.Next() {
				if v.Kind() == ikey.KindBlobIndex {
					x, err := titan.ParseIndex(v.Value())
					p.must(err)
					path, off = s.Titan.Path(x.File), int64(x.Offset+x.Size/2)
				}
			}
			p.must(v.Close())
		})
		p.flip(path, off)
	}, "unreadable-value", "blob", ""},
	{"Titan's MANIFEST is damaged", "single-titan", func(p *patient) {
		p.write(p.path("db", "titandb", "CURRENT"), []byte("nonsense\n"))
	}, "unreadable-part", "does not name a MANIFEST", "="},

	{"the store's identity is gone", "single-default", func(p *patient) {
		p.commit(op{cf: scan.CFDefault, key: raftstate.StoreIdentKey()})
	}, "store-identity", "no store identity", "="},
	{"the store's identity does not decode", "single-default", func(p *patient) {
		p.commit(op{scan.CFDefault, raftstate.StoreIdentKey(), []byte{0xFF}})
	}, "store-identity", "StoreIdent", "="},
	{"CURRENT names nothing", "single-default", func(p *patient) {
		p.write(p.path("db", "CURRENT"), []byte("MANIFEST-000000\n"))
	}, "unreadable-part", "MANIFEST-000000", "="},
	{"the OPTIONS files are gone", "single-default", func(p *patient) {
		names, err := p.fs.List(p.path("db"))
		p.must(err)
		for _, n := range names {
			if strings.HasPrefix(n, "OPTIONS-") {
				p.must(p.fs.Remove(p.path("db", n)))
			}
		}
	}, "unreadable-part", "no OPTIONS file", "="},
	{"TiKV left its panic mark", "single-default", func(p *patient) {
		p.write(p.path("panic_mark_file"), nil)
	}, "panic-mark", "will not start again", "="},
	{"a repair has not finished", "single-default", func(p *patient) {
		p.must(engine.WriteFence(p.base(), p.dir, "reset-20260102T150405Z-00000000"))
	}, "fenced", "reset-20260102T150405Z-00000000", "="},
	{"encryption was on once", "single-default", func(p *patient) {
		p.write(p.path("file.dict"), append([]byte{2, 0, 0, 0}, make([]byte, 12)...))
	}, "encryption-leftover", "0 files are listed", "="},

	{"a region is lost on the only store", "single-default", func(p *patient) {
		p.region(8, func(*scan.Region) []byte { return nil })
	}, "region-gap data-outside-regions region-leftover", "between regions 6 and 10", "region-gap region-leftover"},
	{"the last region is lost", "single-default", func(p *patient) {
		p.region(2, func(*scan.Region) []byte { return nil })
	}, "region-gap region-leftover", "behind region 14", "="},
	{"a region is lost on one of three stores", "multi3-lost2", func(p *patient) {
		p.dir = "/store0"
		p.region(8, func(*scan.Region) []byte { return nil })
	}, "region-leftover", "there is no region state", "="},
	{"two regions overlap", "single-default", func(p *patient) {
		var end []byte
		p.look(func(s *scan.Store) {
			for _, r := range s.Regions {
				if r.ID == 10 {
					end = r.State.Region.EndKey
				}
			}
		})
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.Region.EndKey = end })
		})
	}, "region-overlap", "overlaps that of region", "="},
	{"a region state does not decode", "single-default", func(p *patient) {
		p.region(8, func(*scan.Region) []byte { return []byte{0xFF} })
	}, "bad-record", "RegionLocalState", "="},
	{"an apply state does not decode", "single-default", func(p *patient) {
		p.commit(op{scan.CFRaft, raftstate.ApplyStateKey(8), []byte{0xFF}})
	}, "bad-record", "RaftApplyState", "="},
	{"the term of the apply state is ahead", "single-default", func(p *patient) {
		p.apply(8, func(a *raft_serverpb.RaftApplyState) { a.CommitTerm += 100 })
	}, "region-start", "term of raft state < commit term", "="},
	{"the own peer is not in the region", "single-default", func(p *patient) {
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.Region.Peers[0].StoreId = 99 })
		})
	}, "region-start", "find no peer for store", "="},
	{"a snapshot was being applied, its record is missing", "single-default", func(p *patient) {
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.State = raft_serverpb.PeerState_Applying })
		})
	}, "region-start snapshot-files region-transition", "recover from applying state", "="},
	{"a former witness waits for data", "single-default", func(p *patient) {
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.State = raft_serverpb.PeerState_Unavailable })
		})
	}, "region-transition", "it holds none", "="},
	{"a flashback was not finished", "single-default", func(p *patient) {
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.Region.IsInFlashback = true })
		})
	}, "region-transition", "flashback", "="},
	{"a joint state that cannot be left", "single-default", func(p *patient) {
		p.region(8, func(r *scan.Region) []byte {
			return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.Region.Peers[0].Role = metapb.PeerRole_IncomingVoter })
		})
	}, "region-start-line", "panics later", "="},
	{"applied is above commit", "single-default", func(p *patient) {
		p.apply(8, func(a *raft_serverpb.RaftApplyState) { a.AppliedIndex += 3 })
	}, "region-start-line", "TiKV up to 8.0 would not start", "="},

	{"an entries block of the raft log is damaged", "single-default", func(p *patient) {
		var entry []byte
		p.look(func(s *scan.Store) {
			p.must(s.Raft.Entries(8, 500, 501, func(e raftstate.Entry) error { entry = bytes.Clone(e.Raw); return nil }))
		})
		for _, path := range p.files(p.path("raft-engine"), ".raftlog") {
			if at := bytes.Index(p.read(path), entry); at >= 0 && len(entry) > 0 {
				p.flip(path, int64(at+len(entry)/2))
				return
			}
		}
		p.t.Fatal("the entry lies in no file as it is")
	}, "raft-log-damage", "at offset", ""},
	{"the newest file of a queue of the raft log has no header", "single-default", func(p *patient) {
		p.write(p.path("raft-engine", "0000000000000001.rewrite"), bytes.Repeat([]byte("x"), 69))
	}, "raft-log-damage", "its header does not decode", "="},
	{"the raft store does not open", "single-default", func(p *patient) {
		// Only the newest file may end badly.
		first := p.path("raft-engine", "0000000000000001.raftlog")
		b := p.read(first)
		p.write(p.path("raft-engine", "0000000000000002.raftlog"), b)
		p.flip(first, int64(len(bytes.TrimRight(b, "\x00"))/2))
	}, "unreadable-part", "raftlog at offset", "="},
	{"a file beside the raft log has a name that is not UTF-8", "single-default", func(p *patient) {
		p.write(p.path("raft-engine", "core.\xff"), nil)
	}, "unreadable-part", "not UTF-8: TiKV panics", "="},
	{"the recovery mode goes on behind bytes that do not decode", "single-default", func(p *patient) {
		p.recoveryMode("tolerate-any-corruption")
		p.write(p.path("raft-engine", "0000000000000002.raftlog"), raftlog.AppendHeader(nil, 2))
	}, "raft-log-damage", `goes on with them because raft-engine.recovery-mode is "tolerate-any-corruption"`, "="},
	{"the recovery mode refuses what a kill leaves", "single-default", func(p *patient) {
		p.recoveryMode("absolute-consistency")
	}, "unreadable-part", `TiKV does not open this raft-engine either, because raft-engine.recovery-mode is "absolute-consistency"`, "="},
	{"the recovery mode has a name that is not known", "single-default", func(p *patient) {
		p.recoveryMode("tolerate-nothing")
	}, "unreadable-part", `raft-engine.recovery-mode: "tolerate-nothing" is no recovery mode`, "="},
	{"a log entry is missing", "single-raftdb", func(p *patient) {
		p.raftEntry(nil)
	}, "raft-entries", "missing; they are applied here", "="},
	{"a log entry does not decode", "single-raftdb", func(p *patient) {
		p.raftEntry(func(e raftstate.Entry) []byte {
			b := append([]byte{0x10, byte(e.Term), 0x18}, uvarint(e.Index)...)
			return append(b, 0x22, 2, 0xFF, 0xFF)
		})
	}, "raft-entries", "does not decode", ""},
}

func uvarint(v uint64) (b []byte) {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// raftEntry replaces, or without a replacement removes, an entry in the middle of the longest log of a raft RocksDB.
func (p *patient) raftEntry(replace func(raftstate.Entry) []byte) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		var best raftstate.Derived
		var region uint64
		for _, r := range s.Regions {
			raw, _, err := s.Raft.RaftState(r.ID)
			p.must(err)
			st, err := raftstate.ParseRaftLocalState(raw)
			p.must(err)
			if d := raftstate.Derive(&st, r.Apply); d.Last-d.Truncated.Index > best.Last-best.Truncated.Index {
				best, region = d, r.ID
			}
		}
		at := best.Truncated.Index + 1
		if at >= best.Applied {
			p.t.Fatalf("no log has an entry between its ends: %+v", best)
		}
		o := op{cf: scan.CFDefault, key: raftstate.RaftLogKey(region, at)}
		if replace != nil {
			p.must(s.Raft.Entries(region, at, at+1, func(e raftstate.Entry) error { o.value = replace(e); return nil }))
		}
		db, err := rocks.Open(p.base(), s.Layout.RaftDir, rocks.Options{WALDir: s.Layout.RaftWALDir})
		p.must(err)
		p.log(db, []op{o})
		p.must(db.Close())
	})
}

func found(r *scan.CheckResult) string {
	var out []string
	for _, p := range r.Findings {
		out = append(out, p.Name())
	}
	return strings.Join(out, " ")
}

func TestCheckFindsDamage(t *testing.T) {
	met := map[string]bool{}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			p := admit(t, d.fixture)
			d.hurt(p)
			r := check(t, p.base(), p.dir, false)
			if found(r) != d.want {
				t.Fatalf("got  %q\nwant %q\n%s%v", found(r), d.want, names(r), r.NotChecked)
			}
			for _, f := range r.Findings {
				met[f.Name()] = true
				if f.What() == "" || f.Next() == "" || f.Where() == "" {
					t.Errorf("%s: what %q, where %q, next %q", f.Name(), f.What(), f.Where(), f.Next())
				}
			}
			if len(r.Findings) > 0 && !strings.Contains(r.Findings[0].What(), d.words) {
				t.Errorf("%q does not say %q", r.Findings[0].What(), d.words)
			}
			want := d.quick
			if want == "=" {
				want = d.want
			}
			if q := check(t, p.base(), p.dir, true); found(q) != want {
				t.Errorf("quick: got %q, want %q\n%s", found(q), want, names(q))
			}
		})
	}
	for _, name := range []string{"damaged-file", "version-rule", "wrong-properties", "unreadable-part", "unreadable-value", "lost-value", "missing-value",
		"orphan-row", "timestamp-order", "stray-keys", "data-outside-regions", "region-gap", "region-overlap", "region-transition", "region-start",
		"region-start-line", "region-leftover", "snapshot-files", "raft-entries", "raft-log-damage", "wal-damage", "bad-record", "store-identity", "encryption-leftover", "fenced", "panic-mark"} {
		if !met[name] {
			t.Errorf("nothing gave %s", name)
		}
	}
}

// lostEntry is where a finding says that a log entry is missing.
type lostEntry struct{ region, index uint64 }

func lostOf(p plan.Problem) *lostEntry {
	if e, ok := p.(*plan.RaftEntries); ok && e.From == e.To {
		return &lostEntry{e.Region, e.From}
	}
	return nil
}
