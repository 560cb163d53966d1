#!/usr/bin/env bash
# The two main jobs on directories that real, killed TiKVs left behind. One store: look, preview, rewind, proof, undo. Five stores
# of which three are lost: collect, plan, apply, proof, release.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The flags of "make build": so that nothing is compiled twice.
CGO_ENABLED=0 go run -trimpath -buildvcs=false ./tests/demo/unpack single-levels "$work" multi5-lost3 "$work/fleet"
store=$work/data
expect=$work/expect
bin=$PWD/bin/tikv-repair

# Timestamps of the fixture: what clients read at each of them was recorded while the cluster was alive.
t=470610471291715601
end=470610472117469188

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
  printf '$ tikv-repair %s\n' "${*//$work/…}"
  "$bin" "$@" 2>&1 | sed "s#$work#…#g"
}
# Of more than three lines in a row that begin alike, the first two are enough for a demo.
brief() {
  awk '
    function flush() {
      if (n == 3) print held
      if (n > 3) printf "%s… and %d more like these\n", indent, n - 2
      n = 0
    }
    n > 3 && $1 == "and" && $3 == "more" { n += $2; next }
    {
      shape = $0; gsub(/[0-9]+ */, "0 ", shape); shape = substr(shape, 1, 12)
      if (shape != last) flush()
      if (++n < 3) print
      held = $0; last = shape; indent = substr($0, 1, match($0, /[^ ]/) - 1)
    }
    END { flush() }'
}
same() { # same FILE TS WHAT: rows at TS are those that the cluster answered with at FILE's timestamp
  "$bin" --quiet dump --at "$2" "$store" > "$work/rows" 2> "$work/talk" || { cat "$work/talk"; exit 1; }
  cmp "$work/rows" "$expect/$1.tsv"
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

fleet=$work/fleet
# Timestamp of the fixture shortly before the first store was lost.
t=470610641898176515
say "8. Another cluster, five stores, three replicas of each region. Stores 1, 5 and 9 are gone for good (the ids are PD's: inspect
   reads them from its directory). On the two that are left, most regions have one replica of three."
run collect --quiet "$fleet/store0" -o "$fleet/0.report"
run collect --quiet "$fleet/store1" -o "$fleet/1.report"

say "9. What can be kept? One plan for all stores, with a reason for each region. The stores are not touched."
run plan --quiet "$fleet/0.report" "$fleet/1.report" --failed-stores 1,5,9 -o "$fleet/plan" | brief

say "10. Each store does its part and stays locked: one that starts too early would bring back what the others gave up."
run apply --quiet --yes --plan "$fleet/plan" "$fleet/store0"
run apply --quiet --yes --plan "$fleet/plan" "$fleet/store1"

say "11. The proof, on both stores; and the rows, as of a time before the first store was lost."
run verify --quiet --plan "$fleet/plan" "$fleet/store0" "$fleet/store1"
store=$fleet/store1
expect=$fleet/expect
same $t $t "at $t"

say "12. All is done everywhere: now they may start. Each store wants to see that the other is done."
run release --quiet --yes --plan "$fleet/plan" "$fleet/store0" "$fleet/store1/tikv-repair"/*/result.json | sed -n 1,2p
run release --quiet --yes --plan "$fleet/plan" "$fleet/store1" "$fleet/store0/tikv-repair"/*/result.json
say "Those are the two main jobs. Your turn: bin/tikv-repair help"
