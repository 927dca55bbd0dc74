#!/usr/bin/env bash
# Run CMD in this repository's own environment, making or refreshing it first:
#   launch/local.sh rmo run configs/tiny.py
#   launch/local.sh pytest
# PYTHON=python3.12 picks the interpreter of a new environment; EXTRAS=dev,cuda what is installed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
extras=${EXTRAS:-dev}
case "${1:-}" in
  "") sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) echo "launch/local.sh: $1 is no command: give one, such as rmo --help (see launch/local.sh --help)" >&2; exit 2 ;;
esac

want="$extras $(cksum < "$root/pyproject.toml")"
if [ "$(cat "$venv/.installed" 2>/dev/null || true)" != "$want" ]; then
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  echo "launch/local.sh: installing rmo[$extras] into $venv (once; minutes)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "${root}[$extras]"
  printf '%s\n' "$want" > "$venv/.installed"
fi
# glibc would give every large buffer back to the kernel and fault it in again at the next step (a fifth of the time).
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-1}  # the arenas of other threads cannot hold large buffers
export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
cd "$root"
exec "$@"
