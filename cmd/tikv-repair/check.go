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
	var quick bool
	cmd := &cobra.Command{
		Use:   "check DIR…",
		Short: "Look for everything that can be wrong in a store",
		Long: `check reads everything in the data directory of a stopped store: every block of every table with its checksum, the rules that the
set of files must keep, the write-ahead logs, Titan's blob files as far as visible records point to them, the raft log, whether TiKV
would start each region, gaps and overlaps between regions, data that no region holds, and the invariants of the records: every
version has its value, every value its owner, timestamps are in order, locks decode. Nothing is written.

Each finding says what is wrong, where, how bad it is, and what to type next:

  fatal, error  something is lost, or TiKV would not start
  warning       nothing is lost, but look at it
  info          worth knowing

What cannot be read is a finding and does not hide the rest. The exit status is 1 when there is an error or a fatal finding.

--quick does not read the data: files, properties, boundaries, region states, the ends of the raft logs.`,
		Example: `  tikv-repair check /data/tikv
  tikv-repair check --quick --json /data/tikv-1 /data/tikv-2`,
		Args: dirArgs(true),
		RunE: func(cmd *cobra.Command, args []string) error { return a.check(cmd.Context(), args, quick) },
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "do not read the data")
	a.storeFlags(cmd.Flags())
	return cmd
}

// checkedStore is the JSON form of one result.
type checkedStore struct {
	Dir        string            `json:"dir"`
	ClusterID  uint64            `json:"cluster_id"`
	StoreID    uint64            `json:"store_id"`
	Quick      bool              `json:"quick"`
	Worst      string            `json:"worst_severity,omitempty"` // absent without a finding
	Findings   []plan.Described  `json:"findings"`
	More       map[string]uint64 `json:"more_findings"` // by name, beside those that are listed
	NotChecked []string          `json:"not_checked"`
	Checked    scan.CheckCounts  `json:"checked"`
}

type failedDir struct {
	Dir   string `json:"dir"`
	Error string `json:"error"`
	Next  string `json:"next,omitempty"`
}

func (a *app) check(ctx context.Context, dirs []string, quick bool) error {
	if len(dirs) > 1 && a.c.overridden() {
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(dirs))
	}
	out := struct {
		Stores []checkedStore `json:"stores"`
		Failed []failedDir    `json:"failed"`
	}{[]checkedStore{}, []failedDir{}}
	var first error
	var sick []string
	for _, dir := range dirs {
		m := new(scan.Meter)
		stop := a.watch("check", m)
		r, err := scan.Check(ctx, a.fs, dir, scan.CheckOptions{Open: a.scanOptions(), Quick: quick, Threads: a.c.threads, Meter: m})
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
		out.Stores = append(out.Stores, checked(r))
		if !a.c.json {
			if err := a.print(checkText(r, len(out.Stores) > 1)); err != nil {
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
	c := checkedStore{Dir: r.Dir, ClusterID: r.ClusterID, StoreID: r.StoreID, Quick: r.Quick, Findings: plan.Describe(r.Findings), More: r.More,
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
	for _, p := range r.Findings {
		fmt.Fprintf(&b, "%s %s", p.Severity(), p.Name())
		if w := p.Where(); w != "" {
			fmt.Fprintf(&b, ", %s", w)
		}
		fmt.Fprintf(&b, "\n  %s\n  next: %s\n", p.What(), p.Next())
	}
	for _, name := range slices.Sorted(maps.Keys(r.More)) {
		fmt.Fprintf(&b, "and %d more %s\n", r.More[name], name)
	}
	for _, n := range r.NotChecked {
		fmt.Fprintf(&b, "not checked: %s\n", n)
	}
	n := r.Counts
	fmt.Fprintf(&b, "looked at %d regions, %d tables", n.Regions, n.Files)
	if n.BlobFiles > 0 {
		fmt.Fprintf(&b, ", %d blob files", n.BlobFiles)
	}
	if !r.Quick {
		fmt.Fprintf(&b, ", %d write records, %d values, %d locks, %d log entries", n.Writes, n.Values, n.Locks, n.LogEntries)
	}
	switch {
	case len(r.Findings) == 0:
		b.WriteString(": everything is sound\n")
	case r.Worst() <= plan.Warning:
		b.WriteString(": no errors\n")
	default:
		b.WriteString(": there are errors\n")
	}
	return b.String()
}
