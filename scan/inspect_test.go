package scan_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// What this tool does not handle is refused by name, with what to do instead.
func TestRefusedByName(t *testing.T) {
	for name, word := range map[string]string{"tablets-v2": "partitioned-raft-kv", "single-encrypted": "encrypted"} {
		_, err := scan.Open(base.NewMem(fixtures.Mem(t, name)), "/data", scan.Options{})
		if !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), word) || base.Next(err) == "" {
			t.Errorf("%s: %v, next: %q", name, err, base.Next(err))
		}
	}
}

func readable() (names []string) {
	for _, n := range fixtures.Names() {
		if n != "tablets-v2" && n != "single-encrypted" {
			names = append(names, n)
		}
	}
	return names
}

// Every store of every archive is described, and the numbers are those that the writer of the fixture knows.
func TestInspectEveryStore(t *testing.T) {
	for _, name := range readable() {
		t.Run(name, func(t *testing.T) {
			facts := fixtures.Facts(t, name)
			ids := map[uint64]bool{}
			for _, dir := range fixtures.Stores(t, name) {
				in := open(t, name, dir).Inspect()
				if in.ClusterID != facts.ClusterID || in.StoreID == 0 || ids[in.StoreID] {
					t.Errorf("%s: cluster %d store %d, want cluster %d and an id of its own", dir, in.ClusterID, in.StoreID, facts.ClusterID)
				}
				ids[in.StoreID] = true
				if len(in.Unreadable) > 0 {
					t.Errorf("%s: %v", dir, in.Unreadable)
				}
				if in.Line.Dialect != "8.10" || in.Line.TiKV == "" {
					t.Errorf("%s: %+v", dir, in.Line)
				}
				if in.Regions.Total == 0 || in.Regions.NoPeer > 0 || in.KV.WAL.Records == 0 && len(in.KV.CFs[0].Levels) == 0 {
					t.Errorf("%s: %+v", dir, in)
				}
				if len(in.KV.WAL.Problems) > 0 || in.PanicMark != nil || len(in.Backups) > 0 {
					t.Errorf("%s: %+v", dir, in)
				}
				if in.Raft.Regions < in.Regions.Total-in.Regions.ByState["Tombstone"] || (in.Raft.DB != nil) != (name == "single-raftdb" || name == "multi4-dr-learner") {
					t.Errorf("%s: %+v", dir, in.Raft)
				}
				if text := in.Text(); !strings.Contains(text, fmt.Sprint(facts.ClusterID)) || strings.Contains(text, "%!") {
					t.Errorf("%s:\n%s", dir, text)
				}
				if b, err := json.Marshal(in); err != nil || !json.Valid(b) {
					t.Error(err)
				}
			}
		})
	}
}

// The newest commit and the locks are those that the client left behind.
func TestInspectCommitsAndLocks(t *testing.T) {
	for _, name := range singles {
		facts := fixtures.Facts(t, name)
		history := fixtures.History(t, name)
		in := open(t, name, "/data").Inspect()
		last := mvcc.TS(history[len(history)-1].CommitTS)
		if in.Newest < last || in.Newest > mvcc.TS(facts.END) || in.NewestTime != scan.Time(in.Newest) {
			t.Errorf("%s: newest %d, last acknowledged %d, end %d", name, in.Newest, last, facts.END)
		}
		want, async := 0, 0
		for _, l := range facts.Locks {
			switch {
			case l.Pessimistic: // may be in memory only
			case l.CommittedPrimary:
				want += len(l.Keys) - 1
			case l.Async:
				async += len(l.Keys)
				want += len(l.Keys)
			default:
				want += len(l.Keys)
			}
		}
		if got := in.Locks.Keys - in.Locks.ByType["pessimistic"]; got != want || in.Locks.AsyncCommit != async {
			t.Errorf("%s: %s; want %d, %d async", name, in.Locks, want, async)
		}
	}
	for name, want := range map[string]scan.RawMode{"raw-v1": scan.RawV1, "raw-v1ttl": scan.RawV1TTL, "raw-v2": scan.RawV2, "single-titan": scan.RawNone} {
		if in := open(t, name, "/data").Inspect(); in.RawData != want {
			t.Errorf("%s: raw data %s", name, in.RawData)
		}
	}
	if in := open(t, "raw-v2", "/data").Inspect(); in.Newest == 0 || in.Newest > mvcc.TS(fixtures.Facts(t, "raw-v2").T3) {
		t.Errorf("raw-v2: newest %d", in.Newest)
	}
}

// Data of API V1 without versions is told from transactional data, range tombstones at the borders of tables included.
func TestBareKeys(t *testing.T) {
	for _, name := range readable() {
		for _, dir := range fixtures.Stores(t, name) {
			n, err := open(t, name, dir).BareKeys()
			if err != nil || (n > 0) != (name == "raw-v1" || name == "raw-v1ttl") {
				t.Errorf("%s: %d bare keys, %v", name, n, err)
			}
		}
	}
}

// All that the history says of a key is found under it: every acknowledged commit with its value.
func TestKeyHoldsItsHistory(t *testing.T) {
	for _, name := range []string{"single-titan", "single-default"} {
		s := open(t, name, "/data")
		byKey := map[string][]fixtures.Commit{}
		for _, c := range fixtures.History(t, name) {
			byKey[string(c.Key)] = append(byKey[string(c.Key)], c)
		}
		titan := 0
		for key, commits := range byKey {
			r, err := s.Key([]byte(key))
			if err != nil {
				t.Fatal(err)
			}
			if r.Region == 0 || r.KeyDecoded.Kind == "" {
				t.Errorf("%s %X: %+v", name, key, r)
			}
			values := map[mvcc.TS]string{}
			for _, v := range r.Values {
				values[*v.StartTS] = v.Value
				if v.InTitan {
					titan++
				}
				if v.Owner == "" || v.Error != "" {
					t.Errorf("%s %X: %+v", name, key, v)
				}
			}
			locked := map[mvcc.TS]bool{}
			for _, l := range r.Locks {
				locked[l.StartTS] = true
			}
			writes := map[mvcc.TS]scan.WriteView{}
			for _, w := range r.Writes {
				writes[w.StartTS] = w
			}
			for _, c := range commits {
				w, ok := writes[mvcc.TS(c.StartTS)]
				if !ok && locked[mvcc.TS(c.StartTS)] {
					continue // its primary is committed
				}
				if !ok || w.CommitTS != mvcc.TS(c.CommitTS) || (w.Type == "delete") != c.Delete || w.ValueMissing {
					t.Errorf("%s %X: %+v for %+v", name, key, w, c)
					continue
				}
				got := values[w.StartTS]
				if w.ShortValue != nil {
					got = *w.ShortValue
				}
				if want := fmt.Sprintf("%X", c.Value); got != want {
					t.Errorf("%s %X at %d: value %.60s, want %.60s", name, key, c.CommitTS, got, want)
				}
			}
		}
		if (titan > 0) != (name == "single-titan") {
			t.Errorf("%s: %d values in Titan", name, titan)
		}
	}
}

// The forms of keys lead to the same key.
func TestKeyForms(t *testing.T) {
	s := open(t, "single-default", "/data")
	user := scan.TableRowKey(70, 100)
	db := mvcc.LockKey(user)
	if got := fmt.Sprintf("%X", user); got != "7480000000000000465F728000000000000064" {
		t.Error(got)
	}
	for _, text := range []string{
		fmt.Sprintf("%X", db), fmt.Sprintf("0x%x", db), fmt.Sprintf("%X", mvcc.AppendTS(bytes.Clone(db), 5)),
		`zt\200\000\000\000\000\000\000\377F_r\200\000\000\000\000\377\000\000d\000\000\000\000\000\372`,
		`zt\x80\x00\x00\x00\x00\x00\x00\xffF_r\x80\x00\x00\x00\x00\xff\x00\x00d\x00\x00\x00\x00\x00\xfa`,
	} {
		k, err := scan.ParseDBKey(text)
		if err == nil {
			k, err = s.UserKeyOf(k)
		}
		if err != nil || !bytes.Equal(k, user) {
			t.Errorf("%s: %X, %v", text, k, err)
		}
	}
	for _, text := range []string{`z\`, `z\40`, `z\777`, `z\xg0`, "7A8", "zz\\8"} {
		if k, err := scan.ParseDBKey(text); err == nil {
			t.Errorf("%s: %X", text, k)
		}
	}
}

func FuzzParseDBKey(f *testing.F) {
	f.Add(`zt\200\000\xfF\n\\`)
	f.Add("7A00")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := scan.ParseDBKey(text)
		if err == nil && len(b) > len(text) {
			t.Errorf("%q gives %X", text, b)
		}
	})
}

func records(t *testing.T, s *scan.Store, o scan.RawScanOptions) (out []*scan.RawRecord) {
	t.Helper()
	if err := s.RawScan(context.Background(), o, func(r *scan.RawRecord) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// A physical scan shows more than a reader sees; what it does not call hidden is exactly that. Everything decodes.
func TestRawScan(t *testing.T) {
	for _, name := range readable() {
		if strings.HasPrefix(name, "multi") && name != "multi4-dr-learner" {
			continue // the same formats again
		}
		s := open(t, name, fixtures.Stores(t, name)[0])
		hidden := 0
		for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite, scan.CFRaft} {
			plain := records(t, s, scan.RawScanOptions{CF: cf})
			var shown []*scan.RawRecord
			for _, r := range records(t, s, scan.RawScanOptions{CF: cf, Physical: true}) {
				if r.Physical == nil || r.Physical.Kind == "" {
					t.Fatalf("%s %s: %+v", name, cf, r)
				}
				if r.Physical.Hidden {
					hidden++
					continue
				}
				r.Physical = nil
				shown = append(shown, r)
			}
			if d := cmp.Diff(plain, shown); d != "" {
				t.Errorf("%s %s (-plain +physical):\n%.1000s", name, cf, d)
			}
			for _, r := range plain {
				bad := r.Error != "" || r.Write != nil && r.Write.Error != "" || r.Value != nil && r.Value.Error != ""
				for _, l := range r.Locks {
					bad = bad || l.Error != ""
				}
				if bad {
					t.Errorf("%s %s: %+v", name, cf, r)
				}
			}
			if cf == scan.CFRaft && len(plain) < len(s.Regions) {
				t.Errorf("%s: %d records for %d regions", name, len(plain), len(s.Regions))
			}
		}
		if hidden == 0 {
			t.Errorf("%s: nothing hidden", name)
		}
	}
}

// Limits and ranges cut where they say; the regions add up to the whole.
func TestRawScanRanges(t *testing.T) {
	s := open(t, "single-levels", "/data")
	all := records(t, s, scan.RawScanOptions{CF: scan.CFWrite})
	if got := records(t, s, scan.RawScanOptions{CF: scan.CFWrite, Limit: 7}); len(got) != 7 || got[6].DBKey != all[6].DBKey {
		t.Errorf("limit 7: %d", len(got))
	}
	from, err := scan.ParseHex(all[10].DBKey)
	if err != nil {
		t.Fatal(err)
	}
	to, err := scan.ParseHex(all[20].DBKey)
	if err != nil {
		t.Fatal(err)
	}
	if got := records(t, s, scan.RawScanOptions{CF: scan.CFWrite, Lower: from, Upper: to}); len(got) != 10 || got[0].DBKey != all[10].DBKey {
		t.Errorf("range: %d", len(got))
	}
	sum := 0
	for _, r := range s.Regions {
		if r.Live() {
			sum += len(records(t, s, scan.RawScanOptions{CF: scan.CFWrite, Region: r.ID}))
		}
		if got := records(t, s, scan.RawScanOptions{CF: scan.CFRaft, Region: r.ID}); len(got) < 2 {
			t.Errorf("region %d: %d records in the raft column family", r.ID, len(got))
		}
	}
	if sum != len(all) {
		t.Errorf("regions hold %d of %d write records", sum, len(all))
	}
	none := scan.RawScanOptions{CF: scan.CFWrite, Region: 1 << 40}
	if err := s.RawScan(context.Background(), none, func(*scan.RawRecord) error { return nil }); !errors.Is(err, base.ErrUsage) {
		t.Error(err)
	}
}
