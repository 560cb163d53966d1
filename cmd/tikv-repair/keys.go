package main

import (
	"github.com/spf13/pflag"

	"github.com/tikv-repair/tikv-repair/scan"
)

// userKey reads a user key in hex; nil when the flag is not set.
func userKey(flag, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := scan.ParseHex(text)
	if err != nil {
		return nil, usagef("--%s: %v", flag, err)
	}
	return b, nil
}

// dbKey reads a database key in hex or in tikv-ctl's escaped form; nil when the flag is not set.
func dbKey(flag, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := scan.ParseDBKey(text)
	if err != nil {
		return nil, usagef("--%s: %v", flag, err)
	}
	return b, nil
}

// oneKey is a key as an operator has it at hand: exactly one of the three forms.
type oneKey struct {
	user, db      string
	table, handle int64
	flags         *pflag.FlagSet
}

func (k *oneKey) addFlags(f *pflag.FlagSet) {
	k.flags = f
	f.StringVar(&k.user, "key", "", "the user `key` in hex, as in PD's and TiDB's output")
	f.StringVar(&k.db, "db-key", "", "the database `key` in hex, as in this tool's messages, or escaped (zt\\200\\000…) as in tikv-ctl's;\na timestamp at its end does not matter")
	f.Int64Var(&k.table, "table", 0, "the TiDB table `id`, with --handle")
	f.Int64Var(&k.handle, "handle", 0, "the integer handle `id` of the row")
	for _, n := range []string{"table", "handle"} {
		f.Lookup(n).DefValue = ""
	}
}

func (k *oneKey) check() error {
	given := 0
	for _, form := range []bool{k.user != "", k.db != "", k.flags.Changed("table") || k.flags.Changed("handle")} {
		if form {
			given++
		}
	}
	if given != 1 {
		return usagef("which key? Give one of --key, --db-key, or --table with --handle")
	}
	if k.flags.Changed("table") != k.flags.Changed("handle") {
		return usagef("--table and --handle go together")
	}
	return nil
}

// of is the user key; the store is asked when a database key has to be decoded.
func (k *oneKey) of(s *scan.Store) ([]byte, error) {
	switch {
	case k.user != "":
		return userKey("key", k.user)
	case k.db == "":
		return scan.TableRowKey(k.table, k.handle), nil
	}
	db, err := dbKey("db-key", k.db)
	if err != nil {
		return nil, err
	}
	user, err := s.UserKeyOf(db)
	if err != nil {
		return nil, usagef("--db-key: %v", err)
	}
	return user, nil
}
