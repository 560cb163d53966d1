package repair

import (
	"context"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// UsePD takes the safe point from PD. When the operator has stated one too, the larger counts, and the source says so. A safe point that PD
// cannot vouch for does not stand in for one that is stated; if it is above T it is an obstacle all the same.
func (o *ResetOptions) UsePD(e *scan.PDEvidence) {
	o.PD = e
	known := e.SafePoint.TS
	switch {
	case o.SafePoint == nil && !e.SafePointKnown:
		if known > o.T {
			o.SafePoint, o.SafePointSource = &known, pdSource(e)
		}
	case o.SafePoint == nil:
		o.SafePoint, o.SafePointSource = &known, pdSource(e)
	case known > *o.SafePoint:
		o.SafePointSource = fmt.Sprintf("%s; the stated %s is lower and does not count", pdSource(e), *o.SafePoint)
		o.SafePoint = &known
	case known < *o.SafePoint:
		o.SafePointSource = fmt.Sprintf("%s; PD knows only %s (%s)", StatedSafePoint, known, pdSource(e))
	default:
		o.SafePointSource = StatedSafePoint + ", and " + pdSource(e)
	}
}

// StatedSafePoint is the source of a safe point that comes from the command line.
const StatedSafePoint = "stated with --safe-point"

func pdSource(e *scan.PDEvidence) string {
	return fmt.Sprintf("from PD: %s; %s", e.SafePointWhy, e.SafePoint.Source)
}

// pdProblems compares the store with what PD knew.
func pdProblems(s *scan.Store, o ResetOptions) ([]plan.Problem, error) {
	e := o.PD
	if e == nil {
		return nil, nil
	}
	if e.ClusterID != s.Ident.ClusterID {
		return nil, &base.Error{Class: base.ErrUsage, Op: "reset", Path: s.Layout.Dir, Offset: -1,
			Reason: fmt.Sprintf("the store belongs to cluster %d, the PD directory to cluster %d", s.Ident.ClusterID, e.ClusterID),
			Next:   "name the PD directory of the store's own cluster"}
	}
	var ps []plan.Problem
	if t := e.ConsistentTS; t != nil && o.T > t.TS {
		ps = append(ps, &plan.AboveMinResolved{T: o.T, MinResolved: t.TS, Source: e.ConsistentWhy + "; " + t.Source.String()})
	} else if t == nil && e.DR != nil && e.DRMode == drAutoSync {
		ps = append(ps, &plan.AboveMinResolved{T: o.T, Source: e.ConsistentWhy})
	}
	newest, err := s.NewestCommit()
	if err != nil {
		return nil, err
	}
	if newest >= e.TSOFloor && newest != mvcc.MaxTS {
		ps = append(ps, &plan.PDBehindStore{Store: s.Ident.StoreID, Newest: newest, TSOFloor: e.TSOFloor, Source: e.TSOFloorSource.String()})
	}
	return ps, nil
}

func (r *reset) previewSafePoint(p *Preview) {
	if p.SafePoint, p.SafePointSource = r.o.SafePoint, r.o.SafePointSource; p.SafePoint != nil && *p.SafePoint != 0 {
		p.SafePointTime = timeOf(*p.SafePoint)
	}
}

// limits finds what limits T, for the preview.
func (r *reset) limits(ctx context.Context) (*plan.Limits, error) {
	var pd *plan.PDReport
	if r.o.PD != nil {
		pd = PDReport(r.o.PD, r.o.Version)
	}
	// The tails have been applied or will never be: the logs have nothing to add.
	return scan.FindLimits(ctx, []*scan.Store{r.s}, pd, scan.LimitsOptions{NoLogs: true})
}
