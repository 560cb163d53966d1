package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

func (a *app) cleanCmd() *cobra.Command {
	var config string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "clean DIR…",
		Short: "Set stale files aside before a restart",
		Long: `clean takes data directories of TiKV stores and of PD members, in any order.

Of a store it sets last_tikv.toml aside: the configuration that was in force at its last start. TiKV compares it with its own at each start
and refuses when directories have changed, as they have on a restored copy. For a few settings it is the only one that knows (Titan).

It prints what is lost with the file, the most dangerous first: what TiKV would not find, what keeps it from starting, what it would do otherwise,
and what differs from a known default; each with the line to write into the configuration file. With --config only what that file does not say.

Of a PD member it sets region-meta aside: the cache of region descriptors, because of which PD rejects regions whose epoch is older than what it once saw,
as after a restore or a repair. PD fills it again from heartbeats. All members must be cleaned while all are stopped. With the data directories of
the stores in the same command it says what the cache knew beyond them.

Nothing is deleted: what goes moves into the backup (tikv-repair/ in the same directory), and undo puts it back until the server has been started.`,
		Args: dirArgs(true),
		RunE: func(_ *cobra.Command, args []string) error {
			o := repair.CleanOptions{Overrides: a.scanOptions().Overrides, Config: config, DryRun: dryRun, Now: a.now(), Version: version, Say: a.say}
			if len(args) > 1 && (config != "" || a.c.overridden()) {
				return usagef("--config and the directories belong to one store: clean one store at a time with them")
			}
			o.Preview = func(r *repair.CleanResult) {
				if !a.c.quiet {
					fmt.Fprint(a.stderr, cleanPreview(r))
				}
			}
			o.Confirm = func() (bool, error) { return a.ask("Set them aside?", yes) }
			res, err := repair.Clean(a.fs, args, o)
			if res != nil && a.c.json {
				if e := a.printJSON(res); e != nil && err == nil {
					err = e
				}
			} else if res != nil && err == nil {
				err = a.print(cleanText(res))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&config, "config", "", "the configuration `file` with which TiKV is going to be started: what it says is not listed")
	f.BoolVarP(&dryRun, "dry-run", "n", false, "show what would be done")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.storeFlags(f)
	return cmd
}

// dangerTitles head the groups of settings.
var dangerTitles = map[plan.Danger]string{
	plan.DangerData:   "DANGEROUS TO LOSE: TiKV starts and does not find data that is there, or reads it wrongly",
	plan.DangerStart:  "TiKV would not start without them",
	plan.DangerChange: "TiKV would do something else without them; no data is lost",
	plan.DangerTuning: "Other values that differ from TiKV's default; any value reads this store",
}

func cleanPreview(r *repair.CleanResult) string {
	var b strings.Builder
	for _, d := range r.Dirs {
		switch d.State {
		case repair.StateUnchanged:
			continue
		case repair.StateDryRun:
			fmt.Fprintf(&b, "%s: %s is set aside\n", d.Dir, cleaned(d))
		}
		for _, n := range d.Notes {
			fmt.Fprintf(&b, "  %s\n", n)
		}
		b.WriteString(settingsText(d))
		b.WriteString(regionMetaText(d))
	}
	return b.String()
}

// cleaned is what clean takes away from a directory.
func cleaned(d *repair.CleanDir) string {
	if d.Kind == "pd" {
		return "region-meta"
	}
	return "last_tikv.toml"
}

// regionsShown bounds the regions that are named; --json has them all.
const regionsShown = 10

func regionMetaText(d *repair.CleanDir) string {
	var b strings.Builder
	if m := d.RegionMeta; m != nil {
		fmt.Fprintf(&b, "  it knows %d regions (%d superseded, %d holes); etcd knows nothing, or an older epoch, of %d of them; highest id %d\n",
			m.Regions, m.Superseded, m.Holes, m.BeyondEtcd, m.MaxID)
		for _, w := range m.Damage {
			fmt.Fprintf(&b, "  damaged: %s\n", w)
		}
		if len(m.Stores) == 0 {
			b.WriteString("  name the data directories of the TiKV stores as well to see what it knows beyond them\n")
		} else {
			b.WriteString(beyondStores(m))
		}
	}
	if len(d.OtherMembers) > 0 {
		fmt.Fprintf(&b, "  THIS PD HAS OTHER MEMBERS: %s. Each has a region-meta of its own, and one that is left brings the old regions back when it becomes\n"+
			"  the leader: stop all members, and clean every one of them before the first is started.\n", strings.Join(d.OtherMembers, ", "))
	}
	return b.String()
}

func beyondStores(m *repair.CleanRegionMeta) string {
	var b strings.Builder
	list := func(rs []repair.CleanRegion) {
		for i, r := range rs {
			if i == regionsShown {
				fmt.Fprintf(&b, "    and %d more; --json lists all\n", len(rs)-i)
				break
			}
			fmt.Fprintf(&b, "    region %d: version %d, conf_ver %d", r.Region, r.Epoch.Version, r.Epoch.ConfVer)
			if r.Stores != nil {
				fmt.Fprintf(&b, "; on the stores version %d, conf_ver %d", r.Stores.Version, r.Stores.ConfVer)
			}
			b.WriteByte('\n')
		}
	}
	ids := strings.Trim(fmt.Sprint(m.Stores), "[]")
	if len(m.Newer) == 0 && len(m.Elsewhere) == 0 {
		fmt.Fprintf(&b, "  nothing in it is newer than on stores %s (%d are older): PD would do with it, too\n", ids, m.Older)
		return b.String()
	}
	if len(m.Newer) > 0 {
		fmt.Fprintf(&b, "  %d are newer than on stores %s: PD would reject their heartbeats as stale\n", len(m.Newer), ids)
		list(m.Newer)
	}
	if len(m.Elsewhere) > 0 {
		fmt.Fprintf(&b, "  %d are on none of stores %s\n", len(m.Elsewhere), ids)
		list(m.Elsewhere)
	}
	return b.String()
}

func settingsText(d *repair.CleanDir) string {
	var b strings.Builder
	if d.Compared {
		b.WriteString("  What the configuration file says already is left out.\n")
	}
	group := plan.Danger("")
	for _, s := range d.Settings {
		if s.Danger != group {
			group = s.Danger
			fmt.Fprintf(&b, "  %s:\n", dangerTitles[group])
		}
		fmt.Fprintf(&b, "    %s = %s\n", s.Name, orEmpty(s.Value))
		if s.Source == plan.SettingInherited {
			b.WriteString("      only this file knew: TiKV takes it from here where its configuration file is silent\n")
		}
		if s.InConfig != "" {
			fmt.Fprintf(&b, "      the configuration file has another one: %s\n", s.InConfig)
		}
		fmt.Fprintf(&b, "      without it: %s", s.Without)
		if s.Why != "" {
			fmt.Fprintf(&b, "; %s", s.Why)
		}
		if s.Evidence != "" {
			fmt.Fprintf(&b, " (%s)", s.Evidence)
		}
		fmt.Fprintf(&b, "\n      to keep it: %s in %s\n", s.Line, s.Section)
	}
	return b.String()
}

func orEmpty(v string) string {
	if v == "" {
		return `""`
	}
	return v
}

func cleanText(r *repair.CleanResult) string {
	var b strings.Builder
	for _, d := range r.Dirs {
		switch d.State {
		case repair.StateUnchanged:
			fmt.Fprintf(&b, "Nothing to do in %s: there is no %s. Nothing was written.\n", d.Dir, cleaned(d))
		case repair.StateDryRun:
			fmt.Fprintf(&b, "Dry run, nothing was written: %s would be cleaned.\n", d.Dir)
		default:
			server := map[string]string{"tikv": "TiKV", "pd": "PD"}[d.Kind]
			fmt.Fprintf(&b, "Done: %s is clean; %s lies in %s\nThe way back: tikv-repair undo %s   (until %s is started)\n", d.Dir, cleaned(d), d.Backup, d.Dir, server)
		}
		if d.Kind == "pd" && d.State == repair.StateDone {
			b.WriteString("What else PD needs before TiKV is started: tikv-repair inspect --pd-steps, with the directories of PD and of all stores\n")
		}
		for _, p := range d.WrittenAgain {
			fmt.Fprintf(&b, "Written again by a start that was stopped, and set aside too: %s\n", p)
		}
	}
	return b.String()
}
