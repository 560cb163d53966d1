package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// byteSize is a flag for bytes: "512MiB", "1.5GB", "1048576". As in TiKV's configuration KB and KiB both mean 1024.
type byteSize uint64

func (s *byteSize) Set(text string) error {
	v := strings.ToUpper(strings.TrimSpace(text))
	v = strings.TrimSuffix(strings.TrimSuffix(v, "B"), "I")
	shift := 0
	if n := len(v); n > 0 {
		if i := strings.IndexByte("KMGTP", v[n-1]); i >= 0 {
			shift = 10 * (i + 1)
			v = strings.TrimSpace(v[:n-1])
		}
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f <= 0 || math.IsInf(f, 0) || math.IsNaN(f) || f*math.Pow(2, float64(shift)) >= 1<<63 {
		return fmt.Errorf("%q is not a size: write 512MiB, 2GiB or a number of bytes", text)
	}
	*s = byteSize(f * math.Pow(2, float64(shift)))
	return nil
}

func (s *byteSize) Type() string   { return "size" }
func (s *byteSize) String() string { return bytesText(uint64(*s)) }

// bytesText prints a size the way TiKV's configuration does.
func bytesText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if f == math.Trunc(f) {
		return fmt.Sprintf("%.0f%s", f, units[i])
	}
	return fmt.Sprintf("%.1f%s", f, units[i])
}

// parseT reads a timestamp flag.
func parseT(flag, text string) (mvcc.TS, error) {
	if text == "" {
		return 0, usagef("--%s is missing: a TSO, or a time with a zone such as 2026-02-03T04:05:06+01:00", flag)
	}
	ts, err := mvcc.ParseTS(text)
	if err != nil {
		return 0, usagef("--%s: %v", flag, err)
	}
	return ts, nil
}

// echoT repeats a timestamp in both forms and says how far it is from the newest commit: a wrong zone or a digit too many shows
// here before it hurts.
func (a *app) echoT(s *scan.Store, t mvcc.TS) error {
	newest, err := s.NewestCommit()
	if err != nil {
		return err
	}
	if newest == 0 {
		a.say("timestamp %s = %s; the store holds no commit", t, scan.Time(t))
		return nil
	}
	a.say("timestamp %s = %s, %s the newest commit %s = %s", t, scan.Time(t), distance(t, newest), newest, scan.Time(newest))
	return nil
}

func distance(t, newest mvcc.TS) string {
	d := time.Duration(newest.Physical()-t.Physical()) * time.Millisecond
	switch {
	case t == newest:
		return "the same as"
	case t < newest:
		return d.String() + " before"
	}
	return (-d).String() + " after"
}
