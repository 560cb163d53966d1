// Command bench compares a rewind with what an operator would run instead, on copies of the same TiKV-shaped stores:
//
//	(a) ctl    the way of tikv-ctl reset-to-version: iterator, point deletes, one thread
//	(b) br     the way of BR's snapshot restore: tables skipped by max_ts, large batches
//	(c) ours   tikv-repair reset, verified
//	(d) floor  the same bytes read and written through the same codecs with no logic
//
// (a) and (b) end with a full compaction of the write column family: before that records above T are still in the files. All sides sync.
// Afterwards real RocksDB reads all three and must see the same data. Seconds are those of the whole process, opening included.
//
// For check: pure, sums and check, see checks.
//
//	BENCH_SCALE  rows, 1 is 6 million write records (default 0.2)
//	BENCH_RUNS   how often each side runs, on a fresh copy each time (default 1); the fastest counts
//	BENCH_DIR    where the stores are (default .cache/bench); generated once
//	BENCH_ONLY   "check": no rewinds
//	BENCH_SHAPES names, comma separated (default all; recent-x10 and many-files only when they are named)
//
// Of many-files only ours is measured: inspect, and rewinds with nothing above T and with little.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

func main() {
	var f struct {
		floor, ts, ours, profile string
		verify                   string
		open                     bool
		read, write              int64
	}
	flag.StringVar(&f.ours, "ours", "", "rewind this `directory` within this process; without -ts inspect it")
	flag.StringVar(&f.profile, "cpuprofile", "cpu.prof", "where the profile of -ours goes")
	flag.StringVar(&f.floor, "floor", "", "run the floor on this `directory`")
	flag.StringVar(&f.verify, "verify", "", "read, checksum and decompress the tables of this `directory`")
	flag.BoolVar(&f.open, "open", false, "with -verify: open it and read nothing")
	flag.StringVar(&f.ts, "ts", "", "T")
	flag.Int64Var(&f.read, "read", 0, "bytes")
	flag.Int64Var(&f.write, "write", 0, "bytes")
	flag.Parse()
	var err error
	t, parsed := strconv.ParseUint(f.ts, 10, 64)
	switch {
	case f.verify != "":
		err = verifyFloor(f.verify, f.open, runtime.GOMAXPROCS(0))
	case f.floor+f.ours == "":
		err = bench()
	case parsed != nil && (f.ours == "" || f.ts != ""):
		err = fmt.Errorf("-ts: %w", parsed)
	case f.ours != "":
		err = profile(f.ours, mvcc.TS(t), f.profile)
	default:
		err = floor(f.floor, mvcc.TS(t), f.read, f.write, runtime.GOMAXPROCS(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func bench() error {
	scale, err := strconv.ParseFloat(env("BENCH_SCALE", "0.2"), 64)
	if err != nil || scale <= 0 {
		return fmt.Errorf("BENCH_SCALE is %q", os.Getenv("BENCH_SCALE"))
	}
	runs, err := strconv.Atoi(env("BENCH_RUNS", "1"))
	if err != nil || runs < 1 {
		return fmt.Errorf("BENCH_RUNS is %q", os.Getenv("BENCH_RUNS"))
	}
	b := &runner{dir: env("BENCH_DIR", filepath.Join(".cache", "bench")), runs: runs}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := b.build(); err != nil {
		return err
	}
	fmt.Printf("%d cores, scale %g; fastest of %d; seconds of wall clock (of processor), the whole process; rss is the peak\n\n", runtime.NumCPU(), scale, runs)
	want := strings.Split(os.Getenv("BENCH_SHAPES"), ",")
	for _, s := range append(slices.Clone(shapes), grown, linked) {
		if named := slices.Contains(want, s.name); !named && (want[0] != "" || s.name == grown.name || s.name == linked.name) {
			continue
		}
		run := b.shape
		if s.name == linked.name {
			run = b.manyFiles
		}
		if err := run(s.scaled(scale), scale); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

type runner struct {
	dir, gendb, peer, ours, self string
	runs                         int
}

// build compiles the generator and the peers against the installed RocksDB.
func (b *runner) build() error {
	bin := filepath.Join(b.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	b.gendb, b.peer = filepath.Join(bin, "gendb"), filepath.Join(bin, "peer")
	b.ours = filepath.Join("bin", "tikv-repair")
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	for _, p := range []string{b.gendb, b.peer} {
		src := filepath.Join("tests", "bench", "peers", filepath.Base(p)+".cc")
		if out, err := exec.Command("g++", "-O2", "-std=c++17", "-o", p, src, "-lrocksdb", "-lpthread").CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s (it needs g++ and librocksdb-dev): %w\n%s", src, err, out)
		}
	}
	return nil
}

// usage is what one process cost.
type usage struct {
	wall, cpu float64 // seconds
	rss       int64   // bytes, peak
	out       string
}

// best runs a side on fresh copies of a store, and leaves what the last one made of it.
func (b *runner) best(dir, work, name string, args ...string) (usage, error) {
	var best usage
	for i := range b.runs {
		if err := clone(dir, work); err != nil {
			return best, err
		}
		u, err := run(name, args...)
		if err != nil {
			return best, err
		}
		if i == 0 || u.wall < best.wall {
			best = u
		}
	}
	return best, nil
}

func run(name string, args ...string) (usage, error) {
	syscall.Sync()
	cmd := exec.Command(name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(began).Seconds(), out: out.String()}
	if err != nil {
		return u, fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	u.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.rss = ru.Maxrss << 10
	}
	return u, nil
}

var roundLine = regexp.MustCompile(`round \d+ max_commit_ts (\d+)`)

// generate makes the store unless it is there, and returns the highest commit_ts of each round of versions.
func (b *runner) generate(s shape, scale float64) (dir string, rounds []string, err error) {
	dir = filepath.Join(b.dir, fmt.Sprintf("%s-%g", s.name, scale))
	notes := dir + ".rounds"
	text, err := os.ReadFile(notes)
	if err != nil {
		if err := os.RemoveAll(dir); err != nil {
			return "", nil, err
		}
		u, err := run(b.gendb, append([]string{dir}, s.args()...)...)
		if err != nil {
			return "", nil, err
		}
		text = []byte(u.out)
		if err := os.WriteFile(notes, text, 0o644); err != nil {
			return "", nil, err
		}
	}
	for _, m := range roundLine.FindAllStringSubmatch(string(text), -1) {
		rounds = append(rounds, m[1])
	}
	return dir, rounds, nil
}

// clone copies a store; tables, which nobody changes, are hard links.
func clone(src, dst string) error {
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return filepath.WalkDir(src, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := dst + strings.TrimPrefix(p, src)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if strings.HasSuffix(p, ".sst") {
			return os.Link(p, to)
		}
		return copyFile(p, to)
	})
}

// copyFile needs no memory: the peak that a child reports is at least that of the process that started it.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (b *runner) shape(s shape, scale float64) error {
	dir, rounds, err := b.generate(s, scale)
	if err != nil {
		return err
	}
	size, err := tableBytes(dir)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s; %d rows, %d MB of tables: check\n", s.name, s.what, s.keys, size/1e6)
	if err := b.checks(dir, size); err != nil {
		return err
	}
	fmt.Println()
	if os.Getenv("BENCH_ONLY") == "check" {
		return nil
	}
	for _, n := range s.above {
		if n >= len(rounds) {
			return fmt.Errorf("%d rounds above T, the store has %d", n, len(rounds))
		}
		fmt.Printf("%s: %s; %d rows, %d MB of tables, %d of %d rounds above T\n", s.name, s.what, s.keys, size/1e6, n, len(rounds))
		if err := b.compare(s, dir, rounds[len(rounds)-1-n], size); err != nil {
			return err
		}
		fmt.Println()
	}
	return nil
}

// ourResult is the part of reset --json that is printed.
type ourResult struct {
	State     string  `json:"state"`
	Seconds   float64 `json:"seconds"`
	Verifying float64 `json:"seconds_verifying"`
	Read      int64   `json:"bytes_read"`
	Written   int64   `json:"bytes_written"`
	Rewritten int     `json:"files_rewritten"`
	Removed   int64   `json:"versions_removed"`
}

func (b *runner) compare(s shape, dir, t string, size int64) error {
	work := filepath.Join(b.dir, "work")
	defer os.RemoveAll(work)
	line := func(name string, u usage, more string) {
		fmt.Printf("  %-6s %7.2f s (%6.2f)  %7.0f MB/s  rss %4d MB  %s\n", name, u.wall, u.cpu, float64(size)/1e6/u.wall, u.rss>>20, more)
	}
	var sums []string
	sum := func() error {
		u, err := run(b.peer, append([]string{"sum", work, t}, s.options()...)...)
		if err != nil {
			return err
		}
		before, above, _ := strings.Cut(strings.TrimSpace(u.out), " tables ")
		if !strings.HasSuffix(above, " above 0") {
			return fmt.Errorf("something above T is left: %s", u.out)
		}
		sums = append(sums, before)
		return nil
	}
	peers := map[string]usage{}
	for _, mode := range []string{"ctl", "br"} {
		u, err := b.best(dir, work, b.peer, append([]string{mode, work, t}, s.options()...)...)
		if err != nil {
			return err
		}
		peers[mode] = u
		line(mode, u, strings.TrimSpace(u.out))
		if err := sum(); err != nil {
			return err
		}
	}
	ours, err := b.best(dir, work, b.ours, "reset", "--to-ts", t, "--safe-point", "1", "--yes", "--json", "--progress=none", work)
	if err != nil {
		return err
	}
	var r ourResult
	if err := json.Unmarshal([]byte(ours.out), &r); err != nil {
		return err
	}
	line("ours", ours, fmt.Sprintf("%s, %d versions removed, %d tables rewritten, %.0f%% verification", r.State, r.Removed, r.Rewritten, 100*r.Verifying/max(r.Seconds, 1e-9)))
	if err := sum(); err != nil {
		return err
	}
	fl, err := b.best(dir, work, b.self, "-floor", work, "-ts", t, "-read", fmt.Sprint(r.Read), "-write", fmt.Sprint(r.Written))
	if err != nil {
		return err
	}
	line("floor", fl, fmt.Sprintf("%d MB read, %d MB written", r.Read/1e6, r.Written/1e6))
	if sums[0] != sums[1] || sums[0] != sums[2] {
		return fmt.Errorf("the data differ afterwards: ctl %s, br %s, ours %s", sums[0], sums[1], sums[2])
	}
	fmt.Printf("  wall: a/c %.1f  b/c %.1f  c/d %.2f   processor: a/c %.1f  b/c %.1f  c/d %.2f   data equal (%s)\n",
		peers["ctl"].wall/ours.wall, peers["br"].wall/ours.wall, ours.wall/fl.wall,
		peers["ctl"].cpu/ours.cpu, peers["br"].cpu/ours.cpu, ours.cpu/fl.cpu, sums[2])
	return nil
}

func tableBytes(dir string) (int64, error) {
	var n int64
	names, err := filepath.Glob(filepath.Join(dir, "db", "*.sst"))
	for _, p := range names {
		if st, e := os.Stat(p); e == nil {
			n += st.Size()
		} else {
			err = e
		}
	}
	return n, err
}
