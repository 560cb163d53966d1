package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// verifiedPlan is the JSON form of what verify --plan found.
type verifiedPlan struct {
	PlanID   string           `json:"plan_id"`
	Holds    bool             `json:"holds"`
	Stores   []*repair.Proof  `json:"stores"`
	Differ   []repair.Finding `json:"replicas_that_differ"`
	Compared int              `json:"regions_compared"`
	// NotCompared are kept regions of which a replica has not been hashed.
	NotCompared int `json:"regions_not_compared"`
}

func (a *app) verifyPlan(cmd *cobra.Command, args []string, o *verifyOptions) error {
	p, err := a.planFile(o.plan)
	if err != nil {
		return err
	}
	if o.out != "" && len(args) != 1 {
		return usagef("-o writes the proof of one store, not of %d", len(args))
	}
	if len(args) > 1 && a.c.overridden() {
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(args))
	}
	v := verifiedPlan{PlanID: p.PlanID, Stores: []*repair.Proof{}, Differ: []repair.Finding{}}
	findings := 0
	for _, arg := range args {
		proof, err := a.proof(cmd, arg, p, o)
		if err != nil {
			return err
		}
		findings += len(proof.Findings)
		v.Stores = append(v.Stores, proof)
	}
	if o.out != "" {
		if err := repair.WriteProof(a.fs, o.out, v.Stores[0]); err != nil {
			return err
		}
	}
	if o.hash {
		differ, compared, missing := repair.Compare(p, v.Stores)
		v.Differ, v.Compared, v.NotCompared = append(v.Differ, differ...), compared, missing
	}
	v.Holds = findings+len(v.Differ) == 0
	if a.c.json {
		err = a.printJSON(v)
	} else {
		err = a.print(verifiedText(&v, o))
	}
	if err != nil || v.Holds {
		return err
	}
	return &base.Error{Class: base.ErrProblems, Op: "verify", Offset: -1, Reason: fmt.Sprintf("%d findings: plan %s is not done", findings+len(v.Differ), p.PlanID),
		Next: "tikv-repair apply --plan " + o.plan + " DIR; or tikv-repair undo DIR on each store"}
}

// proof looks at a store, or reads what verify found on it elsewhere.
func (a *app) proof(cmd *cobra.Command, arg string, p *plan.Plan, o *verifyOptions) (*repair.Proof, error) {
	st, err := a.fs.Stat(arg)
	if err != nil {
		return nil, base.IO("open", arg, err)
	}
	if !st.IsDir() {
		proof, err := repair.ReadProof(a.fs, arg)
		if err == nil && proof.PlanHash != p.Hash {
			err = &base.Error{Class: base.ErrPlanMismatch, Op: "read proof", Path: arg, Offset: -1, Reason: "it is about another plan, " + proof.PlanID, Next: "tikv-repair verify --plan " + o.plan + " DIR -o " + arg}
		}
		return proof, err
	}
	s, err := a.openStore(arg, a.scanOptions())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m := new(scan.Meter)
	stop := a.watch("verify", m)
	defer stop()
	return repair.Prove(cmd.Context(), s, repair.ProveOptions{Plan: p, Hash: o.hash, Threads: a.c.threads, Meter: m})
}

func verifiedText(v *verifiedPlan, o *verifyOptions) string {
	var b strings.Builder
	for _, s := range v.Stores {
		if len(s.Findings) == 0 {
			fmt.Fprintf(&b, "store %d: its part of plan %s is done, everything holds\n", s.StoreID, v.PlanID)
		}
		for _, f := range s.Findings {
			fmt.Fprintf(&b, "store %d: %s\n", s.StoreID, f)
		}
	}
	for _, f := range v.Differ {
		fmt.Fprintln(&b, f)
	}
	if o.hash {
		if v.Compared == 0 {
			b.WriteString("replicas: no region has two of them on the stores that were given: nothing to compare")
		} else {
			fmt.Fprintf(&b, "replicas: those of %d regions hold the same data", v.Compared)
		}
		if v.NotCompared > 0 {
			fmt.Fprintf(&b, "; %d regions have replicas on stores that were not given", v.NotCompared)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
