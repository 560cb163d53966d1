package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

type collectOptions struct {
	out, toTS, safePoint, answer string
	pd                           []string
}

func (a *app) collectCmd() *cobra.Command {
	var o collectOptions
	cmd := &cobra.Command{
		Use:   "collect [DIR…] -o FILE",
		Short: "Write the report of stopped stores, for plan",
		Long: `collect reads the region states, raft states and raft logs of one or more stopped stores and writes what plan needs to know into FILE:
one line a region, compressed. Nothing is written to the stores. Run it on every store that survived, and give all files to plan.

With --to-ts T the locks that may belong to transactions committed at or before T go into the report too: say it when the stores are to be
rewound to T. With --pd T may be min-resolved-ts.

--pd adds what the stopped PD knew: its stores and regions with their epochs, the bound of ids and timestamps, the GC safe point, min-resolved-ts and
the state of DR Auto-Sync. One report of PD is enough for a plan; without any DIR the report is of PD alone.

--answer PLAN answers the questions of a plan that could not decide everything from the reports: what a transaction did at a key, or log entries
that another store lacks. Give the answers to plan together with the reports.`,
		Example: `  tikv-repair collect /data/tikv -o store1.report
  tikv-repair collect --to-ts 2026-02-03T04:05:06+01:00 /data/tikv -o store1.report
  tikv-repair collect --pd /data/pd -o pd.report
  tikv-repair collect --answer plan.json /data/tikv -o store1.answers`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(o.pd) > 0 {
				return nil
			}
			return dirArgs(true)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.collect(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.out, "output", "o", "", "write the report to this `file`")
	f.StringVar(&o.toTS, "to-ts", "", "the timestamp `T` that the stores are to be rewound to")
	f.StringVar(&o.safePoint, "safe-point", "", "the GC safe `point`, as PD knew it last")
	f.StringArrayVar(&o.pd, "pd", nil, "add what PD knew: PD's data `directory`; repeat for more members of the same PD")
	f.StringVar(&o.answer, "answer", "", "answer the questions of this `plan`")
	a.storeFlags(f)
	return cmd
}

// collectedPD is the JSON form of what was taken from PD.
type collectedPD struct {
	Dirs      []string `json:"dirs"`
	ClusterID uint64   `json:"cluster_id"`
	Stores    int      `json:"stores"`
	Regions   int      `json:"regions"`
}

// collectedStore is the JSON form of one line of the result.
type collectedStore struct {
	Dir     string `json:"dir"`
	StoreID uint64 `json:"store_id"`
	Regions int    `json:"regions"`
}

func (a *app) collect(cmd *cobra.Command, dirs []string, o *collectOptions) error {
	switch {
	case o.out == "":
		return usagef("-o is missing: which file is the report to be written to?")
	case len(dirs) > 1 && a.c.overridden():
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(dirs))
	case o.answer != "" && o.toTS+o.safePoint != "":
		return usagef("--answer takes everything from the plan: leave --to-ts and --safe-point out")
	case o.answer != "" && len(o.pd) > 0:
		return usagef("--answer is about stores: leave --pd out")
	case len(dirs) == 0 && o.toTS+o.safePoint != "":
		return usagef("--to-ts and --safe-point go into reports of stores: leave them out, or name the stores")
	}
	known, evidence, err := a.pdReports(o.pd)
	if err != nil {
		return err
	}
	co := repair.CollectOptions{Now: a.now(), Tool: version}
	// A name that cannot be had is no reason to stop: it is for people.
	co.Host, _ = os.Hostname()
	for _, x := range []struct {
		flag, text string
		to         *mvcc.TS
		parse      func(flag, text string) (mvcc.TS, error)
	}{
		{"to-ts", o.toTS, &co.ToTS, func(flag, text string) (mvcc.TS, error) { return a.parseTWithPD(flag, text, evidence) }},
		{"safe-point", o.safePoint, &co.SafePoint, parseT},
	} {
		if x.text == "" {
			continue
		}
		if *x.to, err = x.parse(x.flag, x.text); err != nil {
			return err
		}
	}
	if o.answer != "" {
		p, err := repair.ReadPlan(a.fs, o.answer)
		if err != nil {
			return err
		}
		if len(p.Questions) == 0 {
			return usagef("the plan %s has no questions; give it to apply", o.answer)
		}
		co.Questions, co.PlanID, co.ToTS = p.Questions, p.PlanID, p.ToTS
	}
	pds := []collectedPD{}
	done := []collectedStore{}
	err = repair.WriteReport(a.fs, o.out, func(w io.Writer) error {
		for _, p := range known {
			if err := repair.WritePDReport(w, p); err != nil {
				return err
			}
			pds = append(pds, collectedPD{evidence.Dirs, p.ClusterID, len(p.Stores), len(p.Regions)})
		}
		for _, dir := range dirs {
			so := a.scanOptions()
			so.NoRegions = co.PlanID == ""
			s, err := a.openStore(dir, so)
			if err != nil {
				return err
			}
			if evidence != nil && s.Ident.ClusterID != evidence.ClusterID {
				s.Close()
				return usagef("%s is a store of cluster %d, %s a PD of cluster %d", dir, s.Ident.ClusterID, evidence.Dirs[0], evidence.ClusterID)
			}
			regions := uint64(len(s.Regions))
			co.Regions = &regions
			err = repair.Collect(cmd.Context(), s, w, co)
			done = append(done, collectedStore{dir, s.Ident.StoreID, int(regions)})
			s.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a.c.json {
		return a.printJSON(struct {
			File   string           `json:"file"`
			Format int              `json:"format"`
			Stores []collectedStore `json:"stores"`
			PD     []collectedPD    `json:"pd"`
		}{o.out, plan.ReportFormat, done, pds})
	}
	for _, p := range pds {
		if err := a.print(fmt.Sprintf("%s: PD of cluster %d, %d stores, %d regions\n", strings.Join(p.Dirs, ", "), p.ClusterID, p.Stores, p.Regions)); err != nil {
			return err
		}
	}
	for _, d := range done {
		if err := a.print(fmt.Sprintf("%s: store %d, %d regions\n", d.Dir, d.StoreID, d.Regions)); err != nil {
			return err
		}
	}
	next := "tikv-repair plan " + o.out + " …"
	if o.answer != "" {
		next = "tikv-repair plan REPORT… " + o.out + " -o PLAN"
	}
	return a.print(fmt.Sprintf("Written to %s. Next, with the files of all stores: %s\n", o.out, next))
}
