package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

func (a *app) mvccCmd() *cobra.Command {
	var k oneKey
	cmd := &cobra.Command{
		Use:   "mvcc (--key HEX | --db-key KEY | --table ID --handle ID) DIR",
		Short: "Show one key in all column families",
		Long: `mvcc shows what a store holds about one key: its lock, its write records from the newest to the oldest, its values. Records that
do not decode are shown in hex with the reason. Nothing is written.

Values longer than 64 bytes are cut in the table; --json has them whole.`,
		Example: `  tikv-repair mvcc --key 7480000000000000465F728000000000000064 /data/tikv
  tikv-repair mvcc --table 70 --handle 100 --json /data/tikv`,
		Args: dirArgs(false),
		RunE: func(_ *cobra.Command, args []string) error { return a.mvcc(args[0], &k) },
	}
	cmd.Flags().SortFlags = false
	k.addFlags(cmd.Flags())
	a.storeFlags(cmd.Flags())
	return cmd
}

func (a *app) mvcc(dir string, k *oneKey) error {
	if err := k.check(); err != nil {
		return err
	}
	s, err := a.openStore(dir, a.readOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	user, err := k.of(s)
	if err != nil {
		return err
	}
	r, err := s.Key(user)
	if err != nil {
		return err
	}
	if a.c.json {
		err = a.printJSON(r)
	} else {
		err = a.print(keyText(r))
	}
	if err != nil {
		return err
	}
	if r.Region == 0 {
		a.warn("no live region of this store holds the key: what is here is left over, clients do not see it")
	}
	if unreadable(r) {
		return &base.Error{Class: base.ErrCorrupt, Op: "mvcc", Path: dir, Offset: -1, Reason: "the key has a record that cannot be read",
			Next: "another replica of region " + fmt.Sprint(r.Region) + " may have it"}
	}
	return nil
}

// unreadable tells whether any record of the key does not decode or lacks its value.
func unreadable(r *scan.KeyReport) bool {
	bad := false
	for _, l := range r.Locks {
		bad = bad || l.Error != "" || l.ValueMissing
	}
	for _, w := range r.Writes {
		bad = bad || w.Error != "" || w.ValueMissing
	}
	for _, vs := range [][]scan.ValueView{r.Values, r.Raw} {
		for _, v := range vs {
			bad = bad || v.Error != ""
		}
	}
	return bad
}

func keyText(r *scan.KeyReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "key     %s\nis      %s\ndb key  %s\nregion  %s\n", r.Key, r.KeyDecoded, r.DBKey, regionText(r.Region))
	if r.Empty() {
		b.WriteString("\nnothing is stored under this key\n")
	}
	section(&b, "lock column family", len(r.Locks), func(t *table) {
		t.add("type", "start_ts", "started", "primary", "more")
		for _, l := range r.Locks {
			t.add(l.Type, l.StartTS, l.StartTime, l.Primary, lockMore(l))
		}
	})
	section(&b, "write column family, newest first", len(r.Writes), func(t *table) {
		t.add("commit_ts", "committed", "type", "start_ts", "value", "more")
		for _, w := range r.Writes {
			t.add(w.CommitTS, w.CommitTime, w.Type, w.StartTS, writeValue(w), writeMore(w))
		}
	})
	section(&b, "default column family, newest first", len(r.Values), func(t *table) {
		t.add("start_ts", "started", "bytes", "value", "of", "more")
		for _, v := range r.Values {
			t.add(*v.StartTS, v.StartTime, v.Bytes, cut(v.Value), v.Owner, valueMore(v))
		}
	})
	section(&b, "raw data, newest first", len(r.Raw), func(t *table) {
		t.add("ts", "time", "bytes", "value", "more")
		for _, v := range r.Raw {
			ts := "-"
			if v.StartTS != nil {
				ts = v.StartTS.String()
			}
			t.add(ts, v.StartTime, v.Bytes, cut(v.Value), valueMore(v))
		}
	})
	return b.String()
}

func regionText(id uint64) string {
	if id == 0 {
		return "none here"
	}
	return fmt.Sprint(id)
}

func section(b *strings.Builder, title string, rows int, fill func(*table)) {
	if rows == 0 {
		return
	}
	var t table
	fill(&t)
	fmt.Fprintf(b, "\n%s\n%s", title, &t)
}

// cut shortens a value in hex for a table.
func cut(hex string) string {
	const most = 128
	if len(hex) <= most {
		return hex
	}
	return hex[:most] + "…"
}

func writeValue(w scan.WriteView) string {
	switch {
	case w.ShortValue != nil:
		return cut(*w.ShortValue)
	case w.ValueMissing:
		return "MISSING"
	case w.Type == "put":
		return "(default)"
	}
	return ""
}

func writeMore(w scan.WriteView) string {
	var m []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			m = append(m, fmt.Sprintf(format, args...))
		}
	}
	add(w.Error != "", "DOES NOT DECODE: %s: %s", w.Error, w.Raw)
	add(w.Protected, "protected")
	add(w.OverlappedRollback, "overlapped rollback")
	if w.GCFence != nil {
		add(true, "gc_fence %s %s", *w.GCFence, w.GCFenceTime)
	}
	if w.LastChangeTS != nil {
		add(true, "last change %s", lastChange(*w.LastChangeTS))
	}
	add(w.TxnSource != 0, "txn source %d", w.TxnSource)
	add(w.Unknown != "", "unknown fields %s", w.Unknown)
	return strings.Join(m, ", ")
}

func lastChange(ts mvcc.TS) string {
	if ts == 0 {
		return "none"
	}
	return ts.String()
}

func lockMore(l scan.LockView) string {
	var m []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			m = append(m, fmt.Sprintf(format, args...))
		}
	}
	add(l.Error != "", "DOES NOT DECODE: %s: %s", l.Error, l.Raw)
	add(l.Shared, "shared")
	add(l.IsPrimary, "primary")
	add(l.ForUpdateTS != 0, "for_update_ts %s", l.ForUpdateTS)
	add(l.MinCommitTS != 0, "min_commit_ts %s", l.MinCommitTS)
	add(l.AsyncCommit, "async commit")
	add(len(l.Secondaries) > 0, "%d secondaries", len(l.Secondaries))
	add(l.ValueMissing, "value MISSING")
	if l.ShortValue != nil {
		add(true, "value %s", cut(*l.ShortValue))
	}
	add(l.Unknown != "", "unknown fields %s", l.Unknown)
	return strings.Join(m, ", ")
}

func valueMore(v scan.ValueView) string {
	var m []string
	if v.Error != "" {
		m = append(m, "CANNOT BE READ: "+v.Error)
	}
	if v.InTitan {
		m = append(m, "in Titan")
	}
	if v.Deleted {
		m = append(m, "deleted")
	}
	if v.ExpireUnix != 0 {
		m = append(m, fmt.Sprintf("expires at %d", v.ExpireUnix))
	}
	return strings.Join(m, ", ")
}
