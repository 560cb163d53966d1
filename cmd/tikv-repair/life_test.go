package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

var updatePhases = flag.Bool("update-phases", false, "write testdata/phases.golden anew")

// slowClock is a clock that only file operations move. Whatever is due at a moment that they pass is done at that moment.
type slowClock struct {
	passing sync.Mutex // one operation at a time moves it
	mu      sync.Mutex
	t       time.Time
	due     time.Time
	every   time.Duration
	do      func()
}

func (c *slowClock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *slowClock) tick(every time.Duration, do func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.every, c.due, c.do = every, c.t.Add(every), do
	return func() { c.mu.Lock(); defer c.mu.Unlock(); c.do = nil }
}

func (c *slowClock) pass(d time.Duration) {
	c.passing.Lock()
	defer c.passing.Unlock()
	end := c.now().Add(d)
	for {
		c.mu.Lock()
		if c.do == nil || c.due.After(end) {
			c.t = end
			c.mu.Unlock()
			return
		}
		do := c.do
		c.t, c.due = c.due, c.due.Add(c.every)
		c.mu.Unlock()
		do()
	}
}

// listener notes when something was written, and what progress said.
type listener struct {
	clock *slowClock
	mu    sync.Mutex
	last  time.Time
	worst time.Duration // between two signs
	where string        // the last sign before it
	text  bytes.Buffer
	signs []signLine
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard(string(p))
	var s signLine
	if json.Unmarshal(p, &s) == nil && s.Step != "" {
		l.signs = append(l.signs, s)
		return len(p), nil
	}
	return l.text.Write(p)
}

func (l *listener) heard(what string) {
	now := l.clock.now()
	if gap := now.Sub(l.last); gap > l.worst {
		l.worst, l.where = gap, what
	}
	l.last = now
}

// lifeStory is a sequence of commands on the directories of one fixture.
type lifeStory struct {
	fixture string
	with    []fixtures.Option
	// commands, with the exit status in front.
	commands []string
}

func lifeStories(t *testing.T) []lifeStory {
	ts := fmt.Sprint(fixtures.Facts(t, "single-default").T2)
	return []lifeStory{
		{"single-default", nil, []string{
			"0 inspect /data", "0 check /data", "0 check --quick /data", "0 dump --at " + ts + " /data", "0 region /data", "0 mvcc --table 70 --handle 100 /data",
			"0 scan --cf lock /data", "0 scan --cf write --physical /data", "0 raft-log --region 4 /data",
			"0 reset --to-ts " + ts + " --safe-point 1 --dry-run /data", "0 reset --to-ts " + ts + " --safe-point 1 --yes /data",
			"0 verify --to-ts " + ts + " /data", "0 status /data", "0 undo --yes /data", "0 discard --yes /data", "0 clean --yes /data",
		}},
		{"multi4-dr-learner", []fixtures.Option{fixtures.WithPD()}, []string{
			"0 inspect /pd", "0 inspect --limits --pd /pd /store0 /store3", "0 inspect --pd-steps /pd /store0 /store3",
			"0 collect /store0 -o /s0", "0 collect /store3 -o /s3", "0 plan /s0 /s3 --failed-stores 1,8 -o /first",
			"0 collect --answer /first /store0 -o /a0", "0 collect --answer /first /store3 -o /a3",
			"0 plan /s0 /s3 /a0 /a3 --failed-stores 1,8 --pd /pd -o /plan",
			"0 apply --plan /plan --dry-run /store0", "0 apply --plan /plan --yes /store0", "0 apply --plan /plan --yes /store3",
			"0 verify --plan /plan --hash /store0 /store3", "0 release --plan /plan --yes /store0 /store3",
		}},
		{"multi5-lost3", nil, []string{
			"0 cut-tail --regions 61 --force=raft-tail,multi-store --yes /store1", "0 undo --yes /store1",
			"0 apply-tail --from /store3 --from /store4 --yes /store1", "0 undo --yes /store1",
		}},
		{"single-levels", nil, []string{
			"0 tombstone --regions 4 --force=last-replica --yes /data", "0 undo --yes /data",
			"0 set-peers --regions 4 --peer 5@1 --peer 900@77:learner --force=multi-store --yes /data", "0 undo --yes /data",
		}},
		{"multi4-dr-learner", []fixtures.Option{fixtures.WithPD()}, []string{
			"0 drop-peers --failed-stores 1,8 --pd /pd --yes /store0 /store3", "0 clean --yes /pd", "0 undo --yes /pd",
		}},
	}
}

// However slow the disk is, no verb is silent for more than two seconds, from its start to its end, opening included. Each file operation
// takes more than two seconds here, so that every phase in which one happens is heard; one operation of each run takes a minute. The
// golden file lists them: it is the table of what can last, and of what it counts.
func TestSignsOfLife(t *testing.T) {
	seen := map[string]map[string]string{} // verb, phase, what it counts
	for _, story := range lifeStories(t) {
		mem := fixtures.Mem(t, story.fixture, story.with...)
		for _, line := range story.commands {
			words := strings.Fields(line)
			slowRun(t, mem, line, words[0], words[1:], seen)
		}
	}
	var b strings.Builder
	for _, verb := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&b, "%s\n", verb)
		for _, phase := range slices.Sorted(maps.Keys(seen[verb])) {
			fmt.Fprintf(&b, "  %-55s %s\n", phase, seen[verb][phase])
		}
	}
	const golden = "testdata/phases.golden"
	if *updatePhases {
		if err := os.MkdirAll(filepath.Dir(golden), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("other phases than %s has (go test -update-phases):\n%s", golden, b.String())
	}
}

func slowRun(t *testing.T, mem *vfs.MemFS, line, status string, args []string, seen map[string]map[string]string) {
	t.Helper()
	clock := &slowClock{t: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)}
	var ops atomic.Int64
	slow := base.NewPulse(clock.now, func() error {
		d := 2100 * time.Millisecond
		if ops.Add(1) == 20 {
			d = time.Minute
		}
		clock.pass(d)
		return nil
	})
	ear := &listener{clock: clock, last: clock.now()}
	var stdout bytes.Buffer
	e := memEnv(mem, &stdout, ear)
	e.fs, e.now, e.every = slow.Watch(e.fs), clock.now, clock.tick
	a := newApp(e)
	// One thread: operations of several pass one after the other here, and would make each other wait.
	got := a.run(context.Background(), append(args, "--progress=json", "--threads=1"))
	if fmt.Sprint(got) != status {
		t.Fatalf("%s: exit status %d\n%s", line, got, ear.text.String())
	}
	ear.heard("the end")
	if ear.worst > longestSilence {
		t.Errorf("%s: silent for %s before %q", line, ear.worst, ear.where)
	}
	if int64(len(ear.signs)) < ops.Load()/2 {
		t.Errorf("%s: %d operations and %d signs of life", line, ops.Load(), len(ear.signs))
	}
	verb := args[0]
	if seen[verb] == nil {
		seen[verb] = map[string]string{}
	}
	for _, s := range ear.signs {
		phase := s.Phase
		if i := strings.IndexByte(phase, '/'); i >= 0 {
			phase = phase[:i] + "FILE"
		}
		counts := s.Unit
		if s.Total == 0 && s.Unit == "bytes" {
			counts = "bytes read and written"
		} else if s.Total > 0 {
			counts += ", time left"
		}
		if have := seen[verb][phase]; len(have) < len(counts) || phase == "" {
			seen[verb][phase] = counts
		}
		if s.Step != verb {
			t.Errorf("%s: a sign of %q", line, s.Step)
		}
	}
}
