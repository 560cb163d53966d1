package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/wal"
	"go.uber.org/zap"
)

// Made is one directory that make left behind, in members.json.
type Made struct {
	Name, Dir, PeerPort string
	// Acked is the revision of the last change that a client was told of.
	Acked int64
}

// scenario says how members are configured and what happens to them.
type scenario struct {
	members   int
	segment   int64  // bytes of a WAL segment
	snapshots int    // entries between snapshots
	interval  string // of the database's commits: an hour keeps everything in the WAL
	compacts  bool   // the load compacts now and then, which commits the database too
	compact   int    // batch limit of compaction; the next batch comes 10 ms later
	run       func(c *cluster) error
}

const hour = "1h"

var scenarios = map[string]scenario{
	// One member killed under load; nothing of the load is in its database.
	"tail": {members: 1, segment: 4 << 20, snapshots: 100000, interval: hour, run: func(c *cluster) error { return c.loadAndKill(600) }},
	// The same with ordinary commits every 20 ms, snapshots, and a WAL of many segments.
	"segments": {compacts: true, members: 1, segment: 32 << 10, snapshots: 150, interval: "20ms", run: func(c *cluster) error { return c.loadAndKill(900) }},
	// Snapshots, and a long tail after the last one.
	"snapshots": {members: 1, segment: 64 << 10, snapshots: 200, interval: hour, run: func(c *cluster) error { return c.loadAndKill(700) }},
	// Killed in the middle of a compaction.
	"compaction": {compacts: true, members: 1, segment: 4 << 20, snapshots: 100000, interval: "20ms", compact: 2, run: (*cluster).interruptCompaction},
	// Three members killed one after the other under load.
	"three": {compacts: true, members: 3, segment: 4 << 20, snapshots: 100000, interval: "20ms", run: func(c *cluster) error { return c.loadAndKill(500) }},
	// A member that was away so long that the leader sends its database.
	"sent": {members: 3, segment: 4 << 20, snapshots: 60, interval: "20ms", run: (*cluster).sent},
	// Members added, updated, promoted, removed.
	"members": {members: 3, segment: 4 << 20, snapshots: 40, interval: hour, run: (*cluster).changeMembers},
	// A small one, for engine/pd/etcd/testdata.
	"small": {members: 1, segment: 16 << 10, snapshots: 50, interval: hour, run: func(c *cluster) error { return c.loadAndKill(110) }},
	// The alarm for a full database is raised and lowered under load.
	"nospace": {compacts: true, members: 1, segment: 4 << 20, snapshots: 100000, interval: hour, run: (*cluster).nospace},
}

// member runs one member until it is killed.
func member(args []string) error {
	fs := flag.NewFlagSet("member", flag.ContinueOnError)
	name, dir, peer := fs.String("name", "", ""), fs.String("dir", "", ""), fs.String("peer", "", "")
	initial, state, segment := fs.String("initial", "", ""), fs.String("state", "", ""), fs.Int64("segment", 0, "")
	snapshots, interval, compact := fs.Uint64("snapshots", 0, ""), fs.Duration("interval", 0, ""), fs.Int("compact", 0, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	wal.SegmentSizeBytes = *segment
	cfg, err := config(*name, *dir, *peer)
	if err != nil {
		return err
	}
	cfg.InitialCluster, cfg.ClusterState = *initial, *state
	cfg.StrictReconfigCheck = false // it wants members that have been connected for 5 s
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = *snapshots, 10
	cfg.BackendBatchInterval, cfg.BackendBatchLimit = *interval, 1<<30
	if *compact != 0 {
		cfg.ExperimentalCompactionBatchLimit = *compact
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	if err := ready(e); err != nil {
		return err
	}
	fmt.Println(e.Clients[0].Addr())
	// The parent holds the other end: when it dies, so does this.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// proc is a member in a process of its own.
type proc struct {
	name, dir, peer, client string
	cmd                     *exec.Cmd
	stdin                   io.Closer
}

type cluster struct {
	scenario
	out     string
	initial string
	state   string // "new", later "existing"
	rng     *rand.Rand
	procs   []*proc
	acked   int64
	leases  []clientv3.LeaseID

	keepLeases bool
}

func makeDirs(args []string) (err error) {
	if len(args) != 3 {
		return errors.New("usage: make SCENARIO SEED OUT")
	}
	s, ok := scenarios[args[0]]
	if !ok {
		return fmt.Errorf("unknown scenario %q", args[0])
	}
	seed, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	c := &cluster{scenario: s, out: args[2], state: embed.ClusterStateFlagNew, rng: rand.New(rand.NewSource(seed))}
	var urls []string
	for i := range s.members {
		p, err := c.newProc(fmt.Sprintf("m%d", i))
		if err != nil {
			return err
		}
		c.procs = append(c.procs, p)
		urls = append(urls, p.name+"=http://127.0.0.1:"+p.peer)
	}
	c.initial = strings.Join(urls, ",")
	defer func() {
		for _, p := range c.procs {
			p.kill()
		}
	}()
	if err := c.start(c.procs...); err != nil {
		return err
	}
	if err := c.leaderFirst(); err != nil {
		return err
	}
	if err := s.run(c); err != nil {
		return err
	}
	var made []Made
	for _, p := range c.procs {
		p.kill()
		made = append(made, Made{p.name, p.dir, p.peer, c.acked})
	}
	b, err := json.Marshal(made)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.out, "members.json"), b, 0o644)
}

func (c *cluster) newProc(name string) (*proc, error) {
	port, err := freePort()
	return &proc{name: name, dir: filepath.Join(c.out, name), peer: port}, err
}

// start runs members and waits until all of them serve.
func (c *cluster) start(procs ...*proc) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	outs := make([]io.Reader, len(procs))
	for i, p := range procs {
		p.cmd = exec.Command(self, "member", "-name", p.name, "-dir", p.dir, "-peer", p.peer, "-initial", c.initial, "-state", c.state, "-segment", fmt.Sprint(c.segment),
			"-snapshots", fmt.Sprint(c.snapshots), "-interval", c.interval, "-compact", fmt.Sprint(c.compact))
		p.cmd.Stderr = os.Stderr
		in, err := p.cmd.StdinPipe()
		if err != nil {
			return err
		}
		p.stdin = in
		if outs[i], err = p.cmd.StdoutPipe(); err != nil {
			return err
		}
		if err := p.cmd.Start(); err != nil {
			return err
		}
	}
	for i, p := range procs {
		line, err := bufio.NewReader(outs[i]).ReadString('\n')
		if err != nil {
			return fmt.Errorf("member %s did not start: %w", p.name, err)
		}
		p.client = strings.TrimSpace(line)
	}
	return nil
}

// leaderFirst puts the leader at the head of procs: requests go to it, and it is the last to be killed or removed.
func (c *cluster) leaderFirst() error {
	return c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		for i, p := range c.procs {
			s, err := cl.Status(ctx, p.client)
			if err != nil {
				return err
			}
			if s.Leader == s.Header.MemberId {
				c.procs[0], c.procs[i] = c.procs[i], c.procs[0]
				return nil
			}
		}
		return errors.New("no member leads")
	})
}

// kill is SIGKILL.
func (p *proc) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.stdin.Close()
	p.cmd = nil
}

func (c *cluster) dial(p *proc) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{p.client}, DialTimeout: timeout, Logger: zap.NewNop()})
}

// with calls fn with a client of the member.
func (c *cluster) with(p *proc, fn func(ctx context.Context, cl *clientv3.Client) error) error {
	cl, err := c.dial(p)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return fn(ctx, cl)
}

// loadAndKill does n operations and then kills the members one by one, while more are under way.
func (c *cluster) loadAndKill(n int) error {
	return c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		if err := c.load(ctx, cl, n/3); err != nil {
			return err
		}
		// The revocation of a lease commits the database: no long tail with them.
		c.keepLeases = c.interval == hour
		if err := c.load(ctx, cl, n-n/3); err != nil {
			return err
		}
		done := make(chan int64)
		more, stop := context.WithCancel(ctx)
		go func() {
			last := c.acked
			for i := 0; ; i++ {
				r, err := cl.Put(more, fmt.Sprintf("late/%d", i%40), fmt.Sprint(i))
				if err != nil {
					done <- last
					return
				}
				last = r.Header.Revision
			}
		}()
		// The others first: the leader's client gets its answers while a majority lives.
		for i := len(c.procs) - 1; i >= 0; i-- {
			time.Sleep(time.Duration(20+c.rng.Intn(60)) * time.Millisecond)
			c.procs[i].kill()
		}
		stop()
		c.acked = <-done
		return nil
	})
}

// interruptCompaction compacts and kills while old revisions are being removed.
func (c *cluster) interruptCompaction() error {
	return c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		if err := c.load(ctx, cl, 400); err != nil {
			return err
		}
		// The load must not compact beyond what is compacted here, nor after it.
		c.compacts = false
		if err := c.load(ctx, cl, 100); err != nil {
			return err
		}
		if _, err := cl.Compact(ctx, c.acked-20); err != nil {
			return err
		}
		return c.load(ctx, cl, 20)
	})
}

// sent leaves in the last member what a crash leaves between the arrival of a leader's database and its use: the old one is still db.
func (c *cluster) sent() error {
	late := c.procs[2]
	return c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		if err := c.load(ctx, cl, 40); err != nil {
			return err
		}
		late.kill()
		old, err := os.ReadFile(filepath.Join(late.dir, "member", "snap", "db"))
		if err != nil {
			return err
		}
		if err := c.load(ctx, cl, 300); err != nil {
			return err
		}
		if err := c.start(late); err != nil {
			return err
		}
		// It serves once it has caught up.
		if err := c.with(late, func(ctx context.Context, cl *clientv3.Client) error { _, err := cl.Get(ctx, "x"); return err }); err != nil {
			return err
		}
		late.kill()
		return putBack(filepath.Join(late.dir, "member", "snap"), old)
	})
}

// putBack renames db to the name under which it came, and restores the one before.
func putBack(dir string, old []byte) error {
	snaps, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil || len(snaps) == 0 {
		return fmt.Errorf("no snapshot arrived: %w", err)
	}
	newest := filepath.Base(snaps[len(snaps)-1])
	_, index, _ := strings.Cut(strings.TrimSuffix(newest, ".snap"), "-")
	db := filepath.Join(dir, "db")
	if err := os.Rename(db, filepath.Join(dir, index+".snap.db")); err != nil {
		return err
	}
	return os.WriteFile(db, old, 0o600)
}

// changeMembers adds a learner and promotes it, moves a member, removes another, adds one that never starts.
func (c *cluster) changeMembers() error {
	err := c.with(c.procs[0], func(ctx context.Context, cl *clientv3.Client) error {
		if err := c.load(ctx, cl, 150); err != nil {
			return err
		}
		learner, err := c.newProc("m3")
		if err != nil {
			return err
		}
		url := "http://127.0.0.1:" + learner.peer
		r, err := cl.MemberAddAsLearner(ctx, []string{url})
		if err != nil {
			return err
		}
		c.initial, c.state = c.initial+",m3="+url, embed.ClusterStateFlagExisting
		c.procs = append(c.procs, learner)
		if err := c.start(learner); err != nil {
			return fmt.Errorf("start the learner: %w", err)
		}
		if err := promote(ctx, cl, r.Member.ID); err != nil {
			return fmt.Errorf("promote: %w", err)
		}
		for _, m := range r.Members {
			switch m.Name {
			case c.procs[1].name:
				_, err = cl.MemberRemove(ctx, m.ID)
			case c.procs[2].name:
				_, err = cl.MemberUpdate(ctx, m.ID, []string{"http://127.0.0.1:" + c.procs[2].peer, "http://127.0.0.2:" + c.procs[2].peer})
			}
			if err != nil {
				return fmt.Errorf("change member %s: %w", m.Name, err)
			}
		}
		if _, err := cl.MemberAdd(ctx, []string{"http://127.0.0.3:" + learner.peer}); err != nil {
			return fmt.Errorf("add member: %w", err)
		}
		return c.load(ctx, cl, 60)
	})
	if err != nil {
		return err
	}
	c.procs[1].kill()
	c.procs = append(c.procs[:1], c.procs[2:]...)
	return nil
}

// promote waits until the learner is in step with the leader.
func promote(ctx context.Context, cl *clientv3.Client, id uint64) error {
	for {
		_, err := cl.MemberPromote(ctx, id)
		if err == nil || !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberLearnerNotReady) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
