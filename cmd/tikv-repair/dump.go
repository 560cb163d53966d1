package main

import (
	"bytes"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

type dumpOptions struct {
	at, format string
	from, to   string
	keyspace   int64
}

func (a *app) dumpCmd() *cobra.Command {
	var o dumpOptions
	cmd := &cobra.Command{
		Use:   "dump --at T DIR",
		Short: "Print the rows that a client would read at T",
		Long: `dump prints the rows that a client would read at T from the regions of this store, sorted by user key. Locks are decided by
their transactions. Nothing is written to the store.

T is a TSO, or a time with a zone (RFC 3339), which covers its whole millisecond.

  tsv    user key and value in upper-case hex, a tab between
  jsonl  one object a line: also the decoded key, commit_ts and start_ts

API V2 keys are printed with their mode byte and keyspace id; --keyspace chooses one keyspace and prints the keys as its clients
know them. Raw data of API V1 has no versions: it is printed as it is, and --at only hides what had expired.

A row that cannot be read is named on standard error and left out; the exit status is then 2. It is 1 when a row depends on a
transaction whose primary is in another store.`,
		Example: `  tikv-repair dump --at 470610466230763527 /data/tikv > rows.tsv
  tikv-repair dump --at 2026-02-03T04:05:06+01:00 --format jsonl /data/tikv`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.dump(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.at, "at", "", "the timestamp `T` to read at")
	f.StringVar(&o.format, "format", string(scan.TSV), "tsv or jsonl")
	f.StringVar(&o.from, "from", "", "first user `key`, in hex")
	f.StringVar(&o.to, "to", "", "user `key` to stop before, in hex")
	f.Int64Var(&o.keyspace, "keyspace", -1, "only this API V2 keyspace `id`, with its keys as clients know them")
	f.Lookup("keyspace").DefValue = ""
	a.storeFlags(f)
	return cmd
}

func (a *app) dump(cmd *cobra.Command, dir string, o *dumpOptions) error {
	d := scan.DumpOptions{Format: scan.DumpFormat(o.format), T: mvcc.MaxTS}
	if d.Format != scan.TSV && d.Format != scan.JSONL {
		return usagef("--format is tsv or jsonl, not %q", o.format)
	}
	if a.c.json {
		d.Format = scan.JSONL
	}
	if o.keyspace >= 1<<24 {
		return usagef("--keyspace %d: a keyspace id has 24 bits", o.keyspace)
	}
	if o.keyspace >= 0 {
		id := uint32(o.keyspace)
		d.Keyspace = &id
	}
	var err error
	if d.Lower, err = userKey("from", o.from); err != nil {
		return err
	}
	if d.Upper, err = userKey("to", o.to); err != nil {
		return err
	}
	if d.Lower != nil && d.Upper != nil && bytes.Compare(d.Lower, d.Upper) > 0 {
		return usagef("--from is behind --to")
	}
	if o.at != "" {
		if d.T, err = parseT("at", o.at); err != nil {
			return err
		}
	}
	s, err := a.openStore(dir, a.readOptions())
	if err != nil {
		return err
	}
	defer s.Close()
	mode, err := s.RawMode()
	if err != nil {
		return err
	}
	switch {
	case !mode.Versioned() && o.at == "":
		a.say("raw data of API %s has no versions: the pairs are printed as they are", mode)
	case !mode.Versioned():
		a.say("raw data of API %s has no versions: the pairs are printed as they are, without those that had expired at %s", mode, scan.Time(d.T))
	default:
		if o.at == "" {
			_, err := parseT("at", o.at)
			return err
		}
		if err := a.echoT(s, d.T); err != nil {
			return err
		}
	}
	if mode == scan.RawNone {
		if n, err := s.BareKeys(); err != nil {
			return err
		} else if n > 0 {
			a.warn("the default column family also holds keys that are not transactional (%d seen in the logs and at table borders): raw data of API V1 beside transactional data is not printed", n)
		}
	}
	view, err := s.NewView(d.T)
	if err != nil {
		return err
	}
	d.Meter, d.Threads = new(scan.Meter), a.c.threads
	d.Bad = func(err error) { printError(a.stderr, err); a.log.error(err.Error(), "next", base.Next(err)) }
	stop := a.watch("dump", d.Meter)
	res, err := view.Dump(cmd.Context(), a.stdout, d)
	stop()
	if err != nil {
		return err
	}
	a.say("%d rows, %s", res.Rows, bytesText(uint64(res.Bytes)))
	for _, p := range view.Problems {
		a.warn("%s: %s", p.Name(), p.What())
	}
	if len(view.Problems) > 0 {
		return &base.Error{Class: base.ErrProblems, Op: "dump", Path: dir, Offset: -1,
			Reason: "the outcome of some transactions is not in this store: their rows are printed as if they had not committed",
			Next:   view.Problems[0].Next()}
	}
	return nil
}
