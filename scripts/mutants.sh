#!/usr/bin/env bash
# Breaks the product on purpose, one promise at a time, and expects a test to notice: applies each of
# cli/tests/chaos/mutants/*.patch to a copy of the committed tree and runs the tests that its head names.
# A mutant that does not compile, or that its tests do not notice, fails. Names as arguments choose some.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# Cargo's, or something that calls it in its turn.
cargo=${CARGO:-cargo}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
copy=$(mktemp -d)
trap 'git worktree remove --force "$copy/tree" 2>/dev/null || true; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree" HEAD
cd "$copy/tree"

field() { sed -n "s/^$2: //p" "$1" | head -1; }

survived=0
for patch in "$root"/cli/tests/chaos/mutants/*.patch; do
  name=$(basename "$patch" .patch)
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  git apply "$patch"
  test=$(field "$patch" Caught-by)
  log="$copy/$name.log"
  if ! eval "$cargo $test --no-run" >"$log" 2>&1; then
    verdict='does not compile'
  elif eval "$cargo $test --no-fail-fast --retries 0" >"$log" 2>&1; then
    verdict='survived'
  else
    verdict=$(sed -n 's/^ *\(FAIL\|TIMEOUT\) \[[^]]*\] *\(([^)]*)\)\? *//p' "$log" | sort -u | paste -sd, | sed 's/,/, /g')
    [ -n "$verdict" ] || verdict='no test failed'
  fi
  echo "$name ($(field "$patch" Breaks)): $verdict"
  case $verdict in 'does not compile' | survived | 'no test failed')
    survived=1
    tail -30 "$log"
    ;;
  esac
  git checkout --quiet .
done
exit $survived
