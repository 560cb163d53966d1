package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

type raftLogOptions struct {
	scan.RaftLogOptions
	format string
}

func (a *app) raftLogCmd() *cobra.Command {
	var o raftLogOptions
	cmd := &cobra.Command{
		Use:   "raft-log --region ID DIR",
		Short: "Print the raft log of a region, decoded",
		Long: `raft-log prints the entries of a region's raft log: index, term, where the entry stands, what it does, down to the records that a
write puts into the column families. At the end it sums up the tail: the entries that are not applied, and which of them change nothing
because the region's epoch has moved on. Nothing is written.

Without --from and --to all entries are printed that a server can still read; --tail prints only those that are not applied.
Values are cut to 32 bytes unless --full is given.

  text   a line for each entry, a line for each request below it
  jsonl  one object an entry; --json gives one document with the entries and the summary

The exit status is 2 when an entry is missing or does not decode.`,
		Example: `  tikv-repair raft-log --region 14 --tail /data/tikv
  tikv-repair raft-log --region 14 --from 100 --to 120 --full --format jsonl /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.raftLog(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Uint64Var(&o.Region, "region", 0, "the region's `id`")
	f.Uint64Var(&o.From, "from", 0, "first `index`")
	f.Uint64Var(&o.To, "to", 0, "last `index`")
	f.BoolVar(&o.Tail, "tail", false, "only the entries that are not applied")
	f.BoolVar(&o.Full, "full", false, "values in full")
	f.StringVar(&o.format, "format", "text", "text or jsonl")
	a.storeFlags(f)
	return cmd
}

func (a *app) raftLog(cmd *cobra.Command, dir string, o *raftLogOptions) error {
	switch {
	case o.Region == 0:
		return usagef("which region? Give --region; tikv-repair region lists them")
	case o.format != "text" && o.format != "jsonl":
		return usagef("--format is text or jsonl, not %q", o.format)
	case o.To != 0 && o.From > o.To:
		return usagef("--from is behind --to")
	}
	s, err := a.openStore(dir, a.scanOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	res, err := s.RaftLogOf(o.Region)
	if err != nil {
		return err
	}
	if !res.Known {
		a.warn("the key-value database has no record of region %d: what is applied is not known", o.Region)
	}
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	show := func(e *scan.LogEntry) error { return entryText(out, e) }
	switch {
	case a.c.json:
		show = jsonEach[scan.LogEntry](out, "{\"entries\":[\n")
	case o.format == "jsonl":
		show = func(e *scan.LogEntry) error {
			b, err := json.Marshal(e)
			if err == nil {
				_, err = fmt.Fprintf(out, "%s\n", b)
			}
			return err
		}
	}
	err = s.RaftLog(cmd.Context(), res, o.RaftLogOptions, func(e *scan.LogEntry) error { return base.IO("write", "the output", show(e)) })
	if e := a.raftLogEnd(out, res, o.format, err); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if res.Bad > 0 || len(res.Missing) > 0 {
		return &base.Error{Class: base.ErrCorrupt, Op: "raft-log", Path: dir, Offset: -1, Region: o.Region,
			Reason: fmt.Sprintf("%d entries do not decode; missing: %s", res.Bad, rangesText(res.Missing)), Next: "tikv-repair check " + dir}
	}
	return nil
}

// raftLogEnd closes the output and adds the summary.
func (a *app) raftLogEnd(out *bufio.Writer, res *scan.RaftLogResult, format string, failed error) error {
	switch {
	case a.c.json:
		b, err := json.Marshal(res)
		if err != nil {
			return err
		}
		opening := "{\"entries\":["
		if res.Shown > 0 {
			opening = ""
		}
		if _, err := fmt.Fprintf(out, "%s],\n\"log\":%s}\n", opening, b); err != nil {
			return base.IO("write", "the output", err)
		}
	case failed != nil:
	case format == "jsonl":
		a.say("%s", strings.TrimSuffix(tailText(res), "\n"))
	default:
		sep := ""
		if res.Shown > 0 {
			sep = "\n"
		}
		if _, err := io.WriteString(out, sep+tailText(res)); err != nil {
			return base.IO("write", "the output", err)
		}
	}
	return base.IO("write", "the output", out.Flush())
}

func entryText(out io.Writer, e *scan.LogEntry) error {
	parts := []string{fmt.Sprint(e.Index), fmt.Sprintf("term %d", e.Term), e.Status, e.Kind.String()}
	add := func(ok bool, format string, args ...any) {
		if ok {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if h := e.Header; h != nil {
		add(true, "epoch %d/%d peer %d", h.Epoch.ConfVer, h.Epoch.Version, h.PeerID)
	}
	if e.Admin != nil {
		b, err := json.Marshal(e.Admin)
		add(err == nil, "%s %s", e.Admin.Type, b)
	}
	for _, c := range e.NodeChanges {
		add(true, "%s %d", c.Type, c.NodeID)
	}
	add(e.Unknown, "has fields that this tool does not know")
	add(e.NoOp != "", "NO-OP: %s", e.NoOp)
	add(e.Error != "", "DOES NOT DECODE: %s: %s", e.Error, e.Raw)
	if _, err := fmt.Fprintln(out, strings.Join(parts, "  ")); err != nil {
		return err
	}
	for i := range e.Requests {
		if _, err := fmt.Fprintln(out, "    "+requestText(&e.Requests[i])); err != nil {
			return err
		}
	}
	return nil
}

func requestText(r *scan.LogRequest) string {
	parts := []string{r.Op.String(), r.CF}
	add := func(ok bool, format string, args ...any) {
		if ok {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(r.Key == "" && r.DBKey != "", "%s", r.DBKey)
	add(r.EndKey != "", "..%s", r.EndKey)
	add(r.Key != "", "%s", r.Key)
	if r.KeyDecoded != nil {
		add(true, "(%s)", r.KeyDecoded)
	}
	add(r.CommitTS != 0, "commit_ts %s %s", r.CommitTS, r.CommitTime)
	add(r.StartTS != 0, "start_ts %s %s", r.StartTS, r.StartTime)
	if w := r.Write; w != nil && w.Error == "" {
		add(true, "%s start_ts %s", w.Type, w.StartTS)
		if w.ShortValue != nil {
			add(true, "value %s", *w.ShortValue)
		}
		add(writeMore(*w) != "", "%s", writeMore(*w))
	}
	for _, l := range r.Locks {
		add(l.Error == "", "%s start_ts %s primary %s", l.Type, l.StartTS, l.Primary)
		add(lockMore(l) != "", "%s", lockMore(l))
	}
	if r.Value != nil {
		add(true, "%d bytes %s", r.ValueBytes, *r.Value)
	}
	add(r.Truncated, "…")
	if r.SST != nil {
		b, err := json.Marshal(r.SST)
		add(err == nil, "%s", b)
	}
	add(r.Name != "", "%s", r.Name)
	add(r.Error != "", "DOES NOT DECODE: %s", r.Error)
	return strings.Join(parts, "  ")
}

// tailText is the summary: where the log stands and what the tail holds.
func tailText(res *scan.RaftLogResult) string {
	var b strings.Builder
	p := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	d, t := res.Derived, &res.Tail
	p("region", "%d, state %s, epoch %d/%d", res.RegionID, orDash(res.State), res.Epoch.ConfVer, res.Epoch.Version)
	p("log", "truncated %d, applied %d, commit %d, last %d, term %d; stored %d to %d", d.Truncated.Index, d.Applied, d.Commit, d.Last, d.Term, res.First, res.Last)
	if d.Unpersisted > 0 {
		p("unpersisted", "%d entries were applied before they were persisted (TiKV 8.2 and later): the log ends below applied", d.Unpersisted)
	}
	if len(res.Missing) > 0 {
		p("MISSING", "%s", rangesText(res.Missing))
	}
	if t.Entries() == 0 && len(t.Missing) == 0 {
		p("tail", "none: everything in the log is applied")
		return b.String()
	}
	p("tail", "%d entries, %d of them committed", t.Entries(), t.CommittedPart.Entries)
	kinds, requests := map[string]int{}, map[string]int{}
	for i := range 2 {
		part := t.CommittedPart
		if i == 1 {
			part = t.UncommittedPart
		}
		for kind, n := range map[string]int{"empty": part.Empty, "write": part.Writes, "admin": part.Admin, "conf-change": part.ConfChange, "other": part.Other} {
			kinds[kind] += n
		}
		for cf, n := range part.Puts {
			requests["put "+cf] += n
		}
		for cf, n := range part.Deletes {
			requests["delete "+cf] += n
		}
		requests["delete_range"] += part.RangeDels
		requests["ingest_sst"] += part.Ingests
	}
	p("kinds", "%s", countsText(kinds))
	p("requests", "%s", orDash(countsText(requests)))
	if t.MinCommitTS != 0 {
		p("commit_ts", "%s = %s to %s = %s", t.MinCommitTS, t.MinCommitTime, t.MaxCommitTS, t.MaxCommitTime)
	}
	if t.Ingests > 0 {
		p("INGEST", "%d files: their data is in import/, not in the log; TiKV panics when one is missing", t.Ingests)
	}
	for _, e := range t.AdminEntries {
		p("admin", "%d %s, epoch %d/%d, %s", e.Index, e.Type, e.Epoch.ConfVer, e.Epoch.Version, map[bool]string{true: "committed", false: "not committed"}[e.Committed])
	}
	for _, n := range t.NoOps {
		p("no-op", "%d %s", n.Index, n.Reason)
	}
	for _, e := range t.Bad {
		p("UNDECODABLE", "%d %s", e.Index, e.Reason)
	}
	if t.EpochAfter != res.Epoch && t.EpochAfter != (raftstate.Epoch{}) {
		p("epoch after", "%d/%d once the tail is applied", t.EpochAfter.ConfVer, t.EpochAfter.Version)
	}
	return b.String()
}

func countsText(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
		}
	}
	return strings.Join(parts, ", ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func rangesText(rs [][2]uint64) string {
	var parts []string
	for _, r := range rs {
		if r[0] == r[1] {
			parts = append(parts, fmt.Sprint(r[0]))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d", r[0], r[1]))
		}
	}
	return orDash(strings.Join(parts, ", "))
}
