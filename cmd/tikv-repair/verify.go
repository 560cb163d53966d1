package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

type verifyOptions struct {
	toTS  string
	quick bool

	plan, out string
	hash      bool
}

func (a *app) verifyCmd() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--to-ts T | --plan PLAN] DIR…",
		Short: "Prove that a store is at T, or that a plan is done",
		Long: `verify reads a store and tests every truth of a finished rewind to T: the files are sound and consistent, nothing above T is left in any file
or log, no lock and no fence above T is left, every long value is there and has an owner, TiKV would start every region, and no log entry that is
not applied can bring anything back. It writes nothing. The exit status is 1 when something does not hold.

--quick leaves out what needs a pass over all records.

With --plan it tests that the parts of the plan are done on the given stores: every record of every region that the plan changes, the start rules,
and with a rewind the truths above. --hash also hashes the visible data of every region, each store by itself, and compares the replicas that the
plan keeps. On a fleet, write each store's proof with -o, and give the files to one last verify --plan PLAN --hash PROOF…`,
		Example: `  tikv-repair verify --to-ts 2026-02-03T04:05:06+01:00 /data/tikv
  tikv-repair verify --plan plan.json --hash /data/tikv1 /data/tikv2
  tikv-repair verify --plan plan.json --hash /data/tikv -o store1.proof
  tikv-repair verify --plan plan.json --hash store1.proof store2.proof`,
		Args: dirArgs(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.plan != "" && o.toTS != "":
				return usagef("--to-ts and --plan exclude each other: the plan has its own T")
			case o.plan != "":
				return a.verifyPlan(cmd, args, &o)
			case len(args) > 1 || o.hash || o.out != "":
				return usagef("several directories, --hash and -o need --plan")
			}
			return a.verify(cmd, args[0], &o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.toTS, "to-ts", "", "the timestamp `T`; default: that of the newest repair here")
	f.BoolVar(&o.quick, "quick", false, "only what the properties of the files cannot tell")
	f.StringVar(&o.plan, "plan", "", "the `file` that plan has written")
	f.BoolVar(&o.hash, "hash", false, "compare the visible data of the replicas; reads everything")
	f.StringVarP(&o.out, "output", "o", "", "write the proof of one store to this `file`")
	a.storeFlags(f)
	return cmd
}

type verifyResult struct {
	Dir      string           `json:"dir"`
	ToTS     string           `json:"to_ts"`
	ToTime   string           `json:"to_time"`
	Full     bool             `json:"full"`
	Holds    bool             `json:"holds"`
	Findings []repair.Finding `json:"findings"`
}

func (a *app) verify(cmd *cobra.Command, dir string, o *verifyOptions) error {
	if o.toTS == "" {
		bs, err := repair.Status(a.fs, dir)
		if err != nil {
			return err
		}
		if len(bs) > 0 && bs[len(bs)-1].State == "done" {
			o.toTS = bs[len(bs)-1].ToTS.String()
		}
	}
	t, err := parseT("to-ts", o.toTS)
	if err != nil {
		return err
	}
	s, err := a.openStore(dir, a.scanOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	if err := a.echoT(s, t); err != nil {
		return err
	}
	fs, err := repair.Verify(cmd.Context(), s, repair.VerifyOptions{T: t, Threads: a.c.threads, Full: !o.quick})
	if err != nil {
		return err
	}
	if a.c.json {
		if fs == nil {
			fs = []repair.Finding{}
		}
		err = a.printJSON(verifyResult{Dir: dir, ToTS: t.String(), ToTime: scan.Time(t), Full: !o.quick, Holds: len(fs) == 0, Findings: fs})
	} else if len(fs) == 0 {
		err = a.print(fmt.Sprintf("%s is at %s: everything holds.\n", dir, scan.Time(t)))
	} else {
		for _, f := range fs {
			if err = a.print(f.String() + "\n"); err != nil {
				break
			}
		}
	}
	if err != nil || len(fs) == 0 {
		return err
	}
	return &base.Error{Class: base.ErrProblems, Op: "verify", Path: dir, Offset: -1,
		Reason: fmt.Sprintf("%d findings: this store is not at %s", len(fs), scan.Time(t)), Next: "tikv-repair reset --to-ts " + t.String() + " " + dir}
}
