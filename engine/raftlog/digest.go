package raftlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Digest tells one content of a raft store from another: for each region the raft state, the bounds of the log, and the bytes of its
// last entry, in hex of SHA-256. All that a Batch can do to a region shows in them. It reads one entry of each region; one that does
// not read is noted as such, for it may be a dead one.
func Digest(s Store) (string, error) {
	ids, err := s.Regions()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, id := range ids {
		raw, ok, err := s.RaftState(id)
		if err != nil {
			return "", err
		}
		first, last, has, err := s.Bounds(id)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "region %d state %t %X entries %t %d..%d\n", id, ok, raw, has, first, last)
		if !has || last == ^uint64(0) {
			continue
		}
		err = s.Entries(id, last, last+1, func(e raftstate.Entry) error {
			fmt.Fprintf(h, "%X\n", e.Raw)
			return nil
		})
		if isCorrupt(err) {
			fmt.Fprintln(h, "unreadable")
		} else if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
