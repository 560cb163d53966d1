// Command unpack puts fixtures on disk for the demo: unpack NAME DIR [NAME DIR]….
package main

import (
	"fmt"
	"os"

	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 || len(args)%2 != 0 {
		fmt.Fprintln(os.Stderr, "usage: unpack NAME DIR [NAME DIR]…")
		os.Exit(16)
	}
	for ; len(args) > 0; args = args[2:] {
		if err := fixtures.Unpack(args[0], args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(8)
		}
	}
}
