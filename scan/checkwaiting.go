package scan

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// maxLeftover bounds the files that a finding about leftover files lists.
const maxLeftover = 50

// waiting looks at what lies beside the databases and may still be taken into them: snapshots, and tables of imports.
func (c *checker) waiting(ctx context.Context) error {
	if c.s.DB == nil {
		return nil
	}
	if err := c.snapshots(ctx); err != nil {
		return err
	}
	return c.imports(ctx)
}

// snapshots tests the snapshots that regions in state Applying need, and sums up the others. A region needs exactly one; TiKV starts
// without it, and panics when its worker comes to the region (worker/region.rs, apply_snap).
func (c *checker) snapshots(ctx context.Context) error {
	all, err := c.s.Snapshots()
	if err != nil {
		c.fail("snap/", err)
		return nil
	}
	c.res.Counts.Snapshots = len(all)
	needed := map[raftstate.SnapshotKey]bool{}
	for _, r := range c.s.Regions {
		if r.State.State == raftstate.Applying && !c.badApply[r.ID] {
			needed[raftstate.AppliedSnapshot(r.ID, r.Apply)] = true
		}
	}
	left := &plan.LeftoverFiles{Store: c.store(), Dir: c.s.Layout.SnapDir}
	for _, sn := range all {
		c.o.Meter.Total.Add(sn.Bytes)
		var n int64
		reason, err := sn.Incomplete(ctx, !c.o.Quick, func(k int64) { n += k; c.o.Meter.Done.Add(k) })
		if err != nil {
			return err
		}
		c.o.Meter.Done.Add(sn.Bytes - n)
		if sn.Received && needed[sn.Key] {
			delete(needed, sn.Key)
			if reason != "" {
				c.add(&plan.SnapshotFiles{Store: c.store(), Snapshot: sn.Key, Path: sn.Path, Reason: reason})
			}
			continue
		}
		left.Count++
		left.Bytes += sn.Bytes
		if reason != "" {
			left.Broken++
		}
		if len(left.Files) < maxLeftover {
			left.Files = append(left.Files, plan.LeftoverFile{File: c.s.FS.PathBase(sn.Path), Region: sn.Key.Region, Reason: reason})
		}
	}
	for key := range needed {
		name := raftstate.SnapshotName{Key: key, Received: true}
		c.add(&plan.SnapshotFiles{Store: c.store(), Snapshot: key, Path: c.s.FS.PathJoin(c.s.Layout.SnapDir, name.String()), Reason: "nothing of it is there"})
	}
	if left.Count > 0 {
		c.add(left)
	}
	return nil
}

// waitingIngest is an ingest of a log entry that TiKV has still to apply.
type waitingIngest struct {
	region    Region
	index     uint64
	committed bool
	sst       *raftstate.SST
}

// tailEntry remembers the ingests of an entry that is not applied. An entry whose epoch the region has left behind changes nothing, and a
// file of another region or epoch than the region's by then is refused before it is opened (fsm/apply.rs, check_sst_for_ingestion).
func (c *checker) tailEntry(r Region, d raftstate.Derived, sim *epochSim, e raftstate.Entry, cmd raftstate.Command) {
	if sim.apply(e) != "" {
		return
	}
	for _, q := range cmd.Requests {
		if q.Op == raftstate.OpIngest && q.SST.RegionID == r.ID && q.SST.Epoch == sim.epoch {
			c.ingests = append(c.ingests, waitingIngest{r, e.Index, e.Index <= d.Committed, q.SST})
		}
	}
}

// imports tests the files that the logs want, and sums up the others.
func (c *checker) imports(ctx context.Context) error {
	files, err := c.s.ImportFiles()
	if err != nil {
		c.fail("import/", err)
		return nil
	}
	c.res.Counts.ImportFiles = len(files)
	wanted := map[string]bool{}
	for _, w := range c.ingests {
		p := &plan.IngestFile{Store: c.store(), Region: w.region.ID, Index: w.index, Committed: w.committed}
		i := slices.IndexFunc(files, func(f ImportFile) bool { return bytes.Equal(f.UUID, w.sst.UUID) })
		if i < 0 {
			p.File, p.Missing, p.Reason = raftstate.UUIDText(w.sst.UUID)+"_….sst", true, "it is not there"
			c.add(p)
			continue
		}
		wanted[files[i].File] = true
		p.File = files[i].File
		t, err := c.importTable(ctx, files[i], w.sst.CF)
		if err != nil {
			return err
		}
		lower, upper := w.region.Bounds()
		switch {
		case t.reason != "":
			p.Reason = t.reason
		case w.sst.Length != 0 && uint64(files[i].Bytes) != w.sst.Length:
			p.Reason = fmt.Sprintf("it has %d bytes, the entry says %d", files[i].Bytes, w.sst.Length)
		case t.first != nil && (bytes.Compare(t.first, lower) < 0 || bytes.Compare(t.last, upper) >= 0):
			p.Reason = fmt.Sprintf("its keys %s to %s reach beyond the region", upperHex(t.first), upperHex(t.last))
		default:
			continue
		}
		c.add(p)
	}
	left := &plan.LeftoverFiles{Store: c.store(), Dir: c.s.Layout.ImportDir, Import: true}
	for _, f := range files {
		if wanted[f.File] {
			continue
		}
		t, err := c.importTable(ctx, f, f.CF)
		if err != nil {
			return err
		}
		one := plan.LeftoverFile{File: f.File, Region: f.Region, Epoch: f.Epoch, Start: upperHex(t.first), End: upperHex(t.last), Reason: t.reason}
		one.Match = slices.ContainsFunc(c.s.Regions, func(r Region) bool { return r.Live() && r.ID == f.Region && r.State.Region.Epoch == f.Epoch })
		left.Count++
		left.Bytes += f.Bytes
		if one.Reason != "" {
			left.Broken++
		}
		if one.Match {
			left.Fit++
		}
		if len(left.Files) < maxLeftover {
			left.Files = append(left.Files, one)
		}
	}
	switch {
	case left.Count == 0:
	case c.tailsUnread:
		c.skip("whether log entries want the files of import/")
	default:
		c.add(left)
	}
	return nil
}

// importTable is what a table of import/ holds.
type importTable struct {
	first, last []byte // database keys; nil: not looked at, or none
	reason      string // why it cannot be ingested
}

// importTable reads a table completely; a quick check does not open it. The error is an interruption.
func (c *checker) importTable(ctx context.Context, f ImportFile, cf string) (t importTable, err error) {
	if c.o.Quick {
		return t, nil
	}
	c.o.Meter.Total.Add(f.Bytes)
	defer c.o.Meter.Done.Add(f.Bytes)
	// An ingest that a crash interrupted may have left a sequence number in the file: its own property counts.
	r, err := sst.Open(c.s.FS, f.Path, sst.ReaderOptions{CF: cf, LargestSeq: ikey.MaxSeq})
	if err != nil {
		t.reason = "it does not read: " + reason(err)
		return t, nil
	}
	defer r.Close()
	if err := r.VerifyChecksums(); err != nil {
		t.reason = "it does not read: " + reason(err)
		return t, nil
	}
	it := r.NewIter()
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n&4095 == 1 {
			if err := interrupted(ctx); err != nil {
				return t, err
			}
		}
		if t.first == nil {
			t.first = bytes.Clone(it.Key().User)
		}
		t.last = append(t.last[:0], it.Key().User...)
	}
	if err := it.Err(); err != nil {
		t.reason = "it does not read: " + reason(err)
	}
	return t, nil
}
