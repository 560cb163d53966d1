package scan_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// table writes a table as an ingest would take it, with one record for each key, and gives its bytes.
func (p *patient) table(path, cf string, keys ...[]byte) []byte {
	p.t.Helper()
	f, err := p.fs.Create(path, vfs.WriteCategoryUnspecified)
	p.must(err)
	w := sst.NewWriter(f, sst.WriterOptions{CFName: cf})
	for _, k := range keys {
		p.must(w.Add(ikey.Key{User: k, Kind: ikey.KindPut}, []byte("v")))
	}
	_, err = w.Finish()
	p.must(err)
	p.must(f.Close())
	return p.read(path)
}

// ingestable is a table of one record as a writer of files for ingestion makes it: external_sst_file.version 2, global_seqno 0, which our own writer
// never makes. Format version 2, CRC-32C.
const ingestable = "" +
	"000901610100000000000000780000000001000000003d383e0d0009026101000000000000000015000000000100000000642b77bb00121a726f636b7364622e" +
	"636f6d70617261746f726c6576656c64622e4279746577697365436f6d70617261746f72002608726f636b7364622e65787465726e616c5f7373745f66696c65" +
	"2e676c6f62616c5f7365716e6f0000000000000000002104726f636b7364622e65787465726e616c5f7373745f66696c652e76657273696f6e02000000000000" +
	"002f000000600000000300000000b5d57392001203726f636b7364622e70726f70657274696573359801000000000100000000c199302c01d201201a16000000" +
	"000000000000000000000000000000000000000000000000000000000000000002000000f7cff485b741e288"

// regionOf gives a region of the store.
func (p *patient) regionOf(id uint64) (out scan.Region) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		for _, r := range s.Regions {
			if r.ID == id {
				out = r
			}
		}
	})
	return out
}

const snapshotRegion, snapshotIndex = 8, 700

// snapshotFile is the path of a file of the snapshot that applying makes.
func (p *patient) snapshotFile(suffix string) string { return p.path("snap", "rev_8_6_700"+suffix) }

// applying lets a region be half way through a received snapshot: the records as TiKV writes them before it takes the data in, and the files,
// of two parts in the default family.
func (p *patient) applying() {
	p.t.Helper()
	p.region(snapshotRegion, func(r *scan.Region) []byte {
		return state(p.t, r, func(s *raft_serverpb.RegionLocalState) { s.State = raft_serverpb.PeerState_Applying })
	})
	p.apply(snapshotRegion, func(a *raft_serverpb.RaftApplyState) {
		a.AppliedIndex, a.CommitIndex, a.CommitTerm = snapshotIndex, snapshotIndex, 6
		a.TruncatedState = &raft_serverpb.RaftTruncatedState{Index: snapshotIndex, Term: 6}
	})
	raft, err := (&raft_serverpb.RaftLocalState{HardState: &eraftpb.HardState{Term: 6, Commit: snapshotIndex}, LastIndex: snapshotIndex}).Marshal()
	p.must(err)
	p.commit(op{scan.CFRaft, raftstate.SnapshotRaftStateKey(snapshotRegion), raft})
	p.must(p.fs.MkdirAll(p.path("snap"), 0o755))
	lower, _ := p.regionOf(snapshotRegion).Bounds()
	lock := []byte("a stream of keys and values")
	p.write(p.snapshotFile("_lock.sst"), lock)
	m := &raft_serverpb.SnapshotMeta{}
	add := func(cf string, b []byte) {
		m.CfFiles = append(m.CfFiles, &raft_serverpb.SnapshotCFFile{Cf: cf, Size_: uint64(len(b)), Checksum: crc32.ChecksumIEEE(b)})
	}
	add("default", p.table(p.snapshotFile("_default.sst"), "default", append(bytes.Clone(lower), 1)))
	second, err := hex.DecodeString(ingestable)
	p.must(err)
	p.write(p.snapshotFile("_default_0001.sst"), second)
	add("default", second)
	add("lock", lock)
	add("write", nil) // empty: no file
	b, err := m.Marshal()
	p.must(err)
	p.write(p.snapshotFile(".meta"), b)
}

// A region that is half way through a snapshot needs the files of exactly that snapshot.
func TestCheckSnapshots(t *testing.T) {
	for _, c := range []struct {
		name, want, words, quick string
		hurt                     func(p *patient)
	}{
		{"whole", "region-transition", "half applied", "region-transition", func(*patient) {}},
		{"an ingest has left its sequence number in a file", "region-transition", "half applied", "region-transition", func(p *patient) {
			path := p.snapshotFile("_default_0001.sst")
			r, err := sst.Open(p.base(), path, sst.ReaderOptions{LargestSeq: ikey.MaxSeq})
			p.must(err)
			at, ok := r.GlobalSeqOffset()
			p.must(r.Close())
			if !ok {
				p.t.Fatal("no sequence number")
			}
			b := p.read(path)
			binary.LittleEndian.PutUint64(b[at:], 12345)
			p.write(path, b)
		}},
		{"a byte of a table is flipped", "snapshot-files region-transition", "rev_8_6_700_default.sst has the checksum", "region-transition", func(p *patient) {
			p.flip(p.snapshotFile("_default.sst"), 20)
		}},
		{"a byte of the locks is flipped", "snapshot-files region-transition", "rev_8_6_700_lock.sst has the checksum", "region-transition", func(p *patient) {
			p.flip(p.snapshotFile("_lock.sst"), 3)
		}},
		{"a file is cut off", "snapshot-files region-transition", "rev_8_6_700_lock.sst has 26 bytes, its metadata says 27", "=", func(p *patient) {
			p.write(p.snapshotFile("_lock.sst"), p.read(p.snapshotFile("_lock.sst"))[:26])
		}},
		{"the second part is missing", "snapshot-files region-transition", "rev_8_6_700_default_0001.sst is missing", "=", func(p *patient) {
			p.must(p.fs.Remove(p.snapshotFile("_default_0001.sst")))
		}},
		{"the metadata does not read", "snapshot-files region-transition", "its metadata does not read: SnapshotMeta", "=", func(p *patient) {
			p.write(p.snapshotFile(".meta"), []byte{0xFF})
		}},
		{"the metadata was never renamed", "snapshot-files region-transition", "its metadata file is missing", "=", func(p *patient) {
			p.must(p.fs.Rename(p.snapshotFile(".meta"), p.snapshotFile(".meta.tmp")))
		}},
		{"snap/ was cleaned", "snapshot-files region-transition", "nothing of it is there", "=", func(p *patient) {
			for _, f := range p.files(p.path("snap"), "") {
				p.must(p.fs.Remove(f))
			}
		}},
		{"only the snapshot of another index is there", "snapshot-files region-transition leftover-files", "nothing of it is there", "=", func(p *patient) {
			for _, f := range p.files(p.path("snap"), "") {
				p.must(p.fs.Rename(f, strings.Replace(f, "_700", "_699", 1)))
			}
		}},
		{"it was made here, not received", "snapshot-files region-transition leftover-files", "nothing of it is there", "=", func(p *patient) {
			for _, f := range p.files(p.path("snap"), "") {
				p.must(p.fs.Rename(f, strings.Replace(f, "rev_", "gen_", 1)))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := admit(t, "single-default")
			p.applying()
			c.hurt(p)
			r := check(t, p.base(), p.dir, false)
			if found(r) != c.want || !strings.Contains(r.Findings[0].What(), c.words) {
				t.Errorf("got %q, want %q with %q\n%s", found(r), c.want, c.words, names(r))
			}
			quick := c.quick
			if quick == "=" {
				quick = c.want
			}
			q := check(t, p.base(), p.dir, true)
			if found(q) != quick {
				t.Errorf("quick: got %q, want %q\n%s", found(q), quick, names(q))
			}
			p.look(func(s *scan.Store) {
				infos, err := s.RegionInfos(scan.RegionQuery{IDs: []uint64{snapshotRegion}})
				p.must(err)
				v, broken := infos[0], strings.HasPrefix(quick, "snapshot-files")
				if v.SnapshotRaft == nil || v.SnapshotRaft.LastIndex != snapshotIndex || v.Verdict.Starts != scan.StartsYes ||
					strings.Contains(v.Verdict.Text, "panics later") != broken {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}

// Snapshots that nothing waits for are summed up, whole or not.
func TestCheckLeftoverSnapshots(t *testing.T) {
	p := admit(t, "single-default")
	p.must(p.fs.MkdirAll(p.path("snap"), 0o755))
	p.write(p.path("snap", "gen_9_6_7_write.sst"), []byte("0123456789"))
	p.write(p.path("snap", "rev_8_6_7.meta"), []byte("\x0a\x09\x0a\x07default\x0a\x06\x0a\x04lock\x0a\x07\x0a\x05write"))
	p.write(p.path("snap", "rev_10_6_7.meta.tmp"), nil)
	p.write(p.path("snap", "del_range_1.sst"), nil)
	r := check(t, p.base(), p.dir, false)
	if found(r) != "leftover-files" || r.Counts.Snapshots != 2 {
		t.Fatalf("%+v %s", r.Counts, names(r))
	}
	f := r.Findings[0].(*plan.LeftoverFiles)
	if f.Count != 2 || f.Broken != 1 || f.Bytes != 10 || f.Import || f.Severity() != plan.Info || f.Files[0].Region != 8 || f.Files[1].Reason != "its metadata file is missing" {
		t.Errorf("%+v", f)
	}
}

// tail appends an entry to the log of a region of a raft RocksDB that ingests a file.
func (p *patient) tail(region uint64, committed bool, change func(*raft_cmdpb.RaftCmdRequest, *import_sstpb.SSTMeta)) {
	p.t.Helper()
	p.look(func(s *scan.Store) {
		raw, _, err := s.Raft.RaftState(region)
		p.must(err)
		var st raft_serverpb.RaftLocalState
		p.must(st.Unmarshal(raw))
		st.LastIndex++
		if committed {
			st.HardState.Commit = st.LastIndex
		}
		var d metapb.Region
		for _, r := range s.Regions {
			if r.ID == region {
				var l raft_serverpb.RegionLocalState
				p.must(l.Unmarshal(r.Raw))
				d = *l.Region
			}
		}
		meta := &import_sstpb.SSTMeta{Uuid: []byte("0123456789abcdef"), CfName: "write", RegionId: region, RegionEpoch: d.RegionEpoch}
		cmd := &raft_cmdpb.RaftCmdRequest{Header: &raft_cmdpb.RaftRequestHeader{RegionId: region, Peer: d.Peers[0], RegionEpoch: d.RegionEpoch, Term: st.HardState.Term},
			Requests: []*raft_cmdpb.Request{{CmdType: raft_cmdpb.CmdType_IngestSST, IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: meta}}}}
		if change != nil {
			change(cmd, meta)
		}
		data, err := cmd.Marshal()
		p.must(err)
		entry, err := (&eraftpb.Entry{Term: st.HardState.Term, Index: st.LastIndex, Data: data}).Marshal()
		p.must(err)
		state, err := st.Marshal()
		p.must(err)
		db, err := rocks.Open(p.base(), s.Layout.RaftDir, rocks.Options{WALDir: s.Layout.RaftWALDir})
		p.must(err)
		p.log(db, []op{{scan.CFDefault, raftstate.RaftLogKey(region, st.LastIndex), entry}, {scan.CFDefault, raftstate.RaftStateKey(region), state}})
		p.must(db.Close())
	})
}

// A file that a log entry is going to ingest has to be there and to read; what else lies in import/ is summed up.
func TestCheckImports(t *testing.T) {
	const uuid = "30313233-3435-3637-3839-616263646566"
	const region = 8
	for _, c := range []struct {
		name, want, words string
		hurt              func(p *patient, path string)
	}{
		{"the entry's file is there", "", "", func(p *patient, _ string) { p.tail(region, true, nil) }},
		{"no entry wants the file", "leftover-files", "1 fit their region still", func(*patient, string) {}},
		{"no entry wants the file, whose region has changed", "leftover-files", "their regions have changed since", func(p *patient, path string) {
			p.must(p.fs.Rename(path, p.path("import", uuid+"_8_1_1_write.sst")))
		}},
		{"no entry wants the file, which does not read", "leftover-files", "1 of them not complete", func(p *patient, path string) { p.flip(path, 5) }},
		{"the file is missing", "ingest-file", "it is not there; TiKV panics when it applies the entry", func(p *patient, path string) {
			p.tail(region, true, nil)
			p.must(p.fs.Remove(path))
		}},
		{"the file is missing, the entry is not committed", "ingest-file", "if the entry is committed", func(p *patient, path string) {
			p.tail(region, false, nil)
			p.must(p.fs.Remove(path))
		}},
		{"the file does not read", "ingest-file", "it does not read", func(p *patient, path string) {
			p.tail(region, true, nil)
			p.flip(path, 5)
		}},
		{"the file has another length", "ingest-file", "the entry says 5", func(p *patient, _ string) {
			p.tail(region, true, func(_ *raft_cmdpb.RaftCmdRequest, m *import_sstpb.SSTMeta) { m.Length = 5 })
		}},
		{"the file reaches beyond the region", "ingest-file", "reach beyond the region", func(p *patient, path string) {
			p.tail(region, true, nil)
			p.table(path, "write", []byte{'z', 1})
		}},
		{"the entry is a no-op: the region has moved on", "", "", func(p *patient, path string) {
			p.tail(region, true, func(c *raft_cmdpb.RaftCmdRequest, _ *import_sstpb.SSTMeta) {
				e := *c.Header.RegionEpoch
				e.Version--
				c.Header.RegionEpoch = &e
			})
			p.must(p.fs.Remove(path))
		}},
		{"the entry's file is of another epoch: TiKV refuses it without looking", "", "", func(p *patient, path string) {
			p.tail(region, true, func(_ *raft_cmdpb.RaftCmdRequest, m *import_sstpb.SSTMeta) {
				e := *m.RegionEpoch
				e.ConfVer--
				m.RegionEpoch = &e
			})
			p.must(p.fs.Remove(path))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := admit(t, "single-raftdb")
			r := p.regionOf(region)
			lower, _ := r.Bounds()
			name := raftstate.ImportName{UUID: raftstate.Key("0123456789abcdef"), Region: region, Epoch: r.State.Region.Epoch, CF: "write"}
			p.must(p.fs.MkdirAll(p.path("import"), 0o755))
			path := p.path("import", name.String())
			p.table(path, "write", append(bytes.Clone(lower), 1), append(bytes.Clone(lower), 2))
			p.write(p.path("import", "notes.txt"), nil)
			c.hurt(p, path)
			got := check(t, p.base(), p.dir, false)
			if found(got) != c.want || c.want != "" && !strings.Contains(got.Findings[0].What(), c.words) {
				t.Errorf("got %q, want %q with %q\n%s", found(got), c.want, c.words, names(got))
			}
			if c.want == "leftover-files" && c.words != "1 of them not complete" {
				if f := got.Findings[0].(*plan.LeftoverFiles).Files[0]; f.Region != region || !strings.HasPrefix(f.Start, "7A") || f.Start >= f.End {
					t.Errorf("%+v", f)
				}
			}
			// A quick check reads no log entries.
			if q := check(t, p.base(), p.dir, true); found(q) != "" {
				t.Errorf("quick: %s", names(q))
			}
		})
	}
}

// A peer that a message created has a vote and nothing else until its snapshot comes; anything more is left over, in either raft store.
func TestCheckRegionLeftovers(t *testing.T) {
	put := func(p *patient, ops ...op) {
		p.look(func(s *scan.Store) {
			db, err := rocks.Open(p.base(), s.Layout.RaftDir, rocks.Options{WALDir: s.Layout.RaftWALDir})
			p.must(err)
			p.log(db, ops)
			p.must(db.Close())
		})
	}
	raft := func(p *patient, last uint64) []byte {
		b, err := (&raft_serverpb.RaftLocalState{HardState: &eraftpb.HardState{Term: 7, Vote: 3, Commit: last}, LastIndex: last}).Marshal()
		p.must(err)
		return b
	}
	for _, c := range []struct {
		name, fixture string
		hurt          func(p *patient)
		want          string
	}{
		{"a vote", "single-raftdb", func(p *patient) { put(p, op{scan.CFDefault, raftstate.RaftStateKey(999), raft(p, 0)}) }, ""},
		{"a raft state", "single-raftdb", func(p *patient) { put(p, op{scan.CFDefault, raftstate.RaftStateKey(999), raft(p, 9)}) },
			"there is no region state, but there is: a raft state (term 7, commit 9, last 9). TiKV does not know the region, and removes its data when it starts"},
		{"an entry", "single-raftdb", func(p *patient) {
			put(p, op{scan.CFDefault, raftstate.RaftLogKey(999, 12), []byte{0x10, 7, 0x18, 12}})
		}, "there is no region state, but there is: log entries 12 to 12. TiKV does not know the region, and removes its data when it starts"},
		{"an apply state", "single-default", func(p *patient) {
			p.commit(op{scan.CFRaft, raftstate.ApplyStateKey(999), []byte{8, 7}})
		}, "there is no region state, but there is: an apply state. TiKV does not know the region, and removes its data when it starts"},
		{"the state of a snapshot that was taken in", "single-default", func(p *patient) {
			p.commit(op{scan.CFRaft, raftstate.SnapshotRaftStateKey(8), raft(p, 9)})
		}, "in state Normal it needs no raft state of a snapshot, and one is there: TiKV does not look at it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := admit(t, c.fixture)
			c.hurt(p)
			for _, quick := range []bool{false, true} {
				r := check(t, p.base(), p.dir, quick)
				var got string
				if len(r.Findings) > 0 {
					got = r.Findings[0].What()
				}
				if got != c.want || len(r.Findings) > 1 {
					t.Errorf("quick %v: %s", quick, names(r))
				}
			}
		})
	}
}

// What garbage collection may have taken depends on the safe point.
func TestCheckSafePoint(t *testing.T) {
	p := admit(t, "single-levels")
	var old, over version
	p.look(func(s *scan.Store) {
		var last version
		for _, v := range versions(t, s) {
			if !bytes.Equal(v.prefix, last.prefix) {
				last = version{}
			}
			if last.prefix != nil && v.w.NeedsDefault() {
				old, over = v, last
				return
			}
			if v.w.Type == mvcc.WritePut || v.w.Type == mvcc.WriteDelete {
				last = v
			}
		}
	})
	if old.key == nil {
		t.Fatal("no superseded version has a long value")
	}
	p.commit(op{cf: scan.CFDefault, key: mvcc.AppendTS(bytes.Clone(old.prefix), old.w.StartTS)},
		op{scan.CFDefault, mvcc.AppendTS(bytes.Clone(old.prefix), old.w.StartTS-1), []byte("of nobody")})
	for _, c := range []struct {
		name string
		safe mvcc.TS
		want string
	}{
		{"not known", 0, "warning missing-value, warning orphan-row"},
		{"at the version that supersedes it", over.ts, "info missing-value, info orphan-row"},
		{"just below", over.ts - 1, "error lost-value, info orphan-row"},
		{"below everything", 1, "error lost-value, warning orphan-row"},
	} {
		r, err := scan.Check(context.Background(), p.base(), p.dir, scan.CheckOptions{Threads: 2, SafePoint: c.safe})
		p.must(err)
		var got []string
		for _, f := range r.Findings {
			got = append(got, f.Severity().String()+" "+f.Name())
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("safe point %s: got %v, want %s\n%s", c.name, got, c.want, names(r))
		}
	}
}
