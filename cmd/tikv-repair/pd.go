package main

import (
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// readPD reads the directories given with --pd; nil without any.
func (a *app) readPD(dirs []string) (*scan.PDEvidence, error) {
	if len(dirs) == 0 {
		return nil, nil
	}
	p, err := scan.ReadPD(a.fs, dirs)
	if err != nil {
		return nil, err
	}
	for _, m := range p.Members {
		for _, w := range m.Warnings {
			a.warn("%s: %s", m.Dir, w)
		}
		for _, d := range m.Etcd.Damage {
			a.warn("%s: %s", m.Dir, d)
		}
	}
	for _, w := range p.Comparison.Warnings {
		a.warn("%s", w)
	}
	e := p.Evidence
	if !e.SafePointKnown {
		a.warn("PD does not tell the GC safe point for sure: %s", e.SafePointWhy)
	}
	a.log.info("PD read", "dirs", strings.Join(e.Dirs, ","), "cluster_id", fmt.Sprint(e.ClusterID), "safe_point", e.SafePoint.TS.String())
	return e, nil
}

// minResolvedTS is the name of a timestamp that only PD knows.
const minResolvedTS = "min-resolved-ts"

// parseTWithPD reads a timestamp flag that may also name what PD knows. Nothing is invented: without PD the name means nothing.
func (a *app) parseTWithPD(flag, text string, e *scan.PDEvidence) (mvcc.TS, error) {
	if text != minResolvedTS {
		return parseT(flag, text)
	}
	if e == nil {
		return 0, &base.Error{Class: base.ErrUsage, Op: "usage", Offset: -1, Reason: fmt.Sprintf("--%s %s is known to PD only, and no PD directory was given", flag, text),
			Next: "give the data directory of the stopped PD with --pd, or a timestamp"}
	}
	if e.ConsistentTS == nil {
		return 0, &base.Error{Class: base.ErrUsage, Op: "usage", Path: e.Dirs[0], Offset: -1, Reason: "no T is known to be consistent: " + e.ConsistentWhy,
			Next: fmt.Sprintf("give a timestamp with --%s; nothing proves it to be whole", flag)}
	}
	a.say("min-resolved-ts is %s = %s: %s", e.ConsistentTS.TS, e.ConsistentTS.Time, e.ConsistentWhy)
	return e.ConsistentTS.TS, nil
}
