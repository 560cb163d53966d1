package repair

import (
	"bufio"
	"encoding/json"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
)

// planFormat is the version of plan.json in a backup.
const planFormat = 1

// ReadPlan reads a plan file, or the plan.json that apply left in a store's backup, and proves that nobody has changed it since it was made.
func ReadPlan(fs base.FS, path string) (*plan.Plan, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, base.IO("stat", path, err)
	}
	defer base.Begin(fs, "reading "+path).Reads(st.Size()).End()
	b, err := io.ReadAll(bufio.NewReader(f))
	if err != nil {
		return nil, base.IO("read", path, err)
	}
	p, err := decodePlan(b)
	if err != nil {
		return nil, &base.Error{Class: base.ErrPlanMismatch, Op: "read plan", Path: path, Offset: -1, Err: err, Next: "make the plan again with tikv-repair plan"}
	}
	return p, nil
}

func decodePlan(b []byte) (*plan.Plan, error) {
	var inBackup applyPlan
	if json.Unmarshal(b, &inBackup) == nil && inBackup.Cluster != nil {
		return inBackup.cluster()
	}
	return plan.DecodePlan(b)
}

// WritePlan writes a plan file: whole or not at all. An existing file is replaced.
func WritePlan(fs base.FS, path string, p *plan.Plan) error {
	defer base.Begin(fs, "writing "+path).End()
	b, err := p.Encode()
	if err != nil {
		return err
	}
	return base.ReplaceFile(fs, path, reportSuffix, b, "")
}
