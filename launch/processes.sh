#!/usr/bin/env bash
# Run a command as N processes of one run on this machine, e.g. one per GPU; all are started again if one is lost:
#   launch/processes.sh 2 rmo run configs/smoke.py
# RESTARTS=3 is how often; PORT=8476 where they meet; DRY_RUN=1 prints the commands. Ctrl-C and SIGTERM reach all.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in "" | -h | --help) usage 2 ;; esac
count=$1 && shift
if ! [[ $count =~ ^[1-9][0-9]*$ ]] || [ $# -eq 0 ]; then die "give a number of processes and a command (see --help)"; fi

pids=()
forward() { for pid in "${pids[@]}"; do kill -"$1" "$pid" 2>/dev/null || true; done; }
stop=
trap 'stop=1; forward TERM' TERM
trap 'stop=1; forward TERM' HUP # the terminal is gone; below nohup this is ignored
trap 'stop=1; forward TERM' INT # background processes ignore SIGINT
[ -n "$dry" ] || "$repo/launch/local.sh" true

for ((attempt = 0; ; attempt++)); do
  pids=()
  port=$((${PORT:-8476} + attempt)) # the last one's may not be free yet
  for ((i = 0; i < count; i++)); do
    where=(JAX_COORDINATOR_ADDRESS="127.0.0.1:$port" JAX_NUM_PROCESSES="$count" JAX_PROCESS_ID="$i")
    if [ -n "$dry" ]; then do_ env "${where[@]}" "$repo/launch/local.sh" "$@"; continue; fi
    env "${where[@]}" "$repo/launch/local.sh" "$@" &
    pids+=($!)
  done
  [ -z "$dry" ] || exit 0
  worst=0
  for i in "${!pids[@]}"; do
    code=0
    wait "${pids[$i]}" || code=$?
    # A signal ends `wait` itself early: ask again until the process is gone.
    while kill -0 "${pids[$i]}" 2>/dev/null; do code=0; wait "${pids[$i]}" || code=$?; done
    if [ "$code" -ne 0 ]; then say "process $i $(why "$code")"; fi
    # Bad input or a bug in one explains why the others lost it.
    if [ "$worst" -eq 0 ] || ! again "$code" && [ "$code" -ne 0 ]; then worst=$code; fi
  done
  if [ -n "$stop" ] || ! again "$worst"; then exit "$worst"; fi
  if [ "$attempt" -ge "${RESTARTS:-3}" ]; then say "gave up after $attempt restarts; the same command continues"; exit "$worst"; fi
  say "starting all again ($((attempt + 1)) of ${RESTARTS:-3})"
done
