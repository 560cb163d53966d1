package main

import "fmt"

// shape is one generated store. Numbers are for scale 1: 6 million write records.
type shape struct {
	name, what string
	keys       int
	versions   int
	value      int    // bytes
	recent     int    // further versions of a hot tenth of the rows, after everything else has been compacted
	file       int    // target size of a table, bytes
	mem        int    // write buffer, bytes
	bottom     string // compression of the levels
	// above are the runs: how many rounds of versions lie above T.
	above []int
}

const million = 1000000

var shapes = []shape{
	{"nothing", "6 versions of each row, as compaction leaves them, and no locks", million, 6, 100, 0, 8 << 20, 64 << 20, "", []int{0}},
	{"rounds", "6 versions of each row, as compaction leaves them", million, 6, 100, 0, 8 << 20, 64 << 20, "", []int{1, 3}},
	{"recent", "what is above T lies in the top levels only", million, 5, 100, million / 4, 8 << 20, 64 << 20, "", []int{3, 1}},
	{"zstd", "the bottom level compressed with ZSTD", million, 6, 100, 0, 8 << 20, 64 << 20, "zstd", []int{3}},
	{"lz4", "the bottom level compressed with LZ4", million, 6, 100, 0, 8 << 20, 64 << 20, "lz4", []int{3}},
	{"small-files", "many small tables", million, 3, 100, 0, 256 << 10, 64 << 20, "", []int{1}},
	{"long-values", "values of 64 KiB in the default column family", million / 300, 4, 64 << 10, 0, 8 << 20, 64 << 20, "", []int{1}},
}

const grownBy = 10

// grown is the store ten times larger than recent, with the same change: of the same rows, with locks on the same rows.
var grown = shape{"recent-x10", "the same change in ten times the rows", grownBy * million, 5, 100, million / 4, 8 << 20, 64 << 20, "", []int{3}}

// linked is a small store to which very many tables are linked. It has no locks, so that with nothing above T nothing is to be done.
var linked = shape{"many-files", "100,000 tables of the write column family, all but a few by linking", million, 5, 100, million / 4, 8 << 20, 64 << 20, "", []int{0, 3}}

const manyTables = 100_000

// scaled is the shape for a part of the rows. The change of the grown store is that of its model.
func (s shape) scaled(by float64) shape {
	s.keys = max(1000, int(float64(s.keys)*by))
	s.recent = int(float64(s.recent) * by)
	// The parts of the store that are in memory, in the log and in the top levels shrink with it.
	if by < 1 {
		s.mem = max(1<<20, int(float64(s.mem)*by))
		s.file = max(64<<10, int(float64(s.file)*by))
	}
	return s
}

func (s shape) args() []string {
	out := []string{fmt.Sprintf("keys=%d", s.keys), fmt.Sprintf("versions=%d", s.versions), fmt.Sprintf("value=%d", s.value),
		fmt.Sprintf("recent=%d", s.recent)}
	if s.name == grown.name {
		out = append(out, fmt.Sprintf("model=%d", s.keys/grownBy))
	}
	if s.name != "nothing" && s.name != linked.name {
		out = append(out, "locks=1000")
	}
	return append(out, s.options()...)
}

// options are what every program that opens the store has to know.
func (s shape) options() []string {
	out := []string{fmt.Sprintf("file=%d", s.file), fmt.Sprintf("mem=%d", s.mem)}
	if s.bottom != "" {
		out = append(out, "bottom="+s.bottom)
	}
	return out
}
