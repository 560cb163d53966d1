package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.c.json {
				return a.printJSON(struct {
					Version string `json:"version"`
					Commit  string `json:"commit"`
					Go      string `json:"go"`
				}{version, commit, runtime.Version()})
			}
			return a.print(fmt.Sprintf("tikv-repair %s\ncommit %s\n%s\n", version, commit, runtime.Version()))
		},
	}
}
