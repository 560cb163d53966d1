package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

func (a *app) checkCmd() *cobra.Command {
	var quick, checksums bool
	var safePoint string
	cmd := &cobra.Command{
		Use:   "check DIR…",
		Short: "Look for everything that can be wrong in a store",
		Long: `check reads everything in the data directory of a stopped store: every block of every table with its checksum, the rules that the
set of files must keep, the write-ahead logs, Titan's blob files as far as visible records point to them, the raft log, whether TiKV
would start each region, gaps and overlaps between regions, data and raft logs that no region holds, received snapshots and uploaded
tables that TiKV may still take in, and the invariants of the records: every version has its value, every value its owner, timestamps
are in order, locks decode. Nothing is written.

Several directories are also looked at together: one cluster, each store once, and regions that cover the key space without gap and
overlap. Give the directories of all stores that are left.

Each finding says what is wrong, where, how bad it is, and what to type next:

  fatal, error  something is lost, or TiKV would not start
  warning       nothing is lost, but look at it
  info          worth knowing

What cannot be read is a finding and does not hide the rest. The exit status is 1 when there is an error or a fatal finding.

--safe-point states the cluster's GC safe point. A version without its value is an error when readers above the safe point still see
it, and harmless when it was superseded below; without the safe point only the newest version of a key is known to be read.

--quick does not read the data: files, properties, boundaries, region states, the ends of the raft logs, sizes of waiting files.

--checksums does nothing but read: every block of every table, every record of Titan's blob files, the logs and the raft log, each with
its checksum, as fast as the disk or the processors allow, and says how fast that was.`,
		Example: `  tikv-repair check /data/tikv
  tikv-repair check --safe-point 463875000000000000 /data/tikv
  tikv-repair check --checksums /data/tikv
  tikv-repair check --quick --json /data/tikv-1 /data/tikv-2`,
		Args: dirArgs(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if quick && checksums {
				return usagef("--quick does not read the data, --checksums reads nothing else: give one of them")
			}
			return a.check(cmd.Context(), args, scan.CheckOptions{Quick: quick, Checksums: checksums}, safePoint)
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "do not read the data")
	cmd.Flags().BoolVar(&checksums, "checksums", false, "verify all checksums and nothing else")
	cmd.Flags().StringVar(&safePoint, "safe-point", "", "the cluster's GC safe point, a `TSO` or a time with a zone")
	a.storeFlags(cmd.Flags())
	return cmd
}

// checkedStore is the JSON form of one result.
type checkedStore struct {
	Dir        string            `json:"dir"`
	ClusterID  uint64            `json:"cluster_id"`
	StoreID    uint64            `json:"store_id"`
	Quick      bool              `json:"quick"`
	Verified   *scan.Verified    `json:"checksums,omitempty"`
	Worst      string            `json:"worst_severity,omitempty"` // absent without a finding
	Findings   []plan.Described  `json:"findings"`
	More       map[string]uint64 `json:"more_findings"` // by name, beside those that are listed
	NotChecked []string          `json:"not_checked"`
	Checked    scan.CheckCounts  `json:"checked"`
}

// checkedTogether is the JSON form of what several directories show together.
type checkedTogether struct {
	Findings   []plan.Described  `json:"findings"`
	More       map[string]uint64 `json:"more_findings"`
	NotChecked []string          `json:"not_checked"`
}

type failedDir struct {
	Dir   string `json:"dir"`
	Error string `json:"error"`
	Next  string `json:"next,omitempty"`
}

func (a *app) check(ctx context.Context, dirs []string, o scan.CheckOptions, safePoint string) error {
	if len(dirs) > 1 && a.c.overridden() {
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(dirs))
	}
	o.Open, o.Threads, o.Joined = a.scanOptions(), a.c.threads, len(dirs) > 1
	if safePoint != "" {
		var err error
		if o.SafePoint, err = parseT("safe-point", safePoint); err != nil {
			return err
		}
	}
	out := struct {
		Stores   []checkedStore   `json:"stores"`
		Together *checkedTogether `json:"together,omitempty"`
		Failed   []failedDir      `json:"failed"`
	}{Stores: []checkedStore{}, Failed: []failedDir{}}
	var results []*scan.CheckResult
	var first error
	var sick []string
	for _, dir := range dirs {
		o.Meter = new(scan.Meter)
		stop := a.watch("check", o.Meter)
		r, err := scan.Check(ctx, a.fs, dir, o)
		stop()
		if errors.Is(err, base.ErrInterrupted) {
			return err
		}
		if err != nil {
			first = orErr(first, err)
			if len(dirs) > 1 {
				printError(a.stderr, err)
			}
			out.Failed = append(out.Failed, failedDir{dir, err.Error(), base.Next(err)})
			continue
		}
		if r.Worst() > plan.Warning {
			sick = append(sick, dir)
		}
		results = append(results, r)
		out.Stores = append(out.Stores, checked(r))
		if !a.c.json {
			if err := a.print(checkText(r, len(out.Stores) > 1)); err != nil {
				return err
			}
		}
	}
	if len(dirs) > 1 && len(results) > 0 && !o.Checksums {
		t := scan.CheckTogether(results, len(out.Failed))
		out.Together = &checkedTogether{plan.Describe(t.Findings), t.More, t.NotChecked}
		if t.Worst() > plan.Warning {
			sick = append(sick, "all of them together")
		}
		if !a.c.json {
			if err := a.print(togetherText(t, len(results))); err != nil {
				return err
			}
		}
	}
	if a.c.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	}
	switch {
	case first != nil && len(dirs) > 1:
		return &base.Error{Class: classOf(first), Op: "check", Offset: -1, Reason: fmt.Sprintf("%d of %d directories could not be checked", len(out.Failed), len(dirs))}
	case first != nil:
		return first
	case len(sick) > 0:
		return &base.Error{Class: base.ErrProblems, Op: "check", Offset: -1, Reason: "there are errors in " + strings.Join(sick, ", "),
			Next: "each finding says what to do about it"}
	}
	return nil
}

func checked(r *scan.CheckResult) checkedStore {
	c := checkedStore{Dir: r.Dir, ClusterID: r.ClusterID, StoreID: r.StoreID, Quick: r.Quick, Verified: r.Verified, Findings: plan.Describe(r.Findings), More: r.More,
		NotChecked: r.NotChecked, Checked: r.Counts}
	if len(r.Findings) > 0 {
		c.Worst = r.Worst().String()
	}
	return c
}

func checkText(r *scan.CheckResult, follows bool) string {
	var b strings.Builder
	if follows {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s: store %d of cluster %d\n", r.Dir, r.StoreID, r.ClusterID)
	findingsText(&b, r.Findings, r.More, r.NotChecked)
	n := r.Counts
	if v := r.Verified; v != nil {
		what := "every checksum is right"
		if len(r.Findings) > 0 {
			what = conclusion(len(r.Findings), r.Worst())
		}
		fmt.Fprintf(&b, "read %d tables, %d blob files, the logs and the raft log: %s\n", n.Files, n.BlobFiles, what)
		fmt.Fprintf(&b, "tables and blob files: %s in %.2f s, %.0f MB/s\n", bytesText(uint64(v.Bytes)), v.Seconds, float64(v.Bytes)/1e6/max(v.Seconds, 1e-6))
		return b.String()
	}
	fmt.Fprintf(&b, "looked at %d regions, %d tables", n.Regions, n.Files)
	if n.BlobFiles > 0 {
		fmt.Fprintf(&b, ", %d blob files", n.BlobFiles)
	}
	if n.Snapshots > 0 {
		fmt.Fprintf(&b, ", %d snapshots", n.Snapshots)
	}
	if n.ImportFiles > 0 {
		fmt.Fprintf(&b, ", %d tables to import", n.ImportFiles)
	}
	if !r.Quick {
		fmt.Fprintf(&b, ", %d write records, %d values, %d locks, %d log entries", n.Writes, n.Values, n.Locks, n.LogEntries)
	}
	b.WriteString(": " + conclusion(len(r.Findings), r.Worst()) + "\n")
	return b.String()
}

func conclusion(findings int, worst plan.Severity) string {
	switch {
	case findings == 0:
		return "everything is sound"
	case worst <= plan.Warning:
		return "no errors"
	}
	return "there are errors"
}

func findingsText(b *strings.Builder, findings []plan.Problem, more map[string]uint64, notChecked []string) {
	for _, p := range findings {
		fmt.Fprintf(b, "%s %s", p.Severity(), p.Name())
		if w := p.Where(); w != "" {
			fmt.Fprintf(b, ", %s", w)
		}
		fmt.Fprintf(b, "\n  %s\n  next: %s\n", p.What(), p.Next())
	}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		fmt.Fprintf(b, "and %d more %s\n", more[name], name)
	}
	for _, n := range notChecked {
		fmt.Fprintf(b, "not checked: %s\n", n)
	}
}

// togetherText says what the directories show together.
func togetherText(t *scan.Together, dirs int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d directories together\n", dirs)
	findingsText(&b, t.Findings, t.More, t.NotChecked)
	fmt.Fprintf(&b, "looked at their regions together: %s\n", conclusion(len(t.Findings), t.Worst()))
	return b.String()
}
