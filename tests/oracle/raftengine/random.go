package raftjudge

import (
	"fmt"
	"math/rand"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Writer makes random scripts of what a running TiKV does to its raft-engine: appending, overwriting tails, raft states, log GC,
// destroyed and created regions, purges. It knows the bounds of each log, so that every step is legal.
type Writer struct {
	rng  *rand.Rand
	logs map[uint64]*[2]uint64 // region → first, last; 0, 0 when empty
	term uint64
}

// NewWriter begins with an empty engine.
func NewWriter(rng *rand.Rand) *Writer {
	return &Writer{rng: rng, logs: map[uint64]*[2]uint64{}, term: 5}
}

// Adopt takes over the bounds of an engine that something else has changed.
func (w *Writer) Adopt(regions map[uint64]Region) {
	clear(w.logs)
	for id, r := range regions {
		w.logs[id] = &[2]uint64{r.First, r.Last}
	}
}

// SmallFiles are options that make files rotate and purges happen early.
func SmallFiles(rng *rand.Rand) []string {
	return []string{"target-file-size=2048", "purge-threshold=8192", fmt.Sprintf("recycle=%v", rng.Intn(2) == 0),
		fmt.Sprintf("compression-threshold=%d", []int{0, 64, 512}[rng.Intn(3)]), fmt.Sprintf("recovery-threads=%d", 1+rng.Intn(4))}
}

// EntryBytes is an eraftpb.Entry with some data.
func EntryBytes(term, index uint64, data []byte) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), term)
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), index)
	if len(data) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), data)
}

// StateBytes is a RaftLocalState.
func StateBytes(term, commit, last uint64) []byte {
	h := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), term)
	h = protowire.AppendVarint(protowire.AppendTag(h, 3, protowire.VarintType), commit)
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), h)
	return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), last)
}

// Script makes a script of n steps.
func (w *Writer) Script(n int) string {
	var b strings.Builder
	for i := 0; i < n; i++ {
		switch w.rng.Intn(12) {
		case 0:
			b.WriteString("purge\n")
		case 1:
			if w.rng.Intn(4) == 0 {
				b.WriteString([]string{"rewrite\n", "rewrite rewrite\n", "reopen\n"}[w.rng.Intn(3)])
			}
		default:
			for j := 1 + w.rng.Intn(3); j > 0; j-- {
				w.step(&b)
			}
			b.WriteString("write\n")
		}
	}
	return b.String()
}

func (w *Writer) step(b *strings.Builder) {
	id := uint64(1 + w.rng.Intn(6))
	l := w.logs[id]
	if l == nil {
		l = &[2]uint64{}
		w.logs[id] = l
	}
	switch k := w.rng.Intn(10); {
	case k == 0:
		fmt.Fprintf(b, "clean %d\n", id)
		delete(w.logs, id)
	case k == 1 && l[1] > l[0]:
		// TiKV's log GC leaves the last entry in place.
		l[0] += uint64(w.rng.Intn(int(l[1] - l[0])))
		fmt.Fprintf(b, "compact %d %d\n", id, l[0])
	default:
		from := l[1] + 1
		switch {
		case l[1] == 0:
			from = 6 + uint64(w.rng.Intn(30))
		case w.rng.Intn(5) == 0: // a new leader overwrites
			from = l[0] + uint64(w.rng.Intn(int(l[1]-l[0]+1)))
			w.term++
		}
		if l[1] == 0 {
			l[0] = from
		}
		fmt.Fprintf(b, "entries %d", id)
		for n := 1 + w.rng.Intn(5); n > 0; n-- {
			data := make([]byte, w.rng.Intn(120))
			for i := range data {
				data[i] = byte('a' + w.rng.Intn(3))
			}
			fmt.Fprintf(b, " %x", EntryBytes(w.term, from, data))
			l[1] = from
			from++
		}
		fmt.Fprintf(b, "\nput %d 52 %x\n", id, StateBytes(w.term, l[1], l[1]))
	}
}
