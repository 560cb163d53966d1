package scan

import (
	"fmt"
	"strings"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// recovery explains the replication state (docs/formats/pd-data.md section 10.3).
func (e *PDEvidence) recovery(p *PD) PDRecovery {
	say := func(verdict string, words ...string) PDRecovery { return PDRecovery{Verdict: verdict, Words: words} }
	if e.DR == nil {
		r := say(PDNoDR, "DR Auto-Sync was never on: a commit needs a majority of a region's voters, wherever these are")
		if e.DRMode == "dr-auto-sync" {
			r = say(PDUnknown, "the mode is dr-auto-sync, but no state of it is here")
		}
		return r
	}
	reserve := e.reserve(p)
	var r PDRecovery
	switch {
	case e.DRMode != "dr-auto-sync":
		r = say(PDNoDR, fmt.Sprintf("the mode is %s; the state of DR Auto-Sync is an old one", orUnknown(e.DRMode, "majority")))
		return r
	case e.DR.State == pd.DRSync:
		r = say(PDWhole, "sync: every commit was on both sites; a surviving site is complete")
		if reserve != "" {
			r = say(PDUnknown, "sync: every commit was on both sites, so that a surviving site was complete as long as this was the state", reserve)
		}
		return r
	case e.DR.State == pd.DRAsyncWait:
		r = say(PDConsistentAt, "async_wait: PD had begun to switch to async. Commits still needed both sites by design, but nothing proves that no store had switched")
	case e.DR.State == pd.DRAsync:
		r = say(PDConsistentAt, "async: commits did not wait for the other site. What was committed after the switch may be on one site only")
	default:
		r = say(PDConsistentAt, "sync_recover: the other site was catching up, region by region; which regions had caught up was never written to disk")
	}
	if reserve != "" {
		r.Words = append(r.Words, reserve)
	}
	if e.MinResolvedTS == nil {
		r.Verdict = PDUnknown
		r.Words = append(r.Words, "PD has persisted no min-resolved-ts (pd-server.min-resolved-ts-persistence-interval is off): no timestamp is known to be whole on a surviving site")
		return r
	}
	t := e.MinResolvedTS
	r.Words = append(r.Words,
		fmt.Sprintf("on a surviving site alone the data is known to be consistent at min-resolved-ts = %s (%s) only%s", t.TS, t.Time, e.age(t.TS)),
		"stores that PD took for unavailable, or that led no region, did not hold min-resolved-ts back")
	r.Next = fmt.Sprintf("tikv-repair reset --to-ts min-resolved-ts %s--dry-run DIR   (DIR: the data directory of a surviving TiKV store)", pdFlags(e.Dirs))
	return r
}

// reserve is what keeps the state from being the last one for sure; empty: nothing does.
func (e *PDEvidence) reserve(p *PD) string {
	var parts []string
	if e.DR.Source.Certainty == pd.Copied {
		parts = append(parts, "the newest record is the file DR_STATE, which PD writes without fsync and as best effort")
	}
	if e.DR.Source.Certainty == pd.Possible {
		parts = append(parts, "the newest record is not known to be committed")
	}
	if !e.Majority {
		parts = append(parts, fmt.Sprintf("%d of %d voting members of PD are here: a later switch may not have reached them", e.Given, e.Voters))
	}
	if len(p.newest().Etcd.Damage) > 0 {
		parts = append(parts, "etcd's files are damaged: a later switch may be lost")
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("this is the state at least as of state id %d, and may not be the last one: %s", e.DR.StateID, strings.Join(parts, "; "))
}

// age says how far a timestamp lies behind the newest that PD may have given out.
func (e *PDEvidence) age(ts mvcc.TS) string {
	if e.TSOFloor == 0 || ts == 0 {
		return ""
	}
	d := time.Duration(e.TSOFloor.Physical()-ts.Physical()) * time.Millisecond
	return fmt.Sprintf(", %s before the end of PD's TSO window", d)
}

func pdFlags(dirs []string) string {
	var b strings.Builder
	for _, d := range dirs {
		fmt.Fprintf(&b, "--pd %s ", d)
	}
	return b.String()
}
