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
			if t := e.ConsistentTS; t != nil {
				// Written to this log before any switch that it does not have.
				r.Words = append(r.Words, fmt.Sprintf("whatever came later, the data is known to be consistent at min-resolved-ts = %s (%s)%s", t.TS, t.Time, e.age(t.TS)))
				r.Next = e.preview()
			}
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
	t := e.ConsistentTS
	if t == nil {
		r.Verdict = PDUnknown
		r.Words = append(r.Words, "no timestamp is proven to be whole on a surviving site alone: "+e.ConsistentWhy)
		return r
	}
	r.Words = append(r.Words,
		fmt.Sprintf("on a surviving site alone the data is known to be consistent only at min-resolved-ts = %s (%s)%s", t.TS, t.Time, e.age(t.TS)),
		"this is "+e.ConsistentWhy)
	r.Next = e.preview()
	return r
}

// preview is the command to type next.
func (e *PDEvidence) preview() string {
	return fmt.Sprintf("tikv-repair drop-peers --failed-stores IDS --to-ts min-resolved-ts %s--dry-run DIR…   (IDS: the stores that are lost; DIR…: the data directories of all that are left)", pdFlags(e.Dirs))
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
