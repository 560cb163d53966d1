#!/usr/bin/env bash
# The main job on a directory that a real TiKV left behind when it was killed: look, preview, rewind, proof, undo.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The flags of "make build": so that nothing is compiled twice.
CGO_ENABLED=0 go run -trimpath -buildvcs=false ./tests/demo/unpack single-levels "$work"
store=$work/data
bin=$PWD/bin/tikv-repair

# Timestamps of the fixture: what clients read at each of them was recorded while the cluster was alive.
t=470610471291715601
end=470610472117469188

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
  printf '$ tikv-repair %s\n' "${*//$work/…}"
  "$bin" "$@" 2>&1 | sed "s#$work#…#g"
}
same() { # same FILE TS WHAT: rows at TS are those that the cluster answered with at FILE's timestamp
  "$bin" --quiet dump --at "$2" "$store" > "$work/rows" 2> "$work/talk" || { cat "$work/talk"; exit 1; }
  cmp "$work/rows" "$work/expect/$1.tsv"
  printf '  %s: %s rows, byte for byte what the live cluster answered.\n' "$3" "$(wc -l < "$work/rows")"
}

say "1. A TiKV store. The server was killed (SIGKILL) under load; its last writes are still in the log."
run inspect "$store"

say "2. Can its rows be read, as a client would have read them at an earlier time? Nothing is written for that."
same $t $t "at $t"
same $end $end "at the end"

say "3. Someone ran a bad release. What would going back cost? A dry run writes nothing."
run reset --to-ts $t --safe-point 1 --dry-run "$store"

say "4. Go back."
run reset --to-ts $t --safe-point 1 --yes --quiet "$store"

say "5. The proof: every record of every file is looked at again, and the rows are compared with the recording."
run verify --to-ts $t "$store"
same $t $t "at $t"
same $t 18446744073709551615 "with the newest timestamp there is"

say "6. It was the wrong time after all. Take it back: nothing has been deleted."
run undo --yes "$store"
same $end $end "at the end, again"
run status "$store"

say "7. What remains is the backup. Dropping it frees the space."
run discard --yes "$store"
say "That is the whole job. Your turn: bin/tikv-repair help"
