// Package plan holds the pure half of a repair: what is decided, why, and what stands in the way. It reads no files and no
// clock; the same reports always give the same plan.
package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Severity orders problems by what they mean for the operator.
type Severity uint8

const (
	// Info: worth knowing; nothing stops.
	Info Severity = iota
	// Warning: the result is correct, but something is lost or needs work afterwards.
	Warning
	// Error: writing is refused unless the operator accepts exactly this problem.
	Error
	// Fatal: writing is refused; there is no way to accept it.
	Fatal
)

var severityNames = [...]string{"info", "warning", "error", "fatal"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("severity %d", uint8(s))
}

// MarshalText gives the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *Severity) UnmarshalText(b []byte) error {
	for i, name := range severityNames {
		if name == string(b) {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("unknown severity %q", b)
}

// Problem is one anomaly in a report or a plan. Implementations are plain structs whose JSON form carries the facts.
type Problem interface {
	Name() string       // short and stable; what --force=<name> accepts
	Where() string      // store, region, key: whatever narrows it down
	What() string       // one sentence
	Severity() Severity // decides whether writing is refused
	Next() string       // what to type or do
}

// Forceable reports whether --force=<name> may accept a problem.
func Forceable(p Problem) bool { return p.Severity() != Fatal }

// Blocks reports whether a problem refuses writing, given the names that the operator accepted.
func Blocks(p Problem, forced map[string]bool) bool {
	return p.Severity() == Fatal || p.Severity() == Error && !forced[p.Name()]
}

// Sort orders problems for printing: the worst first, then by name, place and words. The order depends on nothing else.
func Sort(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Severity() != b.Severity() {
			return int(b.Severity()) - int(a.Severity())
		}
		if c := strings.Compare(a.Name(), b.Name()); c != 0 {
			return c
		}
		if c := naturalCompare(a.Where(), b.Where()); c != 0 {
			return c
		}
		return strings.Compare(a.What(), b.What())
	})
}

// naturalCompare sorts "region 9" before "region 10".
func naturalCompare(a, b string) int {
	for len(a) > 0 && len(b) > 0 {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// Described is the JSON form of a problem: what every problem has, and the facts of its own type below "details".
type Described struct {
	Name      string   `json:"name"`
	Severity  Severity `json:"severity"`
	Where     string   `json:"where,omitempty"`
	What      string   `json:"what"`
	Next      string   `json:"next,omitempty"`
	Forceable bool     `json:"forceable"`
	Details   any      `json:"details"`
}

// Describe turns problems into their JSON form, in the order given.
func Describe(ps []Problem) []Described {
	out := make([]Described, 0, len(ps))
	for _, p := range ps {
		out = append(out, Described{p.Name(), p.Severity(), p.Where(), p.What(), p.Next(), Forceable(p), p})
	}
	return out
}

// UnmarshalProblem reads back one element of what Describe gives as JSON, as the concrete type.
func UnmarshalProblem(b []byte) (Problem, error) {
	var d struct {
		Name    string          `json:"name"`
		Details json.RawMessage `json:"details"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("problem: %w", err)
	}
	mk, ok := problemTypes[d.Name]
	if !ok {
		return nil, fmt.Errorf("problem %q is not known to this version", d.Name)
	}
	p := mk()
	if err := json.Unmarshal(d.Details, p); err != nil {
		return nil, fmt.Errorf("problem %q: %w", d.Name, err)
	}
	return p, nil
}

// Names lists every problem name, sorted: the values of --force, fatal ones included.
func Names() []string {
	names := make([]string, 0, len(problemTypes))
	for n := range problemTypes {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
