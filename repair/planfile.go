package repair

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
)

// ReadPlan reads a plan file and proves that nobody has changed it since it was written.
func ReadPlan(fs base.FS, path string) (*plan.Plan, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(bufio.NewReader(f))
	if err != nil {
		return nil, base.IO("read", path, err)
	}
	refuse := func(reason string, err error) error {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "read plan", Path: path, Offset: -1, Reason: reason, Err: err, Next: "make the plan again with tikv-repair plan"}
	}
	var head struct {
		Format int    `json:"format"`
		Tool   string `json:"tool"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, refuse("it is not a plan", err)
	}
	if head.Format != plan.PlanFormat {
		return nil, refuse(fmt.Sprintf("its format is %d, made by version %s; this version reads %d", head.Format, head.Tool, plan.PlanFormat), nil)
	}
	p := new(plan.Plan)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, refuse("it does not decode", err)
	}
	if err := plan.CheckSeal(b); err != nil {
		return nil, refuse("it was changed after it had been made", err)
	}
	return p, nil
}

// WritePlan writes a plan file: indented JSON, whole or not at all. An existing file is replaced.
func WritePlan(fs base.FS, path string, p *plan.Plan) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + reportSuffix
	if err := base.WriteFileSync(fs, tmp, append(b, '\n'), ""); err != nil {
		return err
	}
	if err := fs.Rename(tmp, path); err != nil {
		return base.IO("rename", tmp, err)
	}
	return base.SyncDir(fs, fs.PathDir(path))
}
