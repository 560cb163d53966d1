package mvcc

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// version is one write record of a key at its commit_ts.
type version struct {
	commit TS
	value  []byte
}

// parseVersion reads a line like "20 P start=10 v=0A overlapped fence=30 last=5/1 tail=AB"; values are hex, "-" is empty.
func parseVersion(line string) (version, error) {
	f := strings.Fields(line)
	if len(f) < 2 || len(f[1]) != 1 {
		return version{}, fmt.Errorf("%q: want commit_ts and type", line)
	}
	commit, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return version{}, err
	}
	w := Write{Type: f[1][0]}
	for _, word := range f[2:] {
		name, val, _ := strings.Cut(word, "=")
		num, _ := strconv.ParseUint(val, 10, 64)
		switch name {
		case "start":
			w.StartTS = TS(num)
		case "v":
			w.HasShortValue = true
			if val != "-" {
				if w.ShortValue, err = hex.DecodeString(val); err != nil {
					return version{}, err
				}
			}
		case "overlapped":
			w.OverlappedRollback = true
		case "fence":
			w.HasGCFence, w.GCFence = true, TS(num)
		case "last":
			if _, err := fmt.Sscanf(val, "%d/%d", &w.LastChange.TS, &w.LastChange.Versions); err != nil {
				return version{}, err
			}
		case "source":
			w.TxnSource = num
		case "tail":
			if w.Tail, err = hex.DecodeString(val); err != nil {
				return version{}, err
			}
		default:
			return version{}, fmt.Errorf("%q: unknown word %q", line, word)
		}
	}
	return version{TS(commit), w.Append(nil)}, nil
}

func walk(vs []version) func() (TS, []byte, bool) {
	i := -1
	return func() (TS, []byte, bool) {
		if i++; i >= len(vs) {
			return 0, nil, false
		}
		return vs[i].commit, vs[i].value, true
	}
}

func read(t TS, vs []version) string {
	w, commit, visible, err := Visible(t, walk(vs))
	switch {
	case err != nil:
		return "error: " + err.Error()
	case visible && w.HasShortValue:
		return fmt.Sprintf("value %s of %s", hexOrDash(w.ShortValue), commit)
	case visible:
		return fmt.Sprintf("the row at %s, version of %s", w.StartTS, commit)
	case w.Type == 0:
		return "nothing"
	case w.GCFence != 0 && w.GCFence <= t:
		return fmt.Sprintf("nothing, the record at %s is fenced off", commit)
	}
	return fmt.Sprintf("nothing, deleted at %s", commit)
}

// The stories: one key's write records, newest first, and what a rewind or a read does with them.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var vs []version
			for line := range strings.Lines(d.Input) {
				v, err := parseVersion(line)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				vs = append(vs, v)
			}
			var out strings.Builder
			switch d.Cmd {
			case "rewind":
				var to uint64
				d.ScanArgs(t, "to", &to)
				fmt.Fprintf(&out, "read at %d before: %s\n", to, read(TS(to), vs))
				var left []version
				for _, v := range vs {
					left = append(left, rewindOne(t, &out, TS(to), v)...)
				}
				fmt.Fprintf(&out, "read at the end of time after: %s\n", read(MaxTS, left))
			case "read":
				for _, a := range d.CmdArgs {
					at, err := strconv.ParseUint(a.Key, 10, 64)
					if err != nil {
						d.Fatalf(t, "%v", err)
					}
					fmt.Fprintf(&out, "%d: %s\n", at, read(TS(at), vs))
				}
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			return out.String()
		})
	})
}

func rewindOne(t *testing.T, out *strings.Builder, to TS, v version) []version {
	t.Helper()
	dec, err := Rewind(to, v.commit, v.value)
	if err != nil {
		fmt.Fprintf(out, "%s: error: %v\n", v.commit, err)
		return nil
	}
	fmt.Fprintf(out, "%s %c: %s", v.commit, dec.Type, dec.Action)
	if dec.HasDefault {
		fmt.Fprintf(out, ", and the default row at %s", dec.DefaultTS)
	}
	if dec.Action == ClearFence {
		w, err := ParseWrite(dec.Value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(out, ": %s", wordsOfWrite(w))
		v.value = dec.Value
	}
	out.WriteByte('\n')
	if dec.Action == Drop {
		return nil
	}
	return []version{v}
}
