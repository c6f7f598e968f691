#!/usr/bin/env bash
# Stops the Docker Engine that setup.sh started; one that was there before is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f .cache/dockerd.pid ] || exit 0
pid=$(cat .cache/dockerd.pid)
rm -f .cache/dockerd.pid
# The number may have been given to another process since.
[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || exit 0
kill -TERM "$pid"
for _ in $(seq 60); do
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.5
done
kill -KILL "$pid"
