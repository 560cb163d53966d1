package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/scan"
)

type rawScanFlags struct {
	scan.RawScanOptions
	from, to string
}

func (a *app) scanCmd() *cobra.Command {
	var o rawScanFlags
	cmd := &cobra.Command{
		Use:   "scan --cf CF DIR",
		Short: "Print the records of one column family, decoded",
		Long: `scan prints the records of one column family as the database holds them, in key order, decoded as far as they decode: whatever
region they belong to, and whether a client sees them or not. Nothing is written.

--physical prints every record that a file or the log holds, with sequence number, kind, file and level: older ones that newer ones
hide and tombstones as well. Range tombstones come first.`,
		Example: `  tikv-repair scan --cf lock /data/tikv
  tikv-repair scan --cf write --region 14 --limit 20 --physical /data/tikv
  tikv-repair scan --cf raft --json /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.scan(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.CF, "cf", "", "default, lock, write or raft")
	f.StringVar(&o.from, "from", "", "first database `key`, in hex or escaped")
	f.StringVar(&o.to, "to", "", "database `key` to stop before, in hex or escaped")
	f.Uint64Var(&o.Region, "region", 0, "only this region's records")
	f.Lookup("region").DefValue = ""
	f.Int64Var(&o.Limit, "limit", 0, "stop after so many records")
	f.Lookup("limit").DefValue = ""
	f.BoolVar(&o.Physical, "physical", false, "hidden records and tombstones too, with where they lie")
	a.storeFlags(f)
	return cmd
}

func (a *app) scan(cmd *cobra.Command, dir string, o *rawScanFlags) error {
	switch o.CF {
	case scan.CFDefault, scan.CFLock, scan.CFWrite, scan.CFRaft:
	case "":
		return usagef("which column family? Give --cf default, lock, write or raft")
	default:
		return usagef("--cf is default, lock, write or raft, not %q", o.CF)
	}
	if o.Limit < 0 {
		return usagef("--limit %d", o.Limit)
	}
	var err error
	if o.Lower, err = dbKey("from", o.from); err != nil {
		return err
	}
	if o.Upper, err = dbKey("to", o.to); err != nil {
		return err
	}
	if o.Lower != nil && o.Upper != nil && bytes.Compare(o.Lower, o.Upper) > 0 {
		return usagef("--from is behind --to")
	}
	s, err := a.openStore(dir, a.readOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	show := func(r *scan.RawRecord) error {
		_, err := fmt.Fprintln(out, recordText(r))
		return err
	}
	if a.c.json {
		show = jsonEach[scan.RawRecord](out, "[\n")
	}
	n, bad := 0, 0
	err = s.RawScan(cmd.Context(), o.RawScanOptions, func(r *scan.RawRecord) error {
		n++
		if r.Error != "" {
			bad++
		}
		return base.IO("write", "the output", show(r))
	})
	if a.c.json {
		// The document is closed even after an error: what was read is of use.
		closing := "]\n"
		if n == 0 {
			closing = "[]\n"
		}
		if _, e := out.WriteString(closing); err == nil {
			err = base.IO("write", "the output", e)
		}
	}
	if e := out.Flush(); err == nil {
		err = base.IO("write", "the output", e)
	}
	if err != nil {
		return err
	}
	a.say("%d records", n)
	if bad > 0 {
		return &base.Error{Class: base.ErrCorrupt, Op: "scan", Path: dir, Offset: -1, CF: o.CF, Reason: fmt.Sprintf("%d of %d records do not decode", bad, n)}
	}
	return nil
}

// recordText is one line: the key, what it is, the record, where it lies.
func recordText(r *scan.RawRecord) string {
	var parts []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(true, "%s", r.DBKey)
	add(r.EndKey != "", "..%s", r.EndKey)
	if r.KeyDecoded != nil {
		add(true, "(%s)", r.KeyDecoded)
	}
	add(r.Local != "", "(%s)", strings.TrimSpace(r.Local+regionSuffix(r.Region)))
	if p := r.Physical; p != nil {
		where := "log"
		if p.Level != nil {
			where = fmt.Sprintf("%06d.sst L%d", p.File, *p.Level)
		}
		add(true, "[%s seq %d, %s]", p.Kind, p.Seq, where)
		add(p.Hidden, "hidden")
	}
	if w := r.Write; w != nil {
		add(true, "commit_ts %s %s", w.CommitTS, w.CommitTime)
		add(w.Type != "", "%s start_ts %s", w.Type, w.StartTS)
		add(writeValue(*w) != "", "value %s", writeValue(*w))
		add(writeMore(*w) != "", "%s", writeMore(*w))
	}
	for _, l := range r.Locks {
		add(true, "%s start_ts %s primary %s", l.Type, l.StartTS, l.Primary)
		add(lockMore(l) != "", "%s", lockMore(l))
	}
	if v := r.Value; v != nil {
		if v.StartTS != nil {
			add(true, "ts %s %s", *v.StartTS, v.StartTime)
		}
		add(true, "%d bytes %s", v.Bytes, cut(v.Value))
		add(valueMore(*v) != "", "%s", valueMore(*v))
	}
	if r.State != nil {
		b, err := json.Marshal(r.State)
		add(err == nil, "%s", b)
	}
	add(r.Error != "", "DOES NOT DECODE: %s", r.Error)
	return strings.Join(parts, "  ")
}

func regionSuffix(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf(" of region %d", id)
}
