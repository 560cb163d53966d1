package repair

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/plan"
)

// cleanVerb names the verb in journals and plans.
const cleanVerb = "clean"

// CleanOptions of Clean.
type CleanOptions struct {
	Overrides engine.Overrides
	// Config is the configuration file with which TiKV is going to be started; "" when it was not given.
	Config  string
	DryRun  bool
	Now     time.Time
	Version string
	Preview func(*CleanResult)
	Confirm func() (bool, error)
	Say     func(format string, args ...any)
}

// CleanResult is the preview and the last word of a clean.
type CleanResult struct {
	State string      `json:"state"` // the least finished of the directories
	Dirs  []*CleanDir `json:"directories"`
}

// CleanDir is what happens to one directory.
type CleanDir struct {
	Dir    string `json:"dir"`
	Kind   string `json:"kind"` // "tikv" or "pd"
	State  string `json:"state"`
	PlanID string `json:"plan_id,omitempty"`
	Backup string `json:"backup,omitempty"`
	// Settings is what is lost with last_tikv.toml; nil when the file is not there.
	Settings []plan.Setting `json:"settings,omitzero"`
	// Compared tells that the configuration file was given: settings that it has are not listed.
	Compared bool `json:"compared_with_config,omitempty"`
	// RegionMeta is what PD's cache knew; nil for a store, and when there is none.
	RegionMeta *CleanRegionMeta `json:"region_meta,omitempty"`
	// OtherMembers are the members of the PD cluster whose directories were not given: each has a region-meta of its own.
	OtherMembers []string `json:"other_members,omitempty"`
	// WrittenAgain are files that came back to their place since they were set aside, where they lie now: a start of TiKV that the
	// fence stops writes last_tikv.toml, a start of PD makes region-meta.
	WrittenAgain []string `json:"written_again,omitempty"`
	Notes        []string `json:"notes,omitempty"`
}

// cleanPlan is plan.json of a clean. Its head has the names of ResetPlan, which status reads.
type cleanPlan struct {
	Format      int              `json:"format"`
	Verb        string           `json:"verb"`
	Tool        string           `json:"tool_version"`
	PlanID      string           `json:"plan_id"`
	Fingerprint string           `json:"fingerprint"` // of the file or directory that goes
	Settings    []plan.Setting   `json:"settings,omitempty"`
	RegionMeta  *CleanRegionMeta `json:"region_meta,omitempty"`
	Written     time.Time        `json:"written"`
}

// cleaner is one directory of a clean.
type cleaner interface {
	// look plans, with what the other directories tell; nothing is written.
	look(all []cleaner) error
	// apply does what was planned, or goes on with what was interrupted.
	apply() error
	result() *CleanDir
	io.Closer
}

// Clean sets stale files aside before a restart: last_tikv.toml of a store, region-meta of a PD. All directories are locked and looked
// at before the first one is changed; each is a repair of its own, with its backup and its undo.
func Clean(fs base.FS, dirs []string, o CleanOptions) (*CleanResult, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	res := &CleanResult{State: StateUnchanged}
	var all []cleaner
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for i, dir := range dirs {
		if slices.ContainsFunc(dirs[:i], func(d string) bool { return filepath.Clean(d) == filepath.Clean(dir) }) {
			return nil, &base.Error{Class: base.ErrUsage, Op: cleanVerb, Path: dir, Offset: -1, Reason: "it is named twice"}
		}
		c, err := openCleaner(fs, dir, &o)
		if err != nil {
			return nil, stopped(fs, dir, cleanVerb, false, err)
		}
		all = append(all, c)
	}
	for i, c := range all {
		if err := c.look(all); err != nil {
			return nil, stopped(fs, dirs[i], cleanVerb, false, err)
		}
		res.Dirs = append(res.Dirs, c.result())
		if c.result().State != StateUnchanged {
			res.State = StateDryRun
		}
	}
	if o.Preview != nil {
		o.Preview(res)
	}
	if o.DryRun || res.State == StateUnchanged {
		return res, nil
	}
	if o.Confirm != nil {
		if ok, err := o.Confirm(); err != nil {
			return nil, err
		} else if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: cleanVerb, Path: strings.Join(dirs, ", "), Offset: -1, Reason: "nothing was written"}
		}
	}
	for i, c := range all {
		if c.result().State == StateUnchanged {
			continue
		}
		if err := c.apply(); err != nil {
			return res, stopped(fs, dirs[i], cleanVerb, true, err)
		}
	}
	res.State = StateDone
	return res, nil
}

func openCleaner(fs base.FS, dir string, o *CleanOptions) (cleaner, error) {
	if pd.Is(fs, dir) {
		locks, err := pd.LockExclusive(fs, dir)
		if err != nil {
			return nil, err
		}
		return &cleanPD{fs: fs, dir: dir, locks: locks, o: o, res: &CleanDir{Dir: dir, Kind: "pd", State: StateUnchanged}}, nil
	}
	l, locks, err := lockStore(fs, dir, o.Overrides)
	if err != nil {
		return nil, err
	}
	return &cleanStore{FS: fs, l: l, locks: locks, o: o, res: &CleanDir{Dir: l.Dir, Kind: "tikv", State: StateUnchanged}}, nil
}

// cleanStore takes last_tikv.toml away.
type cleanStore struct {
	FS    base.FS
	l     *engine.Layout
	locks *engine.Locks
	o     *CleanOptions
	tx    *edit.Tx // of an interrupted clean that goes on
	plan  cleanPlan
	res   *CleanDir
}

func (c *cleanStore) result() *CleanDir { return c.res }
func (c *cleanStore) Close() error      { return c.locks.Close() }

func (c *cleanStore) file() string { return c.FS.PathJoin(c.l.Dir, engine.LastConfig) }

func (c *cleanStore) look([]cleaner) error {
	if err := c.resume(); err != nil || c.tx != nil {
		return err
	}
	there, err := base.Exists(c.FS, c.file())
	if err != nil || !there {
		return err
	}
	raw, err := base.ReadFile(c.FS, c.file())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	c.plan = cleanPlan{Format: planFormat, Verb: cleanVerb, Tool: c.o.Version, Fingerprint: hex.EncodeToString(sum[:]), Written: c.o.Now}
	c.plan.PlanID = planID(cleanVerb, c.plan.Fingerprint, c.l.Dir, c.o.Now)
	if c.res.Settings, err = c.settings(raw); err != nil {
		return err
	}
	c.plan.Settings = c.res.Settings
	c.res.State = StateDryRun
	return c.earlier()
}

// resume finds an interrupted clean by the fence.
func (c *cleanStore) resume() error {
	f, err := engine.ReadFence(c.FS, c.l.Dir)
	if err != nil || f == nil || !f.Ours {
		return err
	}
	tx, err := edit.Open(c.FS, c.l.Dir, f.PlanID)
	if err != nil {
		return err
	}
	refuse := func(reason, next string) error {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "continue plan " + tx.J.PlanID, Path: c.l.Dir, Offset: -1, Reason: reason, Next: next}
	}
	switch {
	case tx.J.Verb != cleanVerb:
		return refuse(fmt.Sprintf("the store is fenced by %s, which is in state %s", tx.J.Verb, tx.J.State),
			"finish, release or undo it first: tikv-repair status "+c.l.Dir)
	case tx.J.State == edit.Undoing || tx.J.State == edit.Undone:
		return refuse("an undo of this plan was interrupted", "tikv-repair undo "+c.l.Dir)
	case c.o.DryRun:
		return refuse("this plan is half done; a preview of what is left makes no sense", "tikv-repair clean "+c.l.Dir)
	}
	if err := tx.Plan(&c.plan); err != nil {
		return err
	}
	c.tx, c.res.Settings, c.res.State = tx, c.plan.Settings, string(tx.J.State)
	c.o.Say("continuing plan %s, interrupted in state %s", tx.J.PlanID, tx.J.State)
	return nil
}

// settings compares the file with what holds without it. A file that does not parse goes all the same: TiKV does not start on it.
func (c *cleanStore) settings(raw []byte) ([]plan.Setting, error) {
	last, err := engine.Settings(c.file(), raw)
	if errors.Is(err, base.ErrCorrupt) {
		c.res.Notes = append(c.res.Notes, fmt.Sprintf("what it held is not known: %v", err))
		return []plan.Setting{}, nil
	}
	if err != nil {
		return nil, err
	}
	in := plan.SettingsInput{Last: last, Dir: c.l.Dir, RaftRocks: c.l.Raft == engine.RaftRocks, Blobs: c.l.HasTitan, Bytes: engine.ParseSize}
	if abs, err := filepath.Abs(c.l.Dir); err == nil {
		in.Dir = abs
	}
	if o := c.l.Options; o != nil {
		for _, line := range []string{"6.4", "6.29", "8.10"} {
			if strings.HasPrefix(o.RocksDBVersion+".", line+".") {
				in.Line = line
			}
		}
		if cf := o.Lookup("default"); cf != nil {
			in.Raw = rawFormat(cf.Collectors)
		}
	}
	if c.o.Config != "" {
		b, err := base.ReadFile(c.FS, c.o.Config)
		if err != nil {
			return nil, err
		}
		if in.Config, err = engine.Settings(c.o.Config, b); err != nil {
			return nil, &base.Error{Class: base.ErrUsage, Op: "read the configuration file", Offset: -1, Err: err, Next: "name the file that TiKV is started with"}
		}
		c.res.Compared = true
	}
	return append([]plan.Setting{}, plan.Settings(in)...), nil
}

// rawFormat reads the form of raw values from the property collectors of the default column family, which TiKV chooses by it
// (tikv/tikv master src/config/mod.rs DefaultCfConfig build_opt).
func rawFormat(collectors []string) plan.RawFormat {
	f := plan.RawFormatPlain
	for _, n := range collectors {
		switch n {
		case "tikv.ttl-properties-collector":
			f = plan.RawFormatTTL
		case "tikv.rawkv-mvcc-properties-collector":
			f = plan.RawFormatV2
		}
	}
	return f
}

// earlier says why the file is there although it was set aside before.
func (c *cleanStore) earlier() error {
	txs, err := edit.List(c.FS, c.l.Dir)
	if err != nil {
		return err
	}
	for i := len(txs) - 1; i >= 0; i-- {
		t := txs[i]
		if t.J.Verb != cleanVerb || t.J.State != edit.Done {
			continue
		}
		note := "plan " + t.J.PlanID + " has set it aside before; TiKV, or a start of TiKV that was stopped, has written it again since"
		if t.Check() == nil {
			note = "plan " + t.J.PlanID + " has set it aside before; it is there again although no engine has been opened since: a start of TiKV that was stopped wrote it"
		}
		c.res.Notes = append(c.res.Notes, note)
		return nil
	}
	return nil
}

func (c *cleanStore) apply() error {
	if c.tx == nil {
		if err := abandonLeftovers(c.FS, c.l.Dir); err != nil {
			return err
		}
		m := edit.Moves{Files: []string{c.file()}, Witness: []string{c.FS.PathJoin(c.l.KVDir, "CURRENT")}, Fence: true}
		if c.l.Raft == engine.RaftRocks {
			m.Witness = append(m.Witness, c.FS.PathJoin(c.l.RaftDir, "CURRENT"))
		}
		var err error
		if c.tx, err = edit.BeginMoves(c.FS, c.l.Dir, c.plan.PlanID, cleanVerb, &c.plan, m, c.o.Now); err != nil {
			return err
		}
	}
	if c.tx.J.State == edit.Staged {
		if err := c.tx.Publish(); err != nil {
			return err
		}
	}
	return c.finish()
}

// abandonLeftovers ends edits of this verb that were interrupted before their fence was up.
func abandonLeftovers(fs base.FS, dir string) error {
	txs, err := edit.List(fs, dir)
	if err != nil {
		return err
	}
	for _, t := range txs {
		if t.J.Verb == cleanVerb && !t.J.Unfenced && (t.J.State == edit.Begun || t.J.State == edit.Staged) {
			if err := t.Abandon(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish proves that the file is gone and that no engine was opened meanwhile, and takes the fence away.
func (c *cleanStore) finish() error {
	if err := c.tx.SetAgainAside(); err != nil {
		return err
	}
	if err := c.tx.Check(); err != nil {
		return err
	}
	var err error
	if c.res.WrittenAgain, err = c.tx.Again(); err != nil {
		return err
	}
	for _, p := range c.res.WrittenAgain {
		c.o.Say("a start of TiKV that the fence stopped has written %s again; that one lies in %s", engine.LastConfig, p)
	}
	c.res.State, c.res.PlanID, c.res.Backup = StateDone, c.tx.J.PlanID, c.tx.Backup()
	return c.tx.FinishKeepingMark(c.res)
}
