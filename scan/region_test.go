package scan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// added are the fields of a region that tikv-ctl does not print.
var added = []string{"derived", "flags", "verdict", "own_peer", "start_key_decoded", "end_key_decoded"}

// document prints v and reads it back as plain JSON.
func document(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, b)
}

func parsed(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// What is printed about every region is what "tikv-ctl raft region --all-regions" prints, field for field.
func TestRegionsEqualTikvCtl(t *testing.T) {
	regions := 0
	for _, name := range fixtures.Names() {
		if unreadable[name] {
			continue
		}
		for _, dir := range fixtures.Stores(t, name) {
			infos, err := open(t, name, dir).RegionInfos(scan.RegionQuery{})
			if err != nil {
				t.Fatal(err)
			}
			got := document(t, infos).(map[string]any)
			for _, r := range got {
				for _, k := range added {
					delete(r.(map[string]any), k)
				}
			}
			want := parsed(t, fixtures.File(t, name, "tikv-ctl-regions-"+dir[1:]+".json")).(map[string]any)["region_infos"].(map[string]any)
			regions += len(want)
			if len(want) == 0 || len(want) != len(got) {
				t.Errorf("%s%s: %d regions, tikv-ctl has %d", name, dir, len(got), len(want))
			}
			for id, r := range got {
				local := r.(map[string]any)["region_local_state"].(map[string]any)
				// tikv-ctl leaves this out; it says where a merge goes.
				delete(local, "merge_state")
				if d := cmp.Diff(want[id], r); d != "" {
					t.Errorf("%s%s region %s (-tikv-ctl +ours):\n%s", name, dir, id, d)
				}
			}
		}
	}
	t.Logf("%d regions", regions)
}

// TiKV started on each of these directories, or would have: it was killed, not damaged. One region was applied ahead of its log, as
// releases from 8.2 on do: applied > last is legal for them, and only releases up to 8.0 refuse it (rules 6 and 11).
func TestRegionVerdicts(t *testing.T) {
	var ahead []string
	for _, name := range fixtures.Names() {
		if unreadable[name] {
			continue
		}
		for _, dir := range fixtures.Stores(t, name) {
			infos, err := open(t, name, dir).RegionInfos(scan.RegionQuery{SkipTombstone: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range infos {
				if r.Verdict.Starts != scan.StartsYes || !strings.HasPrefix(r.Verdict.Text, "TiKV will start this region: yes") {
					t.Errorf("%s%s region %d: %+v", name, dir, r.RegionID, r.Verdict)
				}
				if unpersisted := slices.Contains(r.Flags, "unpersisted"); len(r.Verdict.Violations) > 0 || unpersisted {
					ahead = append(ahead, fmt.Sprintf("%s%s region %d, %d violations: %s", name, dir, r.RegionID, len(r.Verdict.Violations), r.Verdict.Text))
					if !unpersisted || r.Derived.Unpersisted == 0 {
						t.Errorf("%+v", r.Derived)
					}
				}
				if r.OwnPeer == nil || r.Derived == nil {
					t.Errorf("%s%s region %d has no own peer or no numbers", name, dir, r.RegionID)
				}
			}
		}
	}
	want := []string{"multi3-merging-late/store2 region 153, 2 violations: TiKV will start this region: yes; TiKV up to 8.0 would not (rule 6: applied index > " +
		"max(commit index, recorded commit index): 177 > 176); TiKV up to 8.0 would not (rule 11: applied(177) is out of range [prev_applied, min(committed(176), persisted(176))])"}
	if d := cmp.Diff(want, ahead); d != "" {
		t.Error(d)
	}
}

func TestRegionQuery(t *testing.T) {
	s := open(t, "multi3-merging-late", "/store0")
	ids := func(q scan.RegionQuery) (out []uint64) {
		t.Helper()
		infos, err := s.RegionInfos(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range infos {
			out = append(out, r.RegionID)
		}
		return out
	}
	var start, end []byte
	var after uint64
	for _, r := range s.Regions {
		if r.ID == 109 {
			start, end = r.Bounds()
		}
	}
	for _, r := range s.Regions {
		if lower, _ := r.Bounds(); r.Live() && bytes.Equal(lower, end) {
			after = r.ID
		}
	}
	for _, c := range []struct {
		what string
		q    scan.RegionQuery
		want []uint64
	}{
		{"by id, in the order of ids", scan.RegionQuery{IDs: []uint64{12, 2, 7777}}, []uint64{2, 12}},
		{"by a key", scan.RegionQuery{Key: scan.TableRowKey(83, 800)}, []uint64{109}},
		{"by a key and an id", scan.RegionQuery{IDs: []uint64{2}, Key: scan.TableRowKey(83, 800)}, []uint64{2, 109}},
		{"by an encoded key, as region boundaries have it", scan.RegionQuery{DBKey: append([]byte{'z'}, mvcc.EncodeBytes(nil, scan.TableRowKey(83, 800))...)}, []uint64{109}},
		{"by a database key with a timestamp", scan.RegionQuery{DBKey: mvcc.DataKey(scan.TableRowKey(83, 800), 470610471291715601)}, []uint64{109}},
		{"by the start of a region", scan.RegionQuery{DBKey: start}, []uint64{109}},
		{"by the end of a region, which is the next one's", scan.RegionQuery{DBKey: end}, []uint64{after}},
		{"without tombstones", scan.RegionQuery{IDs: []uint64{2, 25}, SkipTombstone: true}, []uint64{2}},
	} {
		if d := cmp.Diff(c.want, ids(c.q)); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
}

// A region that keeps a store down is told, with the words that TiKV logs.
func TestRegionVerdictNo(t *testing.T) {
	for _, d := range damages {
		if d.want != "region-start" {
			continue
		}
		p := admit(t, d.fixture)
		d.hurt(p)
		p.look(func(s *scan.Store) {
			infos, err := s.RegionInfos(scan.RegionQuery{IDs: []uint64{8}})
			p.must(err)
			if v := infos[0].Verdict; v.Starts != scan.StartsNo || !strings.Contains(v.Text, "no, because "+d.words) {
				t.Errorf("%s: %+v", d.name, v)
			}
		})
	}
}
