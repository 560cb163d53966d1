package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// profile rewinds a directory within this process, or inspects it when there is no T, and writes a profile of the processor's time to a
// file. It says when each step begins.
func profile(dir string, t mvcc.TS, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%6.3f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if t == 0 {
		s, err := scan.Open(base.NewOS(), dir, scan.Options{})
		if err != nil {
			return err
		}
		say("opened")
		in := s.Inspect()
		say("newest commit %s, %d regions, %d locked keys", in.Newest, in.Regions.Total, in.Locks.Keys)
		return s.Close()
	}
	safe := mvcc.TS(1)
	o := repair.ResetOptions{RewindOptions: repair.RewindOptions{T: t, SafePoint: &safe, Now: began}, Say: say}
	res, err := repair.Reset(context.Background(), base.NewOS(), dir, scan.Options{}, o)
	if err != nil {
		return err
	}
	say("%s: %d versions removed, %d tables rewritten, %d kept; %.3f s without opening", res.State, res.VersionsRemoved, res.FilesRewritten, res.FilesKept, res.Seconds)
	return nil
}
