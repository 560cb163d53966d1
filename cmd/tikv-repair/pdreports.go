package main

import (
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// pdReports reads the directories given with --pd, members of one stopped PD cluster, in the two forms in which they are used: as what a
// planner takes, one report for the cluster, and as the evidence that it was made from. Without directories both are nil.
func (a *app) pdReports(dirs []string) ([]*plan.PDReport, *scan.PDEvidence, error) {
	e, err := a.readPD(dirs)
	if e == nil || err != nil {
		return nil, nil, err
	}
	return []*plan.PDReport{repair.PDReport(e, version)}, e, nil
}
