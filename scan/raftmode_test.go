package scan_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/scan"
)

// recoveryMode changes last_tikv.toml.
func (p *patient) recoveryMode(mode string) {
	p.t.Helper()
	toml := p.path(engine.LastConfig)
	setting := regexp.MustCompile(`\nrecovery-mode = "[^"]*"\n`)
	old := p.read(toml)
	if !setting.Match(old) {
		p.t.Fatalf("%s has no recovery-mode", toml)
	}
	p.write(toml, setting.ReplaceAll(old, fmt.Appendf(nil, "\nrecovery-mode = %q\n", mode)))
}

// A store is read as the TiKV that starts there would, and inspect says so when that is not TiKV's default.
func TestRecoveryModeOfTheStore(t *testing.T) {
	p := admit(t, "single-default")
	p.look(func(s *scan.Store) {
		if in := s.Inspect(); s.RaftReport.Mode != raftlog.TolerateTail || in.Raft.RecoveryMode != "" || strings.Contains(in.Text(), "recovery mode") {
			t.Errorf("%q, inspect %+v", s.RaftReport.Mode, in.Raft)
		}
	})
	p.recoveryMode("tolerate-any-corruption")
	p.look(func(s *scan.Store) {
		if in := s.Inspect(); in.Raft.RecoveryMode != raftlog.TolerateAny ||
			!strings.Contains(in.Text(), "recovery mode    tolerate-any-corruption (raft-engine.recovery-mode of last_tikv.toml)\n") {
			t.Errorf("%+v\n%s", in.Raft, in.Text())
		}
	})
	p.recoveryMode("absolute-consistency")
	_, err := scan.Open(p.base(), p.dir, scan.Options{})
	if !errors.Is(err, base.ErrCorrupt) || !strings.Contains(base.Next(err), `set raft-engine.recovery-mode to "tolerate-tail-corruption"`) {
		t.Errorf("%v; %s", err, base.Next(err))
	}
}
