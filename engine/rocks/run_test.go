package rocks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Every set of a few keys over three bytes, short ones that are prefixes of others included, behind prefixes of different lengths,
// comes out in internal-key order with its own values.
func TestRunSort(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	keys := []string{""}
	for i := 0; len(keys) < 40+81; i++ {
		for _, b := range []string{"\x00", "\x01", "\xff"} {
			keys = append(keys, keys[i]+b)
		}
	}
	for _, prefix := range []string{"", "z", "zt\x80\x00\x00\x00\x00\x00\x00\xff"} {
		for n := range 200 {
			var m Run
			var want []ikey.Key
			for seq := range uint64(n % 9 * (n % 5)) {
				k := ikey.Key{User: []byte(prefix + keys[rng.IntN(1+n%len(keys))]), Seq: seq, Kind: ikey.KindPut}
				want = append(want, k)
				m.Add(k, []byte(k.String()))
			}
			slices.SortFunc(want, ikey.Compare)
			m.Sort()
			it := m.Iter()
			ok := it.First()
			for i, w := range want {
				if !ok || ikey.Compare(it.Key(), w) != 0 || string(it.Value()) != fmt.Sprint(w) {
					t.Fatalf("prefix %X, %d records: at %d is %v %q, want %v", prefix, len(want), i, it.Key(), it.Value(), w)
				}
				ok = it.Next()
			}
			if ok {
				t.Fatalf("more than %d records", len(want))
			}
		}
	}
}
