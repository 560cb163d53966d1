package repair

import (
	"context"
	"errors"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/scan"
)

// stageVersion stages the MANIFEST and CURRENT of a draft whose tables are staged, after reading those back, and saves what the new
// version does not refer to any more.
func stageVersion(ctx context.Context, w *Rewinder, tx *edit.Tx, d *Draft) error {
	s, db := w.store, w.store.DB
	number := d.Change.NextNumber
	d.Change.NextNumber++
	after, records, err := db.Draft(d.Change, number)
	if err != nil {
		return err
	}
	began := time.Now()
	defer base.Begin(s.FS, "reading back what was written").End()
	if err := w.checkStaged(ctx, after, d); err != nil {
		return err
	}
	d.Verifying += time.Since(began)
	final := s.FS.PathJoin(db.Dir, manifest.ManifestName(number))
	if err := manifest.Write(s.FS, final+edit.StagedSuffix, records, db.State.Path); err != nil {
		return err
	}
	if err := tx.Add(final, db.State.Path); err != nil {
		return err
	}
	current := s.FS.PathJoin(db.Dir, "CURRENT")
	if err := tx.Replace(current, []byte(manifest.ManifestName(number)+"\n")); err != nil {
		return err
	}
	save := []string{current, db.State.Path}
	for _, del := range d.Change.Delete {
		save = append(save, db.TablePath(del.Number))
	}
	for _, l := range db.Log.Logs {
		save = append(save, l.Path)
	}
	ph := base.Begin(s.FS, "saving what is replaced").Items(len(save), "files")
	defer ph.End()
	for _, p := range save {
		if err := ph.Did(1); err != nil {
			return err
		}
		if err := tx.Save(p); err != nil {
			return err
		}
	}
	return nil
}

// stagedDigest reads the staged raft store back: the digest of what it holds. Without an edit it is that of the store as it is.
func stagedDigest(s *scan.Store, e raftlog.Edit) (string, error) {
	defer base.Begin(s.FS, "summing the raft store up").End()
	if e.Empty() {
		return raftlog.Digest(s.Raft)
	}
	staged, err := e.Staged(edit.StagedSuffix)
	if err != nil {
		return "", err
	}
	sum, err := raftlog.Digest(staged)
	return sum, errors.Join(err, staged.Close())
}

// provePublished reopens a store whose edit is published, and proves that it holds what was staged: between the publishing and a rerun
// anything may have happened. e is nil after a resume.
func provePublished(s *scan.Store, tx *edit.Tx, e raftlog.Edit) error {
	if err := tx.Check(); err != nil {
		return err
	}
	if e != nil && !e.Empty() {
		now, err := e.Published()
		if err != nil {
			return err
		}
		if err := now.Close(); err != nil {
			return err
		}
	}
	if err := s.Reopen(); err != nil {
		return err
	}
	sum, err := raftlog.Digest(s.Raft)
	if err != nil {
		return err
	}
	if sum != tx.J.Proof && tx.J.Proof != "" { // older versions kept none
		return unproven(s, "the raft store does not hold what was staged")
	}
	return nil
}

func unproven(s *scan.Store, reason string) error {
	return &base.Error{Class: base.ErrPartial, Op: "verify", Path: s.Layout.Dir, Offset: -1, Reason: reason + "; the fence stays", Next: "tikv-repair undo " + s.Layout.Dir}
}
