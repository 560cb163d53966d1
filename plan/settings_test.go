package plan

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The stories of what is lost with last_tikv.toml. Input: "last|config name = value" a line, and facts:
// "dir PATH", "line 8.10", "raft rocksdb", "blobs", "raw V1 with TTL", "config" (an empty configuration file was given).
func TestSettings(t *testing.T) {
	datadriven.Walk(t, "testdata/settings", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			in := SettingsInput{Last: map[string]string{}, Bytes: mebibytes}
			for line := range strings.Lines(d.Input) {
				word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				name, value, _ := strings.Cut(rest, " = ")
				switch word {
				case "last":
					in.Last[name] = value
				case "config":
					if in.Config == nil {
						in.Config = map[string]string{}
					}
					if name != "" {
						in.Config[name] = value
					}
				case "dir":
					in.Dir = rest
				case "line":
					in.Line = rest
				case "raft":
					in.RaftRocks = rest == "rocksdb"
				case "blobs":
					in.Blobs = true
				case "raw":
					in.Raw = RawFormat(rest)
				default:
					d.Fatalf(t, "unknown word %q", word)
				}
			}
			var b strings.Builder
			for _, s := range Settings(in) {
				fmt.Fprintf(&b, "%s %s: %s = %s\n", s.Danger, s.Source, s.Name, s.Value)
				if s.InConfig != "" {
					fmt.Fprintf(&b, "  in the configuration: %s\n", s.InConfig)
				}
				fmt.Fprintf(&b, "  without: %s\n", s.Without)
				if s.Why != "" {
					fmt.Fprintf(&b, "  why: %s\n", s.Why)
				}
				if s.Evidence != "" {
					fmt.Fprintf(&b, "  evidence: %s\n", s.Evidence)
				}
				fmt.Fprintf(&b, "  write: %s %s\n", s.Section, s.Line)
			}
			if b.Len() == 0 {
				return "nothing is lost\n"
			}
			return b.String()
		})
	})
}

// mebibytes reads the sizes of the stories.
func mebibytes(s string) (uint64, error) {
	for suffix, unit := range map[string]uint64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			v, err := strconv.ParseUint(n, 10, 64)
			return v * unit, err
		}
	}
	return strconv.ParseUint(s, 10, 64)
}
