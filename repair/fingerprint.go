package repair

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// planID is unique for a verb, a store, what was asked for and a moment.
func planID(verb, print, asked string, now time.Time) string {
	h := sha256.Sum256([]byte(print + asked + now.UTC().Format(time.RFC3339Nano)))
	return verb + "-" + now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(h[:3])
}

// fingerprint tells one state of a store from another, under whatever path it is found: identity, CURRENT, live files, logs, the raft state of every region.
func fingerprint(s *scan.Store) (string, error) {
	h := sha256.New()
	st := s.DB.State
	fmt.Fprintf(h, "%d %d %s %d %d %d\n", s.Ident.ClusterID, s.Ident.StoreID, s.FS.PathBase(st.Path), st.Number, st.NextFile, st.LastSeq)
	for _, name := range s.DB.Names() {
		for _, f := range s.DB.CF(name).Files() {
			fmt.Fprintf(h, "%s %d %d %d\n", name, f.Level, f.Number, f.Size)
		}
	}
	for _, l := range s.DB.Log.Logs {
		fmt.Fprintf(h, "log %d %d\n", l.Number, l.Size)
	}
	err := s.EachRegion(func(r scan.Region) error {
		raw, _, err := s.Raft.RaftState(r.ID)
		fmt.Fprintf(h, "region %d %X %X\n", r.ID, r.Raw, raw)
		return err
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func timeOf(ts mvcc.TS) string { return ts.Time().Format("2006-01-02T15:04:05.000Z07:00") }
