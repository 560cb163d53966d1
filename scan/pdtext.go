package scan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tikv-repair/tikv-repair/engine/pd"
)

// Text is the form for people.
func (p *PD) Text() string {
	var b strings.Builder
	for i, k := range p.Members {
		if i > 0 {
			b.WriteByte('\n')
		}
		t := &pdText{b: &b, k: k}
		t.all(p)
	}
	if len(p.Members) > 1 {
		b.WriteByte('\n')
		p.compareText(&b)
	}
	for _, w := range p.Comparison.Warnings {
		line(&b, "warning", "%s", w)
	}
	return b.String()
}

func line(b *strings.Builder, name, format string, args ...any) {
	fmt.Fprintf(b, "%-16s %s\n", name, fmt.Sprintf(format, args...))
}

func (p *PD) compareText(b *strings.Builder) {
	c := p.Comparison
	line(b, "newest member", "%s: %s", c.Newest, c.Why)
	line(b, "members here", "%d of %d voting members%s", c.Given, c.Voters, map[bool]string{true: ": everything that was committed is in the newest one"}[c.Majority])
	for _, d := range c.Differences {
		line(b, "they differ in", "%s:", d.What)
		for i, v := range d.Values {
			line(b, "", "  %s: %s", c.Order[i], v)
		}
	}
	if len(c.Differences) == 0 {
		line(b, "they differ in", "nothing")
	}
}

type pdText struct {
	b *strings.Builder
	k *pd.Knowledge
}

func (t *pdText) line(name, format string, args ...any) { line(t.b, name, format, args...) }

func (t *pdText) all(p *PD) {
	k, e := t.k, p.Evidence
	t.line("directory", "%s (PD)", k.Dir)
	t.line("cluster", "%d (%s)", k.ClusterID.Value, k.ClusterID.Source)
	t.etcd()
	if k.BootstrapTime != "" {
		t.line("bootstrapped", "%s", k.BootstrapTime)
	}
	t.stores()
	t.regions()
	if w := k.TSO.Window; w != nil {
		t.line("TSO window", "ends at %s = %s: nothing above was given out (%s)", w.TS, w.Time, w.Source)
		if x := k.TSO.Exact; x == nil || x.Nanos != w.Nanos {
			t.line("", "PD 9.0 and later go by the key timestamp alone: %s", windowText(x))
		}
	} else {
		t.line("TSO window", "none was ever saved")
	}
	if k.AllocID != nil {
		t.line("bound of ids", "%d (%s)", k.AllocID.Value, k.AllocID.Source)
	}
	t.gc()
	if m := k.MinResolvedTS; m != nil {
		t.line("min-resolved-ts", "%s = %s%s (%s)", m.TS, m.Time, e.age(m.TS), m.Source)
		t.line("", "of the cluster; PD writes none of single stores to disk")
	} else {
		t.line("min-resolved-ts", "none was persisted")
	}
	if x := k.ExternalTimestamp; x != nil {
		t.line("external ts", "%s = %s (%s)", x.TS, x.Time, x.Source)
	}
	t.replication(p)
	t.rest()
}

func windowText(w *pd.Window) string {
	if w == nil {
		return "there is none"
	}
	return fmt.Sprintf("%s = %s", w.TS, w.Time)
}

func (t *pdText) etcd() {
	e := t.k.Etcd
	t.line("etcd", "%s, cluster %x, revision %d; backend %s", orUnknown(e.Line), e.ClusterID, e.Revision, e.Backend)
	tail := "nothing is uncommitted"
	if n := e.LastIndex - min(e.Commit, e.LastIndex); n > 0 {
		tail = fmt.Sprintf("%s possible: on this member, and maybe not on a majority", pluralY(n, "entr"))
	}
	t.line("log", "ends at term %d, index %d; committed up to %d, in the backend up to %d; %s", e.LastTerm, e.LastIndex, e.Commit, e.ConsistentIndex, tail)
	for _, m := range e.Members {
		var marks []string
		if m.ID == e.MemberID {
			marks = append(marks, "this directory")
		}
		if t.k.Leader != nil && t.k.Leader.ID == m.ID {
			marks = append(marks, "last known leader")
		}
		if m.Learner {
			marks = append(marks, "learner")
		}
		if i := slices.IndexFunc(t.k.Members, func(x pd.Member) bool { return x.ID == m.ID }); i >= 0 && t.k.Members[i].Priority != nil {
			marks = append(marks, fmt.Sprintf("leader priority %d", *t.k.Members[i].Priority))
		}
		t.line("member", "%s, id %d, %s: %s", m.Name, m.ID, strings.Join(m.PeerURLs, " "), orUnknown(strings.Join(marks, ", "), "-"))
	}
	for _, d := range e.Damage {
		t.line("damage", "%s", d)
	}
	for _, n := range e.Notes {
		t.line("note", "%s", n)
	}
	for _, c := range t.k.Tail {
		text := c.Key
		if c.Text != "" {
			text += " = " + c.Text
		}
		t.line("possible", "%s %s", c.Change, text)
	}
}

func (t *pdText) stores() {
	t.line("stores", "%d; a heartbeat is written at most every 5 minutes: a store that is Up here may have been dead", len(t.k.Stores))
	w := tabwriter.NewWriter(t.b, 0, 0, 2, ' ', 0)
	for _, s := range t.k.Stores {
		var labels []string
		for _, l := range s.Labels {
			labels = append(labels, l.Key+"="+l.Value)
		}
		fmt.Fprintf(w, "  store %d\t%s, %s\t%s\t%s\t%s\theartbeat %s\n", s.ID, s.State, s.NodeState, s.Address, s.Version,
			orUnknown(strings.Join(labels, ","), "no labels"), orUnknown(s.HeartbeatTime))
	}
	_ = w.Flush() // a strings.Builder cannot fail
}

func (t *pdText) regions() {
	k := t.k
	switch {
	case k.RegionMetaError != "":
		t.line("regions", "not readable: %s", k.RegionMetaError)
		return
	case k.RegionMeta == nil:
		t.line("regions", "there is no region-meta")
		return
	}
	for _, x := range k.Tilings {
		text := fmt.Sprintf("%s in region-meta (%s…)", plural(len(x.Live), "region"), x.Family)
		if n := len(x.Superseded); n > 0 {
			text += fmt.Sprintf(", %d superseded", n)
		}
		switch n := len(x.Holes); n {
		case 0:
			text += ", no hole"
		default:
			text += fmt.Sprintf(", %s", plural(n, "hole"))
		}
		t.line("regions", "%s; a cache: TiKV's own records count", text)
	}
	if len(k.Tilings) == 0 {
		t.line("regions", "region-meta is empty")
	}
}

func (t *pdText) gc() {
	g := t.k.GC
	text := "0"
	if g.SafePoint.TS != 0 {
		text = fmt.Sprintf("%s = %s (%s)", g.SafePoint.TS, g.SafePoint.Time, g.SafePoint.Source)
	}
	t.line("GC safe point", "%s%s: %s", map[bool]string{false: "not known; at least "}[g.Known], text, g.Reason)
	for _, x := range g.All {
		if x.Source.Key != g.SafePoint.Source.Key {
			t.line("", "%s = %s (%s)", x.TS, x.Time, x.Source)
		}
	}
	for _, s := range g.Services {
		t.line("service", "%s holds %s = %s, expires %s (%s)", s.ServiceID, s.TS, s.Time, s.Expires, s.Source)
	}
}

func (t *pdText) replication(p *PD) {
	d := t.k.DR
	t.line("replication", "%s", orUnknown(d.Mode, "majority"))
	if d.Mode == "dr-auto-sync" {
		s := d.Settings
		t.line("", "label %s: primary %s (%d replicas), dr %s (%d replicas)", s.LabelKey, s.Primary, s.PrimaryReplicas, s.DR, s.DRReplicas)
	}
	for _, h := range d.History {
		if h.Source.Certainty == pd.Superseded {
			t.line("", "earlier: %s (revision %d)", h.DRStatus, h.Source.Revision)
		}
	}
	for _, r := range d.Records {
		t.line("state", "%s (%s)", r.DRStatus, r.Source)
	}
	if d.Last == nil && d.Mode != "dr-auto-sync" {
		return
	}
	for i, w := range p.Recovery.Words {
		t.line(map[bool]string{true: "meaning"}[i == 0], "%s", w)
	}
	if p.Recovery.Next != "" {
		t.line("next", "%s", p.Recovery.Next)
	}
}

func (t *pdText) rest() {
	k := t.k
	t.line("rules", "%s, %s, %s of regions", plural(len(k.Rules), "placement rule"), plural(len(k.RuleGroups), "group"), plural(len(k.LabelRules), "label rule"))
	for _, r := range k.Rules {
		t.line("", "%s/%s: %d %s [%s, %s)", r.GroupID, r.ID, r.Count, r.Role, r.StartKey, orUnknown(r.EndKey, "end"))
	}
	for _, s := range k.Keyspaces {
		t.line("keyspace", "%d %s, %s", s.ID, s.Name, s.State)
	}
	t.line("schedulers", "%s", orUnknown(strings.Join(slices.Sorted(maps.Keys(k.Schedulers)), ", "), "none persisted"))
	t.line("configuration", "persisted: %s%s; it overrides the file at the next start", orUnknown(strings.Join(slices.Sorted(maps.Keys(k.Config)), ", "), "nothing"), replicas(k.Config))
	for _, m := range k.Markers {
		t.line("marker", "%s", m)
	}
	if n := len(k.Named); n > 0 {
		t.line("other keys", "%d of known purpose; --json lists them", n)
	}
	for _, u := range k.Unknown {
		t.line("unknown key", "%q, %d bytes, revision %d", u.Key, u.Bytes, u.Revision)
	}
	for _, x := range k.Bad {
		t.line("undecodable", "%s", x)
	}
	for _, w := range k.Warnings {
		t.line("warning", "%s", w)
	}
}

// replicas picks the numbers that decide how many replicas there are to be.
func replicas(config map[string]json.RawMessage) string {
	var r struct {
		Max    uint64 `json:"max-replicas"`
		Labels string `json:"location-labels"`
	}
	if json.Unmarshal(config["replication"], &r) != nil || r.Max == 0 {
		return ""
	}
	return fmt.Sprintf(" (max-replicas %d, location-labels %q)", r.Max, r.Labels)
}
