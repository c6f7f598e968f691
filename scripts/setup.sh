#!/usr/bin/env bash
# Makes this machine able to build, test and show Roadstead. Looks first, acts only on what is
# missing, may be run again at any time. The Docker Engine that it starts, teardown.sh stops.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
mkdir -p .cache
# Two setups at once would fight over dpkg and start two engines.
exec 9>.cache/setup.lock
flock 9

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have_file() { compgen -G "$1" >/dev/null; }
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else fail "root is needed for '$*': run this as root or install sudo"; fi
}

# --- packages ---------------------------------------------------------------------------------

missing=() # Debian's names
need() { # PACKAGE COMMAND-OR-FILE-PATTERN: one of them is enough
  local package=$1 candidate
  shift
  for candidate in "$@"; do
    case $candidate in
      /*) if have_file "$candidate"; then return; fi ;;
      *) if have "$candidate"; then return; fi ;;
    esac
  done
  missing+=("$package")
}
look() {
  missing=()
  need docker.io dockerd
  need docker.io docker # a client may be there without an engine, and the other way round
  need docker-compose docker-compose
  need docker-registry docker-registry
  need busybox-static /bin/busybox
  need postgresql '/usr/lib/postgresql/*/bin/initdb'
  need chromium chromium chromium-browser
  need chromium-driver chromedriver
  # Root mounts by itself what one test needs.
  [ "$(id -u)" = 0 ] || need fuse3 fusermount3
  # Recorded webhooks, the input of a test, come from npm.
  need npm npm
  need git git
  need curl curl
  need openssl openssl
  need build-essential cc
  need pkg-config pkg-config
  need libssl-dev /usr/include/openssl/ssl.h
  need ca-certificates /etc/ssl/certs/ca-certificates.crt
  # Debian ships venv apart from python3.
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
}
list() { printf '%s\n' "${missing[@]}" | sort -u | paste -sd' '; }

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }

apt_install() {
  # An out-of-date list fails at the download, a missing one at the name. Without a network the
  # lists of this machine may still do.
  apt update || say "apt-get update failed, going on with the lists that are here"
  local name packages=()
  mapfile -t packages < <(printf '%s\n' "${missing[@]}" | sort -u)
  # Newer Debians package the client apart from the engine.
  if [[ " ${packages[*]} " == *' docker.io '* ]] && apt-cache show docker-cli >/dev/null 2>&1; then
    packages+=(docker-cli)
  fi
  for name in "${!packages[@]}"; do
    case ${packages[$name]} in
      chromium) apt-cache show chromium >/dev/null 2>&1 || packages[name]=chromium-browser ;;
      chromium-driver) apt-cache show chromium-driver >/dev/null 2>&1 || packages[name]=chromium-chromedriver ;;
    esac
  done
  apt install --yes --no-install-recommends "${packages[@]}"
}

install_packages() {
  if ! have apt-get; then
    echo "setup: this system has no apt-get, so please install by hand what Debian calls:" >&2
    printf '  %s\n' $(list) >&2
    exit 1
  fi
  say "installing $(list)"
  # The packages' own services are not wanted: tests start what they need and stop it again.
  local policy=/usr/sbin/policy-rc.d before=${missing[*]}
  if [ ! -e $policy ]; then
    trap "as_root rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 0755 $policy
  fi
  if ! apt_install >.cache/apt.log 2>&1; then
    tail -n 20 .cache/apt.log >&2
    fail "apt-get could not install $(list); the whole output is in .cache/apt.log"
  fi
  if [ -d /run/systemd/system ]; then
    local service
    for service in postgresql docker-registry; do
      # Not at the next boot either; one that was here before is none of our business.
      [[ " $before " != *" $service "* ]] || as_root systemctl disable --now --quiet "$service" || true
    done
  fi
  look
  if [ "${#missing[@]}" -gt 0 ]; then
    fail "apt-get succeeded, yet these are still not usable: $(list) (see .cache/apt.log)"
  fi
}

look
if [ "${#missing[@]}" -gt 0 ]; then install_packages; fi

# --- Rust -------------------------------------------------------------------------------------

have cargo || fail "cargo is missing: install Rust 1.95 or newer with rustup"
for component in rustfmt clippy; do
  have "cargo-${component/rustfmt/fmt}" || fail "rustup component add $component"
done
if ! have cargo-nextest; then
  say "installing cargo-nextest (once, some minutes)"
  cargo install --locked cargo-nextest 2>.cache/nextest.log || {
    tail -n 20 .cache/nextest.log >&2
    fail "cargo-nextest cannot be installed; the whole output is in .cache/nextest.log"
  }
  cargo nextest --version >/dev/null 2>&1 || fail "cargo does not find cargo-nextest: put \$CARGO_HOME/bin into PATH"
fi

# --- Docker Engine ----------------------------------------------------------------------------

answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# A file with a number that another program got since keeps an engine from starting.
forget_stale() { # FILE PROGRAM
  local number
  number=$(as_root cat "$1" 2>/dev/null) || return 0
  [ "$(cat "/proc/$number/comm" 2>/dev/null)" = "$2" ] || as_root rm -f "$1"
}

start_engine() { # ARGUMENTS of dockerd
  forget_stale "$PWD/.cache/dockerd.pid" dockerd
  forget_stale /var/run/docker/containerd/containerd.pid containerd
  # A session of its own: Ctrl-C in the terminal is not meant for it. It writes its own number.
  as_root setsid --fork dockerd --pidfile "$PWD/.cache/dockerd.pid" "$@" \
    >.cache/dockerd.log 2>&1 9>&-
  local deadline=$((SECONDS + 60)) began=
  while ! answers; do
    if [ -s .cache/dockerd.pid ]; then
      began=yes
    elif [ -n "$began" ] || grep -q 'failed to start daemon' .cache/dockerd.log; then
      return 1 # it removes its number when it ends
    fi
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

if ! answers; then
  if [ "$(id -u)" != 0 ] && have sudo && sudo -n docker version >/dev/null 2>&1; then
    fail "Docker Engine runs but does not let $(id -un) in: sudo usermod -aG docker $(id -un), then log in again"
  fi
  if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
    say "starting the service docker"
    as_root systemctl start docker || fail "docker.service does not start: see journalctl -u docker"
  else
    say "starting Docker Engine (log in .cache/dockerd.log; 'make teardown' stops it)"
    if ! start_engine; then
      scripts/teardown.sh
      failed=yes
      # Inside some containers the kernel refuses overlays.
      if grep -qE 'initializing graphdriver|driver not supported' .cache/dockerd.log; then
        say "the storage driver overlay2 does not work here, trying vfs (slow, but it works everywhere)"
        if start_engine --storage-driver vfs; then failed=; else scripts/teardown.sh; fi
      fi
      if [ -n "$failed" ]; then
        tail -n 20 .cache/dockerd.log >&2
        fail "Docker Engine did not start (it needs root, cgroups and iptables); the whole log is in .cache/dockerd.log"
      fi
    fi
  fi
  answers || fail "Docker Engine was started but '$(id -un)' cannot reach it: sudo usermod -aG docker $(id -un), then log in again"
fi
