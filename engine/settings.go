package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Settings flattens a TiKV configuration: "rocksdb.defaultcf.titan.min-blob-size" → "32KiB". Strings are bare, lists have the form
// of TOML. It holds whatever the file holds, secrets too: who prints must choose what.
func Settings(path string, b []byte) (map[string]string, error) {
	var tree map[string]any
	if err := toml.Unmarshal(b, &tree); err != nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "parse", Path: path, Offset: -1, Err: err}
	}
	out := map[string]string{}
	flatten("", tree, out)
	return out, nil
}

func flatten(prefix string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		if prefix != "" {
			prefix += "."
		}
		for k, e := range v {
			flatten(prefix+k, e, out)
		}
	case []any:
		items := make([]string, len(v))
		for i, e := range v {
			items[i] = fmt.Sprint(e)
			if s, ok := e.(string); ok {
				items[i] = fmt.Sprintf("%q", s)
			}
		}
		out[prefix] = "[" + strings.Join(items, ", ") + "]"
	default:
		out[prefix] = fmt.Sprint(v)
	}
}

// setAside finds the last_tikv.toml that a repair has moved into its backup, the newest one; "" when there is none. A store without
// the file is still read with its paths: where a raft directory lies outside, no file of the store says so.
func setAside(fs base.FS, dir string) (string, error) {
	root := fs.PathJoin(dir, "tikv-repair")
	plans, err := list(fs, root)
	if err != nil {
		return "", err
	}
	best, bestAt := "", ""
	for _, p := range plans {
		b, err := base.ReadFile(fs, fs.PathJoin(root, p, "journal.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		var j struct {
			Started string `json:"started"`
			Saved   []struct {
				Path   string `json:"path"`
				Backup string `json:"backup"`
			} `json:"saved"`
			Moved []string `json:"moved"`
		}
		// A journal that does not parse is the business of the verbs that need it.
		if json.Unmarshal(b, &j) != nil || !slices.Contains(j.Moved, LastConfig) || j.Started < bestAt {
			continue
		}
		for _, s := range j.Saved {
			if s.Path == LastConfig {
				if best, bestAt = s.Backup, j.Started; !strings.HasPrefix(best, "/") {
					best = fs.PathJoin(dir, best)
				}
			}
		}
	}
	return best, nil
}
