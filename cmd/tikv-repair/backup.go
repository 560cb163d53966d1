package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/repair"
)

type backupOptions struct {
	planID string
	yes    bool
}

func (o *backupOptions) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.planID, "plan-id", "", "the repair to take, an `id` that status prints; default: the one in progress, else the newest")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	a.storeFlags(f)
}

func (a *app) backup(o *backupOptions, question string) repair.BackupOptions {
	bo := repair.BackupOptions{Overrides: a.scanOptions().Overrides, PlanID: o.planID, Memory: int64(a.c.memory)}
	bo.Confirm = func(b *repair.Backup) (bool, error) {
		a.say("%s, %s, begun %s, state %s; backup of %d files, %s", b.PlanID, strings.TrimSuffix(b.Verb+" to "+b.ToTime, " to "), b.Started, b.State, b.SavedFiles, bytesText(uint64(b.SavedBytes)))
		return a.ask(question, o.yes)
	}
	return bo
}

func (a *app) backupResult(b *repair.Backup, text string) error {
	if a.c.json {
		return a.printJSON(b)
	}
	return a.print(text + "\n")
}

func (a *app) undoCmd() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "undo DIR",
		Short: "Take a repair back",
		Long: `undo restores a store to what it was before a repair, from any point at which the repair stands, also from an interrupted one, and proves it
against the fingerprint taken before. Nothing is deleted: the new files move into the backup until discard.

It refuses once TiKV has been started on the repaired store.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := repair.Undo(a.fs, args[0], a.backup(&o, "Take it back?"))
			if err != nil {
				return err
			}
			text := fmt.Sprintf("Undone and checked: %s is what it was before %s.", args[0], b.PlanID)
			for _, p := range b.WrittenAgain {
				text += "\nWritten since by a start that was stopped, and kept until discard: " + p
			}
			return a.backupResult(b, text)
		},
	}
	o.add(a, cmd)
	return cmd
}

func (a *app) discardCmd() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "discard DIR",
		Short: "Drop the backup of a repair",
		Long: `discard drops the backup of a finished or undone repair; after it there is no way back. Files in the store's own directories that the repaired
store no longer refers to are left to TiKV, which purges them at its next start.`,
		Args: dirArgs(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := repair.Discard(a.fs, args[0], a.backup(&o, "Drop the backup for good?"))
			if err != nil {
				return err
			}
			return a.backupResult(b, fmt.Sprintf("The backup of %s is gone: %d files, %s.", b.PlanID, b.SavedFiles, bytesText(uint64(b.SavedBytes))))
		},
	}
	o.add(a, cmd)
	return cmd
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "status DIR…",
		Short: "Show what was done to a store",
		Long: `status lists the repairs that a data directory knows of, what the one in progress (or the newest) does to each region, and what to type
next. It takes no locks.`,
		Args: dirArgs(true),
		RunE: func(_ *cobra.Command, args []string) error {
			all := map[string][]*repair.Backup{}
			for _, dir := range args {
				bs, err := repair.Status(a.fs, dir)
				if err != nil {
					return err
				}
				all[dir] = bs
			}
			if a.c.json {
				return a.printJSON(all)
			}
			for _, dir := range args {
				if err := a.print(statusText(dir, all[dir])); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// maxOperationLines bounds what the text lists of a repair's operations; --json has all.
const maxOperationLines = 40

// statusText lists the repairs of a directory, and of the newest one what it does to each region.
func statusText(dir string, bs []*repair.Backup) string {
	if len(bs) == 0 {
		return dir + ": no repair was done here, or its backup has been discarded\n"
	}
	var t table
	t.add("plan", "verb", "to", "begun", "state", "fence", "backup")
	last := bs[len(bs)-1]
	for _, b := range bs {
		fence, state := "-", b.State
		if b.Fenced {
			fence, last = "up", b
		}
		if state == "" {
			state = "never begun"
		}
		t.add(b.PlanID, b.Verb, orDash(b.ToTime), orDash(b.Started), state, fence, fmt.Sprintf("%d files, %s", b.SavedFiles, bytesText(uint64(b.SavedBytes))))
	}
	return dir + "\n" + t.String() + operationTable(last) + "next: " + last.Next + "\n"
}

func operationTable(b *repair.Backup) string {
	if len(b.Operations) == 0 {
		return ""
	}
	var t table
	t.add("  id", "region", "kind", "store", "state", "start", "end", "error")
	for i, o := range b.Operations {
		if i == maxOperationLines {
			break
		}
		region := "all"
		if o.Region != 0 {
			region = fmt.Sprint(o.Region)
		}
		store := "-"
		if o.Store != 0 {
			store = fmt.Sprint(o.Store)
		}
		t.add(fmt.Sprintf("  %d", o.ID), region, o.Kind, store, o.State, orDash(o.Started), orDash(o.Ended), orDash(o.Error))
	}
	text := "operations of " + b.PlanID + "\n" + t.String()
	if n := len(b.Operations) - maxOperationLines; n > 0 {
		text += fmt.Sprintf("  and %d more; --json lists them all\n", n)
	}
	return text
}
