package pd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/engine/pd/regionmeta"
)

// Read reads a PD data directory whose PD is stopped. It holds shared locks while it reads and writes nothing. Errors: ErrNotStore
// when dir is something else, ErrInUse while PD runs, ErrCorrupt when etcd's backend is unreadable, ErrUnsupported, ErrIO. Damage of
// less than that is told in the result: Etcd.Damage, RegionMetaError, Bad, Warnings.
func Read(fs base.FS, dir string) (*Knowledge, error) {
	if err := Check(fs, dir); err != nil {
		return nil, err
	}
	locks, err := Lock(fs, dir)
	if err != nil {
		return nil, err
	}
	k, err := read(fs, dir)
	if err := errors.Join(err, locks.Close()); err != nil {
		return nil, err
	}
	return k, nil
}

// ReadLocked is Read for a caller that holds the locks.
func ReadLocked(fs base.FS, dir string) (*Knowledge, error) {
	if err := Check(fs, dir); err != nil {
		return nil, err
	}
	return read(fs, dir)
}

func read(fs base.FS, dir string) (*Knowledge, error) {
	st, err := etcd.Open(fs, fs.PathJoin(dir, memberDir), etcd.Options{Locked: true})
	if err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return &base.Error{Class: base.ErrCorrupt, Op: "read PD's keys", Path: st.Backend, Offset: -1, Err: err}
	}
	k, err := decodeView(dir, st.Certain, Certain)
	if err != nil {
		return nil, bad(err)
	}
	k.Etcd, k.state = etcdOf(st), st
	if st.Possible != st.Certain {
		p, err := decodeView(dir, st.Possible, Possible)
		if err != nil {
			return nil, bad(err)
		}
		k.Tail = tail(st.Certain, st.Possible)
		k.raise(p)
	}
	if err := k.drHistory(fs); err != nil {
		return nil, err
	}
	file, warning, err := readDRState(fs, dir)
	if err != nil {
		return nil, err
	}
	if file != nil {
		k.DR.add(*file)
	}
	if warning != "" {
		k.warn("%s", warning)
	}
	k.regionMeta(fs)
	k.safePoint()
	k.notice(fs)
	return k, nil
}

func etcdOf(s *etcd.State) Etcd {
	e := Etcd{Line: s.ClusterVersion, Backend: s.Backend, Snapshot: s.Snapshot, MemberID: s.MemberID, ClusterID: s.ClusterID, ConsistentIndex: s.ConsistentIndex,
		HardCommit: s.HardState.Commit, Commit: s.Commit, LastIndex: s.LastIndex, LastTerm: s.LastTerm, Revision: s.Certain.Revision,
		Members: []EtcdMember{}, Damage: []string{}, Notes: append([]string{}, s.Notes...)}
	for _, m := range s.Certain.Members {
		e.Members = append(e.Members, EtcdMember{m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.Learner})
	}
	for _, d := range s.Damage {
		e.Damage = append(e.Damage, d.Error())
	}
	return e
}

func (k *Knowledge) warn(format string, args ...any) {
	k.Warnings = append(k.Warnings, fmt.Sprintf(format, args...))
}

// raise takes from the uncommitted tail what only grows and must never be too low: the TSO windows, the bound of ids, the safe points. A
// possible replication state is a record of its own: the highest state_id counts.
func (k *Knowledge) raise(p *Knowledge) {
	higher := func(mine **Window, its *Window) {
		if its != nil && (*mine == nil || its.Nanos > (*mine).Nanos) {
			*mine = its
		}
	}
	higher(&k.TSO.Window, p.TSO.Window)
	higher(&k.TSO.Exact, p.TSO.Exact)
	for _, w := range p.TSO.All {
		if !slices.ContainsFunc(k.TSO.All, func(x Window) bool { return x.Source.Revision == w.Source.Revision && x.Source.Key == w.Source.Key }) {
			k.TSO.All = append(k.TSO.All, w)
		}
	}
	if p.AllocID != nil && (k.AllocID == nil || p.AllocID.Value > k.AllocID.Value) {
		k.AllocID = p.AllocID
	}
	for _, t := range p.GC.All {
		if !slices.ContainsFunc(k.GC.All, func(x Timestamp) bool { return x.Source.Key == t.Source.Key && x.TS >= t.TS }) {
			k.GC.All = append(k.GC.All, t)
		}
	}
	slices.SortStableFunc(k.GC.All, func(a, b Timestamp) int { return cmp.Compare(b.TS, a.TS) })
	for _, r := range p.DR.Records {
		if !slices.ContainsFunc(k.DR.Records, func(x DRRecord) bool { return x.Source.Revision == r.Source.Revision }) {
			k.DR.add(r)
		}
	}
	for i, c := range k.Tail {
		k.Tail[i].Text = p.describe(c.Key)
	}
}

// describe says in words what a key of the tail would become, where that matters to an operator.
func (k *Knowledge) describe(key string) string {
	stamps := append([]Timestamp{}, k.GC.All...)
	for _, t := range []*Timestamp{k.MinResolvedTS, k.ExternalTimestamp} {
		if t != nil {
			stamps = append(stamps, *t)
		}
	}
	for _, w := range k.TSO.All {
		stamps = append(stamps, w.Timestamp)
	}
	for _, t := range stamps {
		if t.Source.Key == key {
			return fmt.Sprintf("%s = %s", t.TS, t.Time)
		}
	}
	if k.AllocID != nil && k.AllocID.Source.Key == key {
		return fmt.Sprint(k.AllocID.Value)
	}
	for _, r := range k.DR.Records {
		if r.Source.Key == key {
			return r.DRStatus.String()
		}
	}
	for _, s := range k.Stores {
		if s.Source.Key == key {
			return fmt.Sprintf("store %d, %s, %s", s.ID, s.Address, s.State)
		}
	}
	return ""
}

// regionMeta reads the cache of descriptors; nothing of it keeps the rest from being used.
func (k *Knowledge) regionMeta(fs base.FS) {
	m, err := regionmeta.Read(fs, k.Dir)
	if err != nil {
		k.RegionMetaError = err.Error()
		return
	}
	k.RegionMeta = m
	if m == nil {
		return
	}
	for _, f := range m.Families() {
		k.Tilings = append(k.Tilings, m.Tile(f))
	}
	for _, d := range m.Damage {
		k.warn("region-meta: %s", d)
	}
	for _, u := range m.Unknown {
		k.warn("region-meta: unknown key %s", u)
	}
}

// safePoint decides up to where versions may be gone. No key means that GC never ran, but only in a PD that has always been there and
// whose log is whole.
func (k *Knowledge) safePoint() {
	g := &k.GC
	if len(g.All) > 0 {
		g.SafePoint = g.All[0]
	} else {
		g.SafePoint = stamp(0, Source{Dir: k.Dir, Key: fmt.Sprintf("/pd/%d/gc/safe_point", k.ClusterID.Value), Certainty: Absent})
	}
	switch {
	case len(k.Etcd.Damage) > 0:
		g.Reason = "etcd's files are damaged: a newer safe point may be lost"
	case slices.ContainsFunc(k.Bad, func(s string) bool { return strings.Contains(s, "safe") && strings.Contains(s, "point") }):
		g.Reason = "a safe point does not decode"
	case len(g.All) > 0:
		g.Known, g.Reason = true, "the highest of all safe points"
	case k.Recovered != "":
		g.Reason = "there is none, but this PD was made by pd-recover (" + k.Recovered + "), which does not bring safe points back"
	case !k.Bootstrapped:
		g.Reason = "there is none, and this PD was never bootstrapped"
	default:
		g.Known, g.Reason = true, "no safe point was ever written: GC has not run in this cluster"
	}
}

// notice collects what an operator has to know (section 12.4).
func (k *Knowledge) notice(fs base.FS) {
	if k.ClusterID.Value == 0 {
		k.warn("there is no %s: this PD never started up completely", clusterIDKey)
	}
	if k.Recovered != "" {
		k.warn("pd-recover made this PD: %s; what was lost with the old one (safe points, rules, configuration) is not here", k.Recovered)
	}
	if k.Bootstrapped && k.BootstrapTime == "" {
		k.warn("the bootstrap time is missing, as after pd-recover -from-old-member: stores that have not registered again are missing too")
	}
	for _, m := range k.Markers {
		k.warn("marker %s is set", m)
	}
	if m := k.RegionMeta; m != nil && len(m.Families()) > 1 {
		k.warn("region-meta holds keys of PD up to 8.5 and of later ones; only those of the running version count")
	}
	if there, err := base.Exists(fs, fs.PathJoin(k.Dir, joinFile)); err == nil && there {
		k.warn("there is a file join: if member/ is ever removed, remove it too")
	}
	if hc, ci := k.Etcd.HardCommit, k.Etcd.ConsistentIndex; hc != 0 && hc < ci && len(k.Etcd.Members) > 1 {
		k.warn("hard state commit %d is below consistent index %d: prefer a restore from the backend to pd-server --force-new-cluster", hc, ci)
	}
}
