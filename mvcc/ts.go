package mvcc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// TS is a TSO: the timestamp that PD hands out and that orders all transactions.
//
//	63                                18 17           0
//	+-----------------------------------+--------------+
//	| physical: ms since 1970, UTC (46) | logical (18) |
//	+-----------------------------------+--------------+
//
// Source: tikv components/txn_types/src/timestamp.rs (TSO_PHYSICAL_SHIFT_BITS), master.
type TS uint64

const (
	logicalBits = 18
	logicalMask = TS(1)<<logicalBits - 1
	maxPhysical = int64(1)<<(64-logicalBits) - 1

	// MaxTS is what a reader without a timestamp reads at.
	MaxTS = TS(1<<64 - 1)
)

// Physical is the wall-clock part: milliseconds since 1970-01-01 UTC.
func (t TS) Physical() int64 { return int64(t >> logicalBits) }

// Logical is the counter inside the millisecond, 0..2^18-1.
func (t TS) Logical() int64 { return int64(t & logicalMask) }

// Time is the wall-clock part as a UTC time.
func (t TS) Time() time.Time { return time.UnixMilli(t.Physical()).UTC() }

// String gives the decimal TSO, the form TiKV and PD print.
func (t TS) String() string { return strconv.FormatUint(uint64(t), 10) }

// MarshalText makes JSON carry a TS as a decimal string: a JSON number would be rounded by most readers.
func (t TS) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(t), 10), nil }

// UnmarshalText reads what MarshalText writes.
func (t *TS) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return fmt.Errorf("timestamp %q is not a decimal TSO", b)
	}
	*t = TS(v)
	return nil
}

// FromTime converts a wall-clock time, cut down to its millisecond. With wholeMs the result is the last TSO of that
// millisecond, so that everything committed in it is ≤ the result; without, it is the first one. A time outside the 46 bits
// of the physical part saturates.
func FromTime(t time.Time, wholeMs bool) TS {
	ms := t.UnixMilli()
	switch {
	case ms < 0:
		return 0
	case ms > maxPhysical:
		return MaxTS
	}
	ts := TS(ms) << logicalBits
	if wholeMs {
		ts |= logicalMask
	}
	return ts
}

// ParseTS reads a timestamp an operator typed: a decimal TSO, or RFC 3339 with a zone, which covers its whole millisecond.
// A time without a zone is refused, because nobody can tell afterwards which zone was meant.
func ParseTS(s string) (TS, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, errors.New("empty timestamp: give a TSO such as 470610466230763527, or a time with a zone such as 2026-02-03T04:05:06+01:00")
	}
	if allDigits(s) {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("timestamp %s does not fit in 64 bits: a TSO has at most 20 digits", s)
		}
		return TS(v), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		if zoneless(s) {
			return 0, fmt.Errorf("time %q has no zone: add Z for UTC or an offset, for example %sZ or %s+01:00",
				s, rfcForm(s), rfcForm(s))
		}
		if t, err2 := time.Parse("2006-01-02 15:04:05.999999999Z07:00", s); err2 == nil {
			return checkedTime(s, t)
		}
		return 0, fmt.Errorf("timestamp %q is neither a decimal TSO nor RFC 3339 with a zone (2026-02-03T04:05:06.789+01:00)", s)
	}
	return checkedTime(s, t)
}

func checkedTime(s string, t time.Time) (TS, error) {
	if ms := t.UnixMilli(); ms < 0 || ms > maxPhysical {
		return 0, fmt.Errorf("time %q cannot be a TSO: it must lie between 1970 and %d", s, time.UnixMilli(maxPhysical).UTC().Year())
	}
	return FromTime(t, true), nil
}

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func zoneless(s string) bool {
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02",
	} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}

// rfcForm completes a zone-less time to what only lacks its zone, for the hint of the error.
func rfcForm(s string) string {
	s = strings.Replace(s, " ", "T", 1)
	switch len(s) {
	case len("2006-01-02"):
		s += "T00:00:00"
	case len("2006-01-02T15:04"):
		s += ":00"
	}
	return s
}
