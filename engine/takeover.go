package engine

import "github.com/tikv-repair/tikv-repair/engine/base"

// TakeOverMark puts our fence in the place of whatever panic_mark_file is there, by rename: at no moment is there none. The
// caller has saved the old one.
func TakeOverMark(fs base.FS, dir, planID string) error {
	if err := checkPlanID(planID); err != nil {
		return err
	}
	tmp := fs.PathJoin(dir, fenceTemp)
	if err := base.WriteFileSync(fs, tmp, fenceText(dir, planID), ""); err != nil {
		return err
	}
	if err := base.IO("rename", tmp, fs.Rename(tmp, fs.PathJoin(dir, PanicMark))); err != nil {
		return err
	}
	return base.SyncDir(fs, dir)
}
