package main

import (
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// pdReports reads PD's directories for a plan.
func (a *app) pdReports(dirs []string) ([]*plan.PDReport, *scan.PDEvidence, error) {
	e, err := a.readPD(dirs)
	return nil, e, err
}
