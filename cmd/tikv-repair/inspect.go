package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/scan"
)

func (a *app) inspectCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect DIR…",
		Short: "Tell what a data directory is and in which state",
		Long: `inspect tells for each data directory of a stopped store: cluster and store id, the TiKV releases that can have written it, column
families with files, levels and bytes, the write-ahead log, the raft store, Titan, regions by state, the newest commit, locks, and
what this tool has done there.

Of a PD data directory it tells: etcd's members and what is committed for sure, stores, the TSO window, ids, safe points, min-resolved-ts, and
what the replication mode (DR Auto-Sync) means for the stores that are left; each number with its source. Directories of several
members are compared: which one is the newest, and where they differ. Nothing is written.`,
		Example: `  tikv-repair inspect /data/tikv
  tikv-repair inspect /data/pd
  tikv-repair inspect --json /data/tikv-1 /data/tikv-2`,
		Args: dirArgs(true),
		RunE: func(_ *cobra.Command, args []string) error { return a.inspect(args) },
	}
	a.storeFlags(cmd.Flags())
	return cmd
}

// inspect goes through all directories; one that cannot be opened does not hide the others.
func (a *app) inspect(dirs []string) error {
	if len(dirs) > 1 && a.c.overridden() {
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(dirs))
	}
	type failed struct {
		Dir   string `json:"dir"`
		Error string `json:"error"`
		Next  string `json:"next,omitempty"`
	}
	out := struct {
		Stores []*scan.Inspection `json:"stores"`
		PD     []*scan.PD         `json:"pd"`
		Failed []failed           `json:"failed"`
	}{[]*scan.Inspection{}, []*scan.PD{}, []failed{}}
	var first error
	var members []*scan.PDMember
	for i, dir := range dirs {
		var in *scan.Inspection
		var err error
		if scan.IsPD(a.fs, dir) {
			var m *scan.PDMember
			if m, err = scan.ReadPDMember(a.fs, dir); err == nil {
				members = append(members, m)
				continue
			}
		} else {
			in, err = a.inspectOne(dir)
		}
		if err == nil && len(in.Unreadable) > 0 {
			first = orErr(first, &base.Error{Class: base.ErrCorrupt, Op: "inspect", Path: dir, Offset: -1, Reason: in.Unreadable[0]})
		}
		if err != nil {
			if first = orErr(first, err); i < len(dirs)-1 || len(dirs) > 1 {
				printError(a.stderr, err)
			}
			out.Failed = append(out.Failed, failed{dir, err.Error(), base.Next(err)})
			continue
		}
		out.Stores = append(out.Stores, in)
		if a.c.json {
			continue
		}
		text := in.Text()
		if len(out.Stores) > 1 {
			text = "\n" + text
		}
		if err := a.print(text); err != nil {
			return err
		}
	}
	// Members of one cluster are told about together, after the stores.
	var err error
	if out.PD, err = scan.GroupPD(members); err != nil {
		return err
	}
	for i, p := range out.PD {
		if a.c.json {
			break
		}
		text := p.Text()
		if i+len(out.Stores) > 0 {
			text = "\n" + text
		}
		if err := a.print(text); err != nil {
			return err
		}
	}
	if a.c.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	}
	if first != nil && len(dirs) > 1 {
		return &base.Error{Class: classOf(first), Op: "inspect", Offset: -1, Reason: fmt.Sprintf("not all of %d directories could be read", len(dirs))}
	}
	return first
}

// inspectOne opens a store with its raft store, or without when that is what is damaged.
func (a *app) inspectOne(dir string) (*scan.Inspection, error) {
	o := a.scanOptions()
	s, err := scan.Open(a.fs, dir, o)
	var raftErr error
	if errors.Is(err, base.ErrCorrupt) || errors.Is(err, base.ErrUnsupported) {
		o.NoRaft, raftErr = true, err
		if s, err = scan.Open(a.fs, dir, o); err != nil {
			return nil, raftErr
		}
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	in := s.Inspect()
	if raftErr != nil {
		in.Unreadable = append(in.Unreadable, "raft store: "+raftErr.Error())
	}
	return in, nil
}

func orErr(first, err error) error {
	if first != nil {
		return first
	}
	return err
}
