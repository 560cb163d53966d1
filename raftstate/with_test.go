package raftstate

import (
	"bytes"
	"encoding/hex"
	"math/rand"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// One record each, changed in one place; what a reader of another version put in between stays where it was.
func TestWithKeepsEveryOtherByte(t *testing.T) {
	raft := func(s string) RaftLocalState {
		r, err := ParseRaftLocalState(unhex(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	apply := func(s string) RaftApplyState {
		a, err := ParseRaftApplyState(unhex(t, s))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	raw := func(r RaftLocalState, err error) []byte {
		if err != nil {
			t.Error(err)
		}
		return r.Raw
	}
	araw := func(a RaftApplyState, err error) []byte {
		if err != nil {
			t.Error(err)
		}
		return a.Raw
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"last", raw(raft("0a0608061003180a100a").WithLast(11)), "0a0608061003180a100b"},
		{"commit", raw(raft("0a0608061003180a100a").WithCommit(9)), "0a06080610031809100a"},
		{"the same again", raw(raft("0a0608061003180a100a").WithLast(10)), "0a0608061003180a100a"},
		{"a longer number", raw(raft("0a0608061003180a100a").WithLast(300)), "0a0608061003180a10ac02"},
		{"another term takes the vote", raw(raft("0a0608061003180a100a").WithTerm(7)), "0a040807180a100a"},
		{"the same term keeps it", raw(raft("0a0608061003180a100a").WithTerm(6)), "0a0608061003180a100a"},
		{"unknown fields between", raw(raft("7a0378797a" + "0a0808061003180a2801" + "100a" + "7805").WithLast(4)), "7a0378797a" + "0a0808061003180a2801" + "1004" + "7805"},
		{"fields in the wrong order", raw(raft("100a" + "0a0608061003180a").WithCommit(3)), "100a" + "0a06080610031803"},
		{"no hard state", raw(raft("100a").WithCommit(3)), "0a021803" + "100a"},
		{"missing record", raw(InitialRaftState().WithLast(6)), "0a0408051805" + "1006"},
		// All known numbers are set, to the same value or another: an overlong one gets its short form.
		{"overlong number", raw(raft("0a07" + "088600" + "1003180a" + "100a").WithLast(4)), "0a06" + "0806" + "1003180a" + "1004"},

		{"truncated", araw(apply("080a" + "12040805" + "1005" + "200a" + "2806").WithTruncated(TruncatedState{10, 6})), "080a" + "1204080a" + "1006" + "200a" + "2806"},
		{"commit of an apply state", araw(apply("080a"+"12040805"+"1005"+"200c"+"2807").WithCommit(10, 6)), "080a" + "12040805" + "1005" + "200a" + "2806"},
		{"last_commit_index where it is", araw(apply("080a"+"12040805"+"1005"+"180c"+"200c"+"2807").WithCommit(10, 6)), "080a" + "12040805" + "1005" + "180a" + "200a" + "2806"},
		{"unknown field of an apply state", araw(apply("080a" + "320161" + "12040805" + "1005").WithTruncated(TruncatedState{10, 6})), "080a" + "320161" + "1204080a" + "1006"},
		{"no commit yet", araw(apply("0805"+"12040805"+"1005").WithCommit(5, 5)), "0805" + "12040805" + "1005" + "2005" + "2805"},
		{"missing apply state", araw(InitialApplyState().WithCommit(5, 5)), "0805" + "12040805" + "1005" + "2005" + "2805"},
	} {
		want := unhex(t, c.want)
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s: got %X, want %X", c.name, c.got, want)
		}
	}
}

// A record whose fields were changed behind the back of its bytes is not written.
func TestWithRefusesFieldsThatAreNotTheBytes(t *testing.T) {
	r, err := ParseRaftLocalState(unhex(t, "0a0608061003180a100a"))
	if err != nil {
		t.Fatal(err)
	}
	r.LastIndex = 11
	if out, err := r.WithCommit(9); err == nil {
		t.Errorf("got %+v", out)
	}
	a, err := ParseRaftApplyState(unhex(t, "080a120408051005"))
	if err != nil {
		t.Fatal(err)
	}
	a.AppliedIndex = 11
	if out, err := a.WithCommit(9, 6); err == nil {
		t.Errorf("got %+v", out)
	}
}

// Random records with unknown fields at random places: the unknown bytes come out as they went in, the known fields as asked.
func TestWithRandomRecords(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	unknown := func(b []byte) []byte {
		for rng.Intn(2) == 0 {
			n := protowire.Number(20 + rng.Intn(500))
			v := make([]byte, rng.Intn(6))
			rng.Read(v)
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
		}
		return b
	}
	number := func(b []byte, n protowire.Number, v uint64) []byte {
		if v == 0 {
			return b
		}
		return unknown(protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v))
	}
	small := func() uint64 { return uint64(rng.Intn(400)) }
	for i := 0; i < 2000; i++ {
		build := func(h HardState, last uint64, rng2 *rand.Rand) []byte {
			rng = rng2
			hard := number(number(number(unknown(nil), 1, h.Term), 2, h.Vote), 3, h.Commit)
			b := protowire.AppendBytes(protowire.AppendTag(unknown(nil), 1, protowire.BytesType), hard)
			return number(b, 2, last)
		}
		// The same unknown fields in both, because the same random numbers are drawn; no number is zero.
		s := rng.Int63()
		h1, h2 := HardState{small() + 1, small() + 1, small() + 1}, HardState{small() + 1, small() + 1, small() + 1}
		l1, l2 := small()+1, small()+1
		next := rng
		a, want := build(h1, l1, rand.New(rand.NewSource(s))), build(h2, l2, rand.New(rand.NewSource(s)))
		rng = next
		r, err := ParseRaftLocalState(a)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.With(h2, l2)
		if err != nil || !bytes.Equal(got.Raw, want) {
			t.Fatalf("%X with %+v %d: got %X, want %X, %v", a, h2, l2, got.Raw, want, err)
		}
	}
}
