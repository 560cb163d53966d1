package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The stories of a PD that lost its majority. The input is a PDStepsInput in JSON.
func TestPDSteps(t *testing.T) {
	datadriven.Walk(t, "testdata/pdsteps", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var in PDStepsInput
			dec := json.NewDecoder(bytes.NewReader([]byte(d.Input)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&in); err != nil {
				d.Fatalf(t, "%v", err)
			}
			s := StepsForPD(in)
			var b strings.Builder
			fmt.Fprintf(&b, "route %s\n", s.Route)
			for _, n := range s.Numbers {
				fmt.Fprintf(&b, "  %s: %s %s (%s)\n", n.Name, n.Value, n.Time, n.Source)
			}
			for i, p := range s.Steps {
				fmt.Fprintf(&b, "%d. %s\n", i+1, p.What)
				if p.Why != "" {
					fmt.Fprintf(&b, "   why: %s\n", p.Why)
				}
				for _, c := range p.Commands {
					fmt.Fprintf(&b, "   $ %s\n", c)
				}
				for _, w := range p.Warnings {
					fmt.Fprintf(&b, "   careful: %s\n", w)
				}
			}
			return b.String()
		})
	})
}
