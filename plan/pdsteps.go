package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// IDMargin is added to the largest id that was ever seen: ids that PD gave out and that only lost stores have seen lie above it. pd-recover
// -from-old-member adds the same (tikv/pd release-8.5 tools/pd-recover/main.go).
const IDMargin = 100_000_000

// IDFound is an id with where it was found.
type IDFound struct {
	Value uint64 `json:"value"`
	Where string `json:"where"`
}

// TSFound is a timestamp with where it was found.
type TSFound struct {
	Value mvcc.TS `json:"value"`
	Where string  `json:"where"`
}

// PDStepsInput is what a stopped cluster tells about what PD will need.
type PDStepsInput struct {
	// PD is nil when no directory of PD is left.
	PD     *PDLeft     `json:"pd,omitempty"`
	Stores []StoreLeft `json:"stores"`
}

// StoreLeft is a store that is left.
type StoreLeft struct {
	Dir       string  `json:"dir"`
	ClusterID uint64  `json:"cluster_id"`
	StoreID   uint64  `json:"store_id"`
	MaxID     IDFound `json:"max_id"` // of stores, regions and peers, in records and in the raft log
	MaxTS     TSFound `json:"max_ts"` // ever written, or removed by a repair
}

// PDLeft is what is left of PD: what the directories of its members say together.
type PDLeft struct {
	ClusterID uint64 `json:"cluster_id"`
	// Newest is the member whose log is the newest, and why.
	Newest PDMember `json:"newest"`
	Why    string   `json:"why"`
	// Given of Voters have a directory; Lost are the others.
	Given  int      `json:"given"`
	Voters int      `json:"voters"`
	Lost   []string `json:"lost"`
	// Etcd34 tells an etcd of PD up to 8.1, whose tool is etcdctl.
	Etcd34 bool `json:"etcd_3_4,omitempty"`

	Backend         string `json:"backend"` // the bbolt file that counts
	HardCommit      uint64 `json:"hard_state_commit"`
	ConsistentIndex uint64 `json:"consistent_index"`
	Commit          uint64 `json:"commit"`
	LastIndex       uint64 `json:"last_index"`
	// Tail are the keys that entries above Commit change; Damaged says what of the log cannot be read.
	Tail    []string `json:"tail,omitempty"`
	Damaged string   `json:"damaged,omitempty"`

	// AllocID is the end of the last block of ids, Window the end of the TSO window; Possible: only the tail has this value.
	AllocID        IDFound `json:"alloc_id"`
	AllocPossible  bool    `json:"alloc_id_possible,omitempty"`
	Window         TSFound `json:"tso_window"`
	WindowPossible bool    `json:"tso_window_possible,omitempty"`
	MaxID          IDFound `json:"max_id"` // that PD's own records name

	Stores     []PDStoreLeft `json:"stores"`
	Limits     []PDLimit     `json:"limits"` // of the persisted configuration
	Schedulers []string      `json:"schedulers"`
	Markers    []string      `json:"markers,omitempty"`
	HasMeta    bool          `json:"has_region_meta"`
	Dirs       []string      `json:"dirs"`
}

// PDMember is a member of PD.
type PDMember struct {
	Name       string   `json:"name"`
	Dir        string   `json:"dir"`
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls"`
}

// PDStoreLeft is a store as PD knows it.
type PDStoreLeft struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	State   string `json:"state"` // Up, Offline, Tombstone
}

// PDLimit is a limit of PD's schedulers and its value in the persisted configuration.
type PDLimit struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// PDRoute is the way in which PD gets a majority again.
type PDRoute string

// The routes.
const (
	PDRouteStart    PDRoute = "start"             // a majority of members is here
	PDRouteForce    PDRoute = "force-new-cluster" // the newest member goes on alone
	PDRouteSnapshot PDRoute = "snapshot"          // a new member is made of the newest one's backend
	PDRouteRecover  PDRoute = "pd-recover"        // a new PD
)

// PDNumber is one number of the steps and its source.
type PDNumber struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Time   string `json:"time,omitempty"`
	Source string `json:"source"`
}

// PDStep is one step: what, why, and what to type.
type PDStep struct {
	What     string   `json:"what"`
	Why      string   `json:"why,omitempty"`
	Commands []string `json:"commands,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// PDSteps is what PD needs before TiKV is started, in this order. The tool prints it and does none of it.
type PDSteps struct {
	Route   PDRoute    `json:"route"`
	Numbers []PDNumber `json:"numbers"`
	Steps   []PDStep   `json:"steps"`
}

// StepsForPD computes what PD needs (docs/formats/pd-data.md sections 11 and 12). The input must belong to one cluster.
func StepsForPD(in PDStepsInput) PDSteps {
	s := &pdSteps{in: in, pd: in.PD}
	s.route()
	s.floors()
	s.restore()
	s.meta()
	s.ids()
	s.tso()
	s.schedulers()
	s.lostStores()
	s.add(PDStep{What: "Start the TiKV stores, all of them", Why: "PD must be as above before the first one registers"})
	return s.out
}

type pdSteps struct {
	in    PDStepsInput
	pd    *PDLeft
	out   PDSteps
	maxID IDFound
	maxTS TSFound
	newID uint64 // that the steps give
}

func (s *pdSteps) add(p PDStep) { s.out.Steps = append(s.out.Steps, p) }

func (s *pdSteps) number(name, value, time, source string) {
	s.out.Numbers = append(s.out.Numbers, PDNumber{name, value, time, source})
}

func timeText(ts mvcc.TS) string { return ts.Time().Format("2006-01-02T15:04:05.000Z07:00") }

func (s *pdSteps) route() {
	p := s.pd
	switch {
	case p == nil:
		s.out.Route = PDRouteRecover
	case p.Given > p.Voters/2:
		s.out.Route = PDRouteStart
	case p.HardCommit < p.ConsistentIndex || p.Damaged != "":
		s.out.Route = PDRouteSnapshot
	default:
		s.out.Route = PDRouteForce
	}
}

// floors finds the largest id and timestamp, and lists the numbers.
func (s *pdSteps) floors() {
	ids := []IDFound{}
	var tss []TSFound
	for _, st := range s.in.Stores {
		ids, tss = append(ids, st.MaxID), append(tss, st.MaxTS)
		s.number(fmt.Sprintf("largest id on store %d", st.StoreID), fmt.Sprint(st.MaxID.Value), "", st.MaxID.Where)
		if st.MaxTS.Value > 0 { // a store may hold no row
			s.number(fmt.Sprintf("largest timestamp on store %d", st.StoreID), st.MaxTS.Value.String(), timeText(st.MaxTS.Value), st.MaxTS.Where)
		}
	}
	if p := s.pd; p != nil {
		ids, tss = append(ids, p.MaxID, p.AllocID), append(tss, p.Window)
		s.number("cluster id", fmt.Sprint(p.ClusterID), "", "/pd/cluster_id in "+p.Newest.Dir)
		s.number("largest id in PD's records", fmt.Sprint(p.MaxID.Value), "", p.MaxID.Where)
		s.number("end of PD's block of ids", fmt.Sprint(p.AllocID.Value), "", possibly(p.AllocID.Where, p.AllocPossible))
		s.number("end of PD's TSO window", p.Window.Value.String(), timeText(p.Window.Value), possibly(p.Window.Where, p.WindowPossible))
	} else if len(s.in.Stores) > 0 {
		s.number("cluster id", fmt.Sprint(s.in.Stores[0].ClusterID), "", "the identity of store "+fmt.Sprint(s.in.Stores[0].StoreID)+" in "+s.in.Stores[0].Dir)
	}
	if len(ids) > 0 {
		s.maxID = slices.MaxFunc(ids, func(a, b IDFound) int { return cmp.Compare(a.Value, b.Value) })
		s.maxTS = slices.MaxFunc(tss, func(a, b TSFound) int { return cmp.Compare(a.Value, b.Value) })
	}
	s.newID = s.maxID.Value + IDMargin
}

// minority tells that PD goes on from less than a majority: what the lost members had committed after the newest log that is left may be
// missing, blocks of ids and TSO windows among it.
func (s *pdSteps) minority() bool {
	return s.out.Route == PDRouteForce || s.out.Route == PDRouteSnapshot
}

func possibly(where string, possible bool) string {
	if possible {
		return where + ", in an entry that may not be committed"
	}
	return where
}

// url is where the new PD can be asked.
func (s *pdSteps) url() string {
	if s.pd != nil && len(s.pd.Newest.ClientURLs) > 0 {
		return s.pd.Newest.ClientURLs[0]
	}
	return "http://127.0.0.1:2379"
}

func (s *pdSteps) restore() {
	p := s.pd
	switch s.out.Route {
	case PDRouteStart:
		step := PDStep{What: fmt.Sprintf("Start PD's members as always, and none of the TiKV stores yet: %s", strings.Join(p.Dirs, ", ")),
			Why: fmt.Sprintf("%d of %d voting members are here, a majority: nothing that PD acknowledged is missing", p.Given, p.Voters)}
		if p.Damaged != "" {
			step.Warnings = append(step.Warnings, p.Newest.Dir+" is damaged: "+p.Damaged+"; etcd will not start on it, unless the others are a majority without it")
		}
		s.add(step)
	case PDRouteForce:
		s.add(PDStep{What: "Copy the directory of the newest member", Why: "nothing takes --force-new-cluster back", Commands: []string{copyOf(p.Newest.Dir)}})
		s.add(PDStep{What: fmt.Sprintf("Start the newest member, %s, once, with its usual command line and --force-new-cluster; then stop it, and start it without", orDir(p.Newest)),
			Why:      s.whyNewest() + fmt.Sprintf("; hard state commit %d is not below consistent index %d, so that no entry that is applied is dropped", p.HardCommit, p.ConsistentIndex),
			Commands: []string{"pd-server --force-new-cluster " + memberFlags(p.Newest, p.Newest.Dir), "pd-server " + memberFlags(p.Newest, p.Newest.Dir)},
			Warnings: append(s.tailWarning(), s.othersWarning()...)})
	case PDRouteSnapshot:
		dir := strings.TrimSuffix(p.Newest.Dir, "/") + ".restored"
		tool := "etcdutl snapshot restore"
		if p.Etcd34 {
			tool = "ETCDCTL_API=3 etcdctl snapshot restore"
		}
		why := s.whyNewest()
		if p.Damaged != "" {
			why += "; its log is damaged (" + p.Damaged + "), the backend is whole by itself"
		} else {
			why += fmt.Sprintf("; not --force-new-cluster: hard state commit %d is below consistent index %d, so that etcd would drop entries that are applied and skip the ones that get their numbers",
				p.HardCommit, p.ConsistentIndex)
		}
		peer := first(p.Newest.PeerURLs, "http://127.0.0.1:2380")
		name := cmp.Or(p.Newest.Name, "pd")
		s.add(PDStep{What: "Make a new member of the backend of " + orDir(p.Newest) + "; start it with its usual command line and the new data-dir", Why: why,
			Commands: []string{fmt.Sprintf("%s %s --skip-hash-check --name %s --initial-cluster %s=%s --initial-advertise-peer-urls %s --data-dir %s",
				tool, quote(p.Backend), quote(name), quote(name), quote(peer), quote(peer), quote(dir)), "pd-server " + memberFlags(p.Newest, dir)},
			Warnings: append(append([]string{"use the etcd tool of the etcd version in PD; the new directory must not be there before"}, s.tailWarning()...), s.othersWarning()...)})
	case PDRouteRecover:
		cluster := uint64(0)
		if len(s.in.Stores) > 0 {
			cluster = s.in.Stores[0].ClusterID
		}
		s.add(PDStep{What: "Start a new PD on an empty directory, with the name and URLs of an old one", Why: "no directory of a PD member was given; if one is left anywhere, name it instead"})
		s.add(PDStep{What: "Give it the cluster's id, and ids above all that were ever given out; then start it anew",
			Why:      fmt.Sprintf("the largest id that is known is %d (%s), and %d more may have been given out", s.maxID.Value, s.maxID.Where, IDMargin),
			Commands: []string{fmt.Sprintf("pd-recover -endpoints %s -cluster-id %d -alloc-id %d", s.url(), cluster, s.newID)},
			Warnings: []string{"a new PD knows no configuration, placement rules, labels, keyspaces, GC and service safe points, resource groups, replication mode: set them before TiKV is started"}})
	}
}

func (s *pdSteps) whyNewest() string { return "it is the newest: " + s.pd.Why }

func (s *pdSteps) tailWarning() []string {
	p := s.pd
	if p.LastIndex <= p.Commit && p.Commit <= p.ConsistentIndex {
		return nil
	}
	from := p.Commit
	if s.out.Route == PDRouteSnapshot {
		from = p.ConsistentIndex // the backend alone
	}
	if p.LastIndex <= from {
		return nil
	}
	w := fmt.Sprintf("entries %d to %d are lost, although PD may have acknowledged them", from+1, p.LastIndex)
	if len(p.Tail) > 0 {
		w += "; they change " + strings.Join(p.Tail, ", ")
	}
	return []string{w}
}

func (s *pdSteps) othersWarning() []string {
	if len(s.pd.Lost) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s must never come back with their old directories: they would be a second cluster; wipe them, then let them join (pd-server --join=%s)", strings.Join(s.pd.Lost, ", "), s.url())}
}

func (s *pdSteps) meta() {
	p := s.pd
	if p == nil || s.out.Route == PDRouteSnapshot {
		return // a new directory has none
	}
	if p.HasMeta {
		quoted := make([]string, len(p.Dirs))
		for i, d := range p.Dirs {
			quoted[i] = quote(d)
		}
		clean := PDStep{What: "Set region-meta of every member aside while all are stopped", Why: "PD would reject regions whose epoch is older than what it once saw",
			Commands: []string{"tikv-repair clean " + strings.Join(quoted, " ")}}
		s.out.Steps = append([]PDStep{clean}, s.out.Steps...)
	}
}

// ids makes sure that PD gives out no id twice.
func (s *pdSteps) ids() {
	p := s.pd
	if p == nil {
		return
	}
	seen := p.MaxID
	for _, st := range s.in.Stores {
		if st.MaxID.Value > seen.Value {
			seen = st.MaxID
		}
	}
	var alone []string
	if len(s.in.Stores) == 0 {
		alone = []string{"no store was given: what they have seen is not looked at"}
	}
	if p.AllocID.Value > seen.Value && !s.minority() {
		s.add(PDStep{What: "Ids: nothing to do", Warnings: alone, Why: fmt.Sprintf("PD goes on at %d, above the largest id that is known, %d (%s)", p.AllocID.Value, seen.Value, seen.Where)})
		return
	}
	why := fmt.Sprintf("PD would go on at %d (%s), and the largest id that is known is %d (%s): ids given out twice corrupt data", p.AllocID.Value, p.AllocID.Where, seen.Value, seen.Where)
	if p.AllocID.Value > seen.Value {
		why = fmt.Sprintf("PD would go on at %d; the members that are lost may have given out more, and ids given out twice corrupt data", p.AllocID.Value)
	}
	var raw strings.Builder
	for i := 56; i >= 0; i -= 8 {
		fmt.Fprintf(&raw, `\%03o`, byte(s.newID>>i)) // octal: every shell's printf knows it
	}
	s.add(PDStep{What: fmt.Sprintf("Raise the ids that PD gives out to %d, then start PD anew", s.newID), Why: why,
		Commands: []string{fmt.Sprintf("printf '%s' | etcdctl --endpoints %s put /pd/%d/alloc_id", raw.String(), s.url(), p.ClusterID)},
		Warnings: append(alone, "not with pd-recover: -from-old-member deletes all stores, their labels and their states")})
}

// tso makes sure that no timestamp is given out twice.
func (s *pdSteps) tso() {
	if s.maxTS.Value == 0 {
		return
	}
	p := s.pd
	if p != nil && p.Window.Value >= s.maxTS.Value && !s.minority() {
		s.add(PDStep{What: "Timestamps: nothing to do", Why: fmt.Sprintf("PD goes on above the end of its window, %s (%s), and nothing that is known is later", p.Window.Value, timeText(p.Window.Value))})
		return
	}
	floor := mvcc.TS(s.maxTS.Value.Physical()+1000) << 18
	s.number("floor for timestamps", floor.String(), timeText(floor), "one second above "+s.maxTS.Value.String()+" ("+s.maxTS.Where+")")
	s.add(PDStep{What: fmt.Sprintf("Timestamps: the clock of PD's machine must be later than %s; otherwise raise PD's timestamps", timeText(floor)),
		Why:      s.whyClock(),
		Commands: []string{"date -u", fmt.Sprintf(`curl -X POST %s/pd/api/v1/admin/reset-ts -d '{"tso": "%d"}'`, s.url(), uint64(floor))},
		Warnings: []string{"PD refuses to go back, and to jump by max-gap-reset-ts (24h) or more: then the clock is wrong"}})
}

func (s *pdSteps) whyClock() string {
	why := fmt.Sprintf("PD goes on from its clock, and timestamps up to %s may have been given out (%s): timestamps that go back corrupt snapshots", s.maxTS.Value, s.maxTS.Where)
	if s.minority() || s.pd == nil {
		why += "; a lost member may have given out later ones, up to the time of its own clock when it stopped"
	}
	return why
}

// stopLimits are set to 0 until the cluster is healthy.
var stopLimits = []string{"leader-schedule-limit", "region-schedule-limit", "replica-schedule-limit", "merge-schedule-limit", "hot-region-schedule-limit"}

func (s *pdSteps) schedulers() {
	step := PDStep{What: "Stop PD's schedulers until the cluster is healthy", Why: "PD must not move, merge or remove peers before every region has a leader"}
	var back []string
	for _, name := range stopLimits {
		step.Commands = append(step.Commands, fmt.Sprintf("pd-ctl -u %s config set %s 0", s.url(), name))
		if s.pd == nil {
			continue
		}
		for _, l := range s.pd.Limits {
			if l.Name == name && l.Value != "0" {
				back = append(back, fmt.Sprintf("pd-ctl -u %s config set %s %s", s.url(), name, l.Value))
			}
		}
	}
	s.add(step)
	if s.pd != nil && len(s.pd.Schedulers) > 0 {
		s.out.Steps[len(s.out.Steps)-1].Why += "; its schedulers: " + strings.Join(s.pd.Schedulers, ", ")
	}
	if len(back) > 0 {
		s.out.Steps[len(s.out.Steps)-1].Warnings = []string{"when all is well, back to what they were: " + strings.Join(back, "; ")}
	}
}

func (s *pdSteps) lostStores() {
	if s.pd == nil {
		return
	}
	for _, m := range s.pd.Markers {
		if m == "snapshot-recovering" {
			s.add(PDStep{What: "Delete the marker snapshot-recovering, unless you mean it", Why: "TiKV starts in snapshot-recovery mode while it is there",
				Commands: []string{fmt.Sprintf("etcdctl --endpoints %s del /pd/%d/cluster/markers/snapshot-recovering", s.url(), s.pd.ClusterID)}})
		}
	}
	here := map[uint64]bool{}
	for _, st := range s.in.Stores {
		here[st.StoreID] = true
	}
	step := PDStep{}
	var names []string
	for _, st := range s.pd.Stores {
		if here[st.ID] || st.State == "Tombstone" {
			continue
		}
		names = append(names, fmt.Sprintf("%d (%s, %s)", st.ID, st.Address, st.State))
		// force marks it as physically destroyed: without, PD does not go below max-replicas.
		step.Commands = append(step.Commands, fmt.Sprintf("curl -X DELETE '%s/pd/api/v1/store/%d?force'", s.url(), st.ID))
	}
	switch {
	case len(s.in.Stores) == 0 || len(names) == 0:
		return
	}
	step.What = "Stores that PD counts on and whose directories were not given: " + strings.Join(names, ", ")
	step.Why = "mark those that are lost for good as destroyed; PD makes them tombstones by itself once no region has a peer there"
	step.Warnings = []string{"a store that is only not on this machine is none of them"}
	s.add(step)
}

func orDir(m PDMember) string {
	if m.Name == "" {
		return m.Dir
	}
	return m.Name + " (" + m.Dir + ")"
}

func copyOf(dir string) string {
	dir = strings.TrimSuffix(dir, "/")
	return "cp -a " + quote(dir) + " " + quote(dir+".before")
}

func memberFlags(m PDMember, dir string) string {
	out := ""
	if m.Name != "" {
		out = "--name=" + quote(m.Name) + " "
	}
	out += "--data-dir=" + quote(dir)
	if len(m.PeerURLs) > 0 {
		out += " --peer-urls=" + quote(strings.Join(m.PeerURLs, ","))
	}
	if len(m.ClientURLs) > 0 {
		out += " --client-urls=" + quote(strings.Join(m.ClientURLs, ","))
	}
	return out
}

func first(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}

// quote makes an argument safe to paste.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
