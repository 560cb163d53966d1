package scan

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// Time is the RFC 3339 form of a timestamp's wall-clock part, in UTC; "" for 0.
func Time(ts mvcc.TS) string {
	if ts == 0 {
		return ""
	}
	return ts.Time().Format("2006-01-02T15:04:05.000Z07:00")
}

func plural[T int | int64 | uint64](n T, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func areIs(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// ParseHex reads hex of either case, with or without 0x.
func ParseHex(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimPrefix(text, "0x"), "0X"))
	if err != nil {
		return nil, fmt.Errorf("%q is not hex: %w", text, err)
	}
	return b, nil
}

// unescape reads tikv-ctl's form of keys: printable ASCII as it is, and \n \r \t \' \" \\ \ooo \xhh.
// Source: tikv components/tikv_util/src/escape.rs (unescape), master.
func unescape(s string) ([]byte, error) {
	short := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\'': '\'', '"': '"', '\\': '\\'}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, fmt.Errorf("the key ends with a backslash")
		}
		digits, base, from := 3, 8, i
		if c, ok := short[s[i]]; ok {
			out = append(out, c)
			continue
		}
		if s[i] == 'x' {
			digits, base, from = 2, 16, i+1
		}
		if from+digits > len(s) {
			return nil, fmt.Errorf("escape %q is too short", s[i-1:])
		}
		v, err := strconv.ParseUint(s[from:from+digits], base, 8)
		if err != nil {
			return nil, fmt.Errorf("escape %q: %w", s[i-1:from+digits], err)
		}
		out = append(out, byte(v))
		i = from + digits - 1
	}
	return out, nil
}

// TableRowKey is the user key of a TiDB row with an integer handle.
func TableRowKey(table, handle int64) []byte {
	k := append([]byte{'t'}, make([]byte, 0, 18)...)
	k = binary.BigEndian.AppendUint64(k, uint64(table)^1<<63)
	k = append(k, "_r"...)
	return binary.BigEndian.AppendUint64(k, uint64(handle)^1<<63)
}
