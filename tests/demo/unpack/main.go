// Command unpack puts a fixture on disk for the demo: unpack NAME DIR.
package main

import (
	"fmt"
	"os"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: unpack NAME DIR")
		os.Exit(16)
	}
	if err := fixtures.Unpack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(8)
	}
}
