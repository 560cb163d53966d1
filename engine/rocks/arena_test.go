package rocks

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What is kept is found again, whatever its length, across resets, and with memory of about its size.
func TestArena(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var m arena
	for round := range 3 {
		type kept struct {
			at place
			b  []byte
			k  int
		}
		var all []kept
		var used int64
		for i := range 3000 {
			b := make([]byte, rng.IntN(200))
			if i%500 == 7 {
				b = make([]byte, rng.IntN(3*largestChunk))
			}
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			k := rng.IntN(len(b) + 1)
			all = append(all, kept{m.add(b[:k], b[k:]), b, k})
			used += int64(len(b))
		}
		if m.used != used {
			t.Errorf("round %d: %d bytes used, want %d", round, m.used, used)
		}
		for _, x := range all {
			if got := m.get(x.at, 0, uint64(len(x.b))); !bytes.Equal(got, x.b) {
				t.Fatalf("round %d: %d bytes differ", round, len(x.b))
			}
			if got := m.get(x.at, uint64(x.k), uint64(len(x.b)-x.k)); !bytes.Equal(got, x.b[x.k:]) {
				t.Fatalf("round %d: the second part of %d bytes differs", round, len(x.b))
			}
		}
		m.reset()
	}
}
