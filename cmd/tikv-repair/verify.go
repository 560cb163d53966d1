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
}

func (a *app) verifyCmd() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify --to-ts T DIR",
		Short: "Prove that a store is at T",
		Long: `verify reads a store and tests every truth of a finished rewind to T: the files are sound and consistent, nothing above T is left in any file
or log, no lock and no fence above T is left, every long value is there and has an owner, TiKV would start every region, and no log entry that is
not applied can bring anything back. It writes nothing. The exit status is 1 when something does not hold.

--quick leaves out what needs a pass over all records.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.toTS, "to-ts", "", "the timestamp `T`; default: that of the newest repair here")
	f.BoolVar(&o.quick, "quick", false, "only what the properties of the files cannot tell")
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
