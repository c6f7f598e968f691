#!/usr/bin/env bash
# Makes this machine able to build, test and show Roadstead. Looks first, acts only on what is
# missing, may be run again at any time. What it starts, teardown.sh stops.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# command or file -> Debian package
packages=()
need() { # PACKAGE COMMAND...
  local package=$1 name
  shift
  for name in "$@"; do
    if [ "${name#/}" != "$name" ]; then
      compgen -G "$name" >/dev/null || { packages+=("$package"); return; }
    else
      have "$name" || { packages+=("$package"); return; }
    fi
  done
}
need docker.io dockerd docker
need docker-registry docker-registry
need busybox-static /bin/busybox
need postgresql '/usr/lib/postgresql/*/bin/initdb'
need chromium chromium
need chromium-driver chromedriver
need git git
need curl curl
need openssl openssl
need python3-venv python3
need build-essential cc
need pkg-config pkg-config
need libssl-dev /usr/include/openssl/ssl.h
need perl perl
need ca-certificates /etc/ssl/certs/ca-certificates.crt
# The Python of the system needs its own venv package; one of another making brings the module.
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if [ "${#packages[@]}" -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  if ! have apt-get; then
    echo "setup: this system has no apt-get. Please install by hand: ${packages[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  # Their services are not wanted: tests start what they need and stop it again.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod +x $policy
    trap 'as_root rm -f '$policy EXIT
  fi
  apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null; }
  {
    apt update
    apt install --yes --no-install-recommends "${packages[@]}"
  } >.cache/apt.log 2>&1 || { tail -20 .cache/apt.log >&2; echo "setup: apt-get failed (see .cache/apt.log)" >&2; exit 1; }
fi

if ! have cargo; then
  echo "setup: cargo is missing: install Rust 1.95 or newer" >&2
  exit 1
fi
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest

if ! docker info >/dev/null 2>&1; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: Docker Engine does not answer; start it, or add yourself to the group \`docker\`" >&2
    exit 1
  fi
  echo "setup: starting Docker Engine (log in .cache/dockerd.log)"
  setsid nohup dockerd >.cache/dockerd.log 2>&1 </dev/null &
  echo $! >.cache/dockerd.pid
  for _ in $(seq 120); do
    if docker info >/dev/null 2>&1; then break; fi
    if ! kill -0 "$(cat .cache/dockerd.pid)" 2>/dev/null; then
      tail -20 .cache/dockerd.log >&2
      echo "setup: Docker Engine did not start" >&2
      exit 1
    fi
    sleep 0.5
  done
  docker info >/dev/null 2>&1 || { tail -20 .cache/dockerd.log >&2; echo "setup: Docker Engine does not answer" >&2; exit 1; }
fi
