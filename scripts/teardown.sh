#!/usr/bin/env bash
# Stops the Docker Engine that setup.sh started; one that was there before is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
file=.cache/dockerd.pid
[ -s "$file" ] || exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
pid=$(as_root cat "$file")
running() { [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; }

# The number may have been given to another program since.
if running; then
  as_root kill -TERM "$pid"
  # It stops its containers first, each with ten seconds of grace.
  deadline=$((SECONDS + 60))
  while running && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
  if running; then
    echo "teardown: Docker Engine ($pid) did not stop within 60 s and is killed" >&2
    as_root kill -KILL "$pid"
  fi
fi
as_root rm -f "$file"
