package plan

import (
	"encoding/binary"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

var million = flag.Bool("million", false, "plan a million regions with three replicas each, within 2 GiB and 10 s")

// largeInput is a cluster of 300 stores; the stores from 298 on are gone, and with them the quorum of every hundredth region and all replicas of
// a few. Each replica has one run of writes in its log, and one region in two has a replica that lags behind.
func largeInput(regions int) (Input, Options) {
	const stores, up = 300, 297
	var in Input
	opt := Options{PlanID: "p", Tool: "t", Made: "m"}
	for s := uint64(1); s <= stores; s++ {
		if s > up {
			opt.FailedStores = append(opt.FailedStores, s)
			continue
		}
		in.Stores = append(in.Stores, &StoreReport{ClusterID: 1, StoreID: s, Engine: EngineV1, APIVersion: "V1", MaxID: uint64(regions) * 10})
	}
	in.open = new(StoreReport)
	key := func(i int) raftstate.Key {
		if i == 0 || i == regions {
			return nil
		}
		user := append([]byte("t"), binary.BigEndian.AppendUint64(nil, uint64(i)^1<<63)...)
		return mvcc.EncodeBytes(nil, append(user, "_r"...))
	}
	end := key(0)
	for i := range regions {
		start := end
		end = key(i + 1)
		id := uint64(i)*4 + 1000
		r := raftstate.Region{ID: id, StartKey: start, EndKey: end, Epoch: raftstate.Epoch{ConfVer: 5, Version: uint64(i%7) + 1}}
		for j := range 3 {
			r.Peers = append(r.Peers, raftstate.Peer{ID: id + uint64(j) + 1, StoreID: uint64((i*7+j)%stores) + 1})
		}
		for j, q := range r.Peers {
			if q.StoreID > up {
				continue
			}
			lag := uint64(0)
			if j == i%3 {
				lag = uint64(i % 2)
			}
			p := &PeerReport{StoreID: q.StoreID, RegionID: id, Region: r, Usable: true, RaftNumbers: RaftNumbers{Truncated: raftstate.TruncatedState{Index: 100, Term: 6},
				Applied: 120 - lag, AppliedTerm: 7, Last: 120, LastTerm: 7, Commit: 120, CommitTerm: 7, HardTerm: 8, HardCommit: 120, FirstStored: 101, LastStored: 120}, Bytes: 96 << 20}
			binary.BigEndian.PutUint64(p.Fingerprint[:], q.ID)
			p.Log = []LogGroup{{First: 101, Last: 120 - lag, Term: 7, Kind: GroupWrite, Epoch: r.Epoch, Write: &WriteSum{Records: 60, Versions: 20, MinCommitTS: 1000, MaxCommitTS: 2000}}}
			if lag > 0 {
				p.Log = append(p.Log, LogGroup{First: 120, Last: 120, Term: 7, Kind: GroupWrite, Epoch: r.Epoch, Write: &WriteSum{Records: 3, Versions: 1, MinCommitTS: 2000, MaxCommitTS: 2000}})
			}
			in.share(p)
			in.Peers = append(in.Peers, p)
		}
	}
	in.open, in.shared = nil, nil
	return in, opt
}

func BenchmarkMake(b *testing.B) {
	in, opt := largeInput(20_000)
	b.ReportAllocs()
	for b.Loop() {
		if p, _ := Make(in, opt); p.Summary.Rewritten == 0 {
			b.Fatal("no region has lost its quorum")
		}
	}
}

// TestMillionRegions prints what a plan for a million regions takes, and what the check of its invariants takes.
func TestMillionRegions(t *testing.T) {
	n, memory := 1_000_000, int64(1900<<20)
	if !*million {
		n, memory = 50_000, 256<<20
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memory))
	in, opt := largeInput(n)
	stop := make(chan struct{})
	peak := make(chan uint64)
	go func() { // the most that is in use at any time, the reports included
		var top uint64
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			top = max(top, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				peak <- top
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	runtime.GC()
	start, cpu := time.Now(), cpuTime(t)
	p, problems := Make(in, opt)
	took := time.Since(start)
	cpu = cpuTime(t) - cpu
	close(stop)
	top := <-peak
	start = time.Now()
	violations := Check(in, p)
	checked := time.Since(start)
	fmt.Printf("plan of %d regions, %d peers: %s (%s of CPU), peak memory %d MiB; check of its invariants %s; %d healthy, %d rewritten, %d created, %d problems\n", n, len(in.Peers),
		took.Round(time.Millisecond), cpu.Round(time.Millisecond), top>>20, checked.Round(time.Millisecond), p.Summary.Healthy, p.Summary.Rewritten, p.Summary.Created, len(problems))
	if len(violations) > 0 {
		t.Error(violations[0])
	}
	if p.Summary.Healthy == 0 || p.Summary.Rewritten == 0 {
		t.Errorf("%+v", p.Summary)
	}
	// On a machine that does something else as well, the time on the wall says nothing.
	if *million && (cpu > 20*time.Second || took > 10*time.Second && cpu > took || top > 2<<30) {
		t.Errorf("it took %s (%s of CPU) and %d MiB", took, cpu, top>>20)
	}
}

// cpuTime is what this process has used, on all cores.
func cpuTime(t *testing.T) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
