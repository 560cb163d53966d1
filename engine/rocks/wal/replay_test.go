package wal

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x10
	return b
}

// Stories about a stopped directory: what is in the WALs, what the MANIFEST says, what comes out.
func TestReplay(t *testing.T) {
	f := func(batches ...[]byte) []byte { return frame(t, batches...) }
	empty := func(seq uint64) []byte { return putBatch(seq) }
	for _, tc := range []struct {
		name     string
		files    map[string][]byte
		minLog   map[uint32]uint64
		keep     uint64
		lastSeq  uint64
		tracked  map[uint64]uint64
		noSST    bool
		keys     string // emitted, key@sequence
		last     uint64
		problems string
		torn     bool
		check    func(t *testing.T, r *Report)
	}{
		{name: "no WAL at all: the MANIFEST's sequence stands", lastSeq: 40, last: 40},
		{name: "two WALs in the order of numbers, not of names", files: map[string][]byte{"1000000.log": f(putBatch(3, "c=")), "999999.log": f(putBatch(1, "a=", "b="))},
			keys: "a@1 b@2 c@3", last: 3, check: func(t *testing.T, r *Report) {
				if r.MaxLog != 1000000 || r.Batches != 2 || r.Emitted != 3 || r.NextSequence != 4 {
					t.Errorf("max log %d, batches %d, emitted %d, next %d", r.MaxLog, r.Batches, r.Emitted, r.NextSequence)
				}
			}},
		{name: "a MANIFEST ahead of the WALs keeps its sequence", files: map[string][]byte{"000004.log": f(putBatch(3, "c="))}, lastSeq: 9, keys: "c@3", last: 9},
		{name: "gaps between batches are legal", files: map[string][]byte{"000004.log": f(putBatch(1, "a="), putBatch(7, "b="))}, keys: "a@1 b@7", last: 7},
		{name: "each family takes the WALs from its log number on, an unknown family nothing; sequences are consumed all the same",
			files:  map[string][]byte{"000004.log": f(cfPut(1, 0, "old0"), cfPut(2, 1, "old1")), "000006.log": f(cfPut(3, 0, "new0"), cfPut(4, 9, "lost"))},
			minLog: map[uint32]uint64{0: 6, 1: 4}, keys: "old1@2 new0@3", last: 4},
		{name: "a WAL below all log numbers is not read, whatever is in it", files: map[string][]byte{"000004.log": []byte("rubbish"), "000006.log": f(putBatch(3, "c="))},
			minLog: map[uint32]uint64{0: 5}, keys: "c@3", last: 3, check: func(t *testing.T, r *Report) {
				if !r.Logs[0].Skipped || r.Logs[1].Skipped {
					t.Error("wrong log skipped")
				}
			}},
		{name: "min log number to keep beats the families", files: map[string][]byte{"000004.log": f(putBatch(1, "a=")), "000006.log": f(putBatch(3, "c="))},
			keep: 6, keys: "c@3", last: 3},
		{name: "a killed process leaves a torn record at the end", files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2)},
			keys: "a@1", last: 1, torn: true},
		{name: "torn tail and an empty WAL behind it", files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2), "000006.log": nil},
			keys: "a@1", last: 1, torn: true},
		{name: "killed during a start: the empty batch in the new WAL continues the torn one",
			files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2), "000006.log": f(empty(2), putBatch(5, "c="))},
			keys:  "a@1 c@5", last: 5, check: func(t *testing.T, r *Report) {
				if !r.Logs[0].Cleared {
					t.Error("not cleared")
				}
			}},
		{name: "a WAL behind a torn one that does not continue it is dropped",
			files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2), "000006.log": f(putBatch(3, "c="), putBatch(4, "d="))},
			keys:  "a@1", last: 1, problems: "4:wal-mid-corruption 6:dropped-wal", check: func(t *testing.T, r *Report) {
				if l := r.Logs[1]; l.DroppedBatches != 2 || l.DroppedRecords != 2 || l.DroppedBytes != l.Size {
					t.Errorf("dropped %d batches, %d records, %d of %d bytes", l.DroppedBatches, l.DroppedRecords, l.DroppedBytes, l.Size)
				}
			}},
		{name: "two torn WALs in a row: the first is not the tail",
			files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2), "000006.log": cut(f(putBatch(2, "c=")), 2)},
			keys:  "a@1", last: 1, torn: true, problems: "4:wal-mid-corruption"},
		{name: "when nothing was replayed before the damage, nothing can match",
			files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a=")), 2), "000006.log": f(empty(1), putBatch(1, "c="))},
			keys:  "", last: 0, problems: "4:wal-mid-corruption 6:dropped-wal"},
		{name: "a continued WAL may be torn itself",
			files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2), "000006.log": cut(f(putBatch(2, "c="), putBatch(3, "d=")), 2)},
			keys:  "a@1 c@2", last: 2, torn: true},
		{name: "a flipped bit in the middle", files: map[string][]byte{"000004.log": flip(f(putBatch(1, "a="), putBatch(2, "b="), putBatch(3, "c=")), 44)},
			keys: "a@1", last: 1, problems: "4:wal-mid-corruption", check: func(t *testing.T, r *Report) {
				if d := r.Logs[0].Damage[0]; d.Kind != ChecksumMismatch || d.Offset != 23 || r.Logs[0].DroppedBytes != 46 {
					t.Errorf("%v, dropped %d", d, r.Logs[0].DroppedBytes)
				}
			}},
		{name: "a flipped bit in the last record, nothing but zeros behind it", files: map[string][]byte{"000004.log": append(flip(f(putBatch(1, "a="), putBatch(2, "b=")), 44), make([]byte, 50000)...)},
			keys: "a@1", last: 1, problems: "4:wal-tail-corruption"},
		{name: "a flipped bit with a later block behind it", files: map[string][]byte{"000004.log": flip(f(putBatch(1, "a="), putBatch(2, "b="+strings.Repeat("x", 40000)), putBatch(3, "c=")), 44)},
			keys: "a@1", last: 1, problems: "4:wal-mid-corruption"},
		{name: "a family flushed behind the damage: the others lost what it has", files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2)},
			minLog: map[uint32]uint64{0: 3, 2: 6}, keys: "a@1", last: 1, torn: true, problems: "4:sst-ahead", check: func(t *testing.T, r *Report) {
				if !slices.Equal(r.Problems[0].CFs, []uint32{2}) {
					t.Errorf("ahead: %d", r.Problems[0].CFs)
				}
			}},
		{name: "the same with an empty new family is no problem", files: map[string][]byte{"000004.log": cut(f(putBatch(1, "a="), putBatch(2, "b=")), 2)},
			minLog: map[uint32]uint64{0: 3, 2: 6}, noSST: true, keys: "a@1", last: 1, torn: true},
		{name: "tracked WALs: one missing, one short, one complete, one of unknown size missing",
			files: map[string][]byte{"000004.log": f(putBatch(1, "a=")), "000006.log": f(putBatch(2, "b="))}, keys: "a@1 b@2", last: 2,
			tracked: map[uint64]uint64{3: 10, 4: 1000, 6: 23, 7: math.MaxUint64}, problems: "3:missing-wal 4:short-wal"},
		{name: "a batch that does not decode", files: map[string][]byte{"000004.log": f(putBatch(1, "a="), append(putBatch(2, "b="), 0x1A), putBatch(3, "c="))},
			keys: "a@1", last: 1, problems: "4:unreadable-batch"},
		{name: "a record too short for a batch", files: map[string][]byte{"000004.log": f(putBatch(1, "a="), []byte("short"), putBatch(2, "c="))},
			keys: "a@1", last: 1, problems: "4:wal-mid-corruption"},
		{name: "a sequence above the largest", files: map[string][]byte{"000004.log": f(putBatch(1, "a="), putBatch(1<<56, "b="))}, keys: "a@1", last: 1,
			problems: "4:wal-mid-corruption"},
		{name: "a range deletion that ends before it begins: the batch counts up to it",
			files: map[string][]byte{"000004.log": f(append(putBatch(1, "a=")[:8], append([]byte{3, 0, 0, 0}, "\x01\x01a\x00\x0f\x01z\x01b\x00\x01c"...)...), putBatch(4, "d="))},
			keys:  "a@1", last: 1, problems: "4:wal-mid-corruption"},
		{name: "sequences that go back are applied and reported", files: map[string][]byte{"000004.log": f(putBatch(5, "a="), putBatch(3, "b="))}, keys: "a@5 b@3", last: 5,
			problems: "4:repeated-sequence"},
		{name: "a merge record ends everything", files: map[string][]byte{"000004.log": f(putBatch(1, "a="), append(putBatch(2), 0x09)), "000006.log": f(putBatch(3, "c="))},
			keys: "a@1", last: 1, problems: "4:unsupported-wal"},
		{name: "a zeroed block swallows records without the engine noticing",
			files: map[string][]byte{"000004.log": append(append(f(putBatch(1, "a=")), make([]byte, BlockSize-23)...), f(putBatch(9, "c="))...)},
			keys:  "a@1 c@9", last: 9, problems: "4:wal-silent-loss"},
		{name: "preallocated zeros behind the last record", files: map[string][]byte{"000004.log": append(f(putBatch(1, "a=")), make([]byte, 3*BlockSize)...)}, keys: "a@1", last: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := ReplayInput{Dir: "/db", MinLog: tc.minLog, MinLogToKeep: tc.keep, LastSequence: tc.lastSeq, Tracked: tc.tracked,
				HasSST: func(uint32) bool { return !tc.noSST }}
			if in.MinLog == nil {
				in.MinLog = map[uint32]uint64{0: 1}
			}
			var keys []string
			rep, err := Replay(memFS(t, tc.files), in, func(r Record) error {
				keys = append(keys, fmt.Sprintf("%s@%d", r.Key.User, r.Key.Seq))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(keys, " "); got != tc.keys {
				t.Errorf("emitted %q, want %q", got, tc.keys)
			}
			if rep.LastSequence != tc.last || rep.TornTail != tc.torn {
				t.Errorf("last sequence %d, torn %v, want %d, %v", rep.LastSequence, rep.TornTail, tc.last, tc.torn)
			}
			var problems []string
			for _, p := range rep.Problems {
				problems = append(problems, fmt.Sprintf("%d:%s", p.Log, p.Kind))
			}
			if got := strings.Join(problems, " "); got != tc.problems {
				t.Errorf("problems %q, want %q", got, tc.problems)
			}
			if (rep.Err() != nil) != (tc.problems != "") {
				t.Errorf("Err() = %v", rep.Err())
			}
			if rep.Err() != nil && !errors.Is(rep.Err(), base.ErrCorrupt) && !errors.Is(rep.Err(), base.ErrUnsupported) {
				t.Errorf("%v has no class", rep.Err())
			}
			if tc.check != nil {
				tc.check(t, rep)
			}
		})
	}
}

func TestReplayErrors(t *testing.T) {
	fs := memFS(t, map[string][]byte{"000004.log": frame(t, putBatch(1, "a="))})
	full := errors.New("sink full")
	if _, err := Replay(fs, ReplayInput{Dir: "/db", MinLog: map[uint32]uint64{0: 0}}, func(Record) error { return full }); !errors.Is(err, full) {
		t.Errorf("emit's error became %v", err)
	}
	if _, err := Replay(fs, ReplayInput{Dir: "/none"}, nil); !errors.Is(err, base.ErrIO) {
		t.Errorf("missing directory: %v", err)
	}
	twice := memFS(t, map[string][]byte{"000004.log": nil, "4.log": nil})
	if _, err := Replay(twice, ReplayInput{Dir: "/db"}, nil); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("two files for one number: %v", err)
	}
}

// Whatever byte of a small WAL changes and wherever it is cut: no panic, a prefix of the records, and every loss that is
// not a torn tail is a problem.
func TestReplayEveryByte(t *testing.T) {
	file := frame(t, putBatch(1, "a=1", "b=2"), putBatch(3, "c=3"), putBatch(4, "d="+strings.Repeat("v", 50)), putBatch(5, "e=5"))
	want := "abcde"
	run := func(file []byte) (string, *Report) {
		var keys []byte
		rep, err := Replay(memFS(t, map[string][]byte{"000004.log": file}), ReplayInput{Dir: "/db", MinLog: map[uint32]uint64{0: 0}}, func(r Record) error {
			keys = append(keys, r.Key.User...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(keys), rep
	}
	for n := range file {
		keys, rep := run(file[:n])
		if !strings.HasPrefix(want, keys) || rep.Err() != nil {
			t.Errorf("cut at %d: %q, %v", n, keys, rep.Err())
		}
		_, damage, _ := readAll(NewReader(strings.NewReader(string(file[:n])), "", 4))
		if rep.TornTail != (len(damage) > 0) {
			t.Errorf("cut at %d: torn %v", n, rep.TornTail)
		}
	}
	for i := range file {
		for bit := range 8 {
			b := slices.Clone(file)
			b[i] ^= 1 << bit
			keys, rep := run(b)
			if !strings.HasPrefix(want, keys) || keys == want {
				t.Errorf("byte %d bit %d: %q", i, bit, keys)
			}
			if rep.Err() == nil && !(rep.TornTail && keys == "abcd") {
				t.Errorf("byte %d bit %d: silent loss, %q", i, bit, keys)
			}
		}
	}
}
