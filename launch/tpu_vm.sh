#!/usr/bin/env bash
# Run an experiment on a Cloud TPU slice (queued resources), on all of its workers; results in a bucket:
#   launch/tpu_vm.sh up NAME configs/paper.py --zone us-east5-b --type v5litepod-64 --runs gs://bucket/runs [--spot]
# `up` is create, wait, setup, run, logs, fetch and delete in turn; each is a command of its own too:
#   create NAME      ask for the slice           wait NAME    until it is there
#   setup NAME       copy this commit, install   run NAME CONFIG   start on all workers, detached
#   logs NAME        follow worker 0 to the end  fetch NAME CONFIG copy report, figures and tables to ./runs
#   delete NAME      give the slice back
# A slice that is preempted, or a worker that is lost, is made and started again: the run continues from the bucket.
#   --zone Z --project P --type T --runtime R    of the slice (runtime: default by type)
#   --runs gs://BUCKET/DIR    where run directories live
#   --model-parallel N        passed on to rmo, as are all fields of the experiment
#   --spot             cheaper, may be taken away         --restarts N    default 20
#   --keep             do not delete the slice at the end    --dry-run       print the commands
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
zone='' project='' type='' runtime='' runs='' spot='' restarts=20 keep='' words=() options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage 0 ;;
    --zone) zone=$(value "$@"); shift 2 ;;
    --project) project=$(value "$@"); shift 2 ;;
    --type) type=$(value "$@"); shift 2 ;;
    --runtime) runtime=$(value "$@"); shift 2 ;;
    --runs) runs=$(value "$@"); shift 2 ;;
    --restarts) restarts=$(value "$@"); shift 2 ;;
    --spot) spot=1; shift ;;
    --keep) keep=1; shift ;;
    --dry-run) dry=1; shift ;;
    -*) options+=("$1" "$(value "$@")"); shift 2 ;;
    *) words+=("$1"); shift ;;
  esac
done
command=${words[0]:-} name=${words[1]:-} config=${words[2]:-}
[ -n "$command" ] || usage 2
[ -n "$name" ] || die "$command needs a NAME for the slice"
[ -n "$zone" ] || die "$command needs --zone"
at=(--zone "$zone")
[ -z "$project" ] || at+=(--project "$project")
poll=${POLL:-30} # seconds

resources() { do_ gcloud compute tpus queued-resources "$@" "${at[@]}"; }
everywhere() { do_ gcloud compute tpus tpu-vm ssh "$name" "${at[@]}" --worker=all --command "$1"; }
# ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; NONE where there is no such slice, UNKNOWN where gcloud could not say.
state() {
  local said
  if said=$(gcloud compute tpus queued-resources describe "$name" "${at[@]}" --format 'value(state.state)' 2>&1); then
    echo "$said"
  elif [[ $said == *NOT_FOUND* || $said == *"not found"* ]]; then echo NONE; else echo UNKNOWN; fi
}
quoted() { printf '%q ' "$@"; }

need() { [ -n "${!1}" ] || die "$command needs ${2:---$1}"; }
inside() {
  need config CONFIG
  [ "${config#/}" = "$config" ] || die "give CONFIG as a path inside the repository, e.g. configs/paper.py"
}
bucket() { case $runs in gs://?*) ;; *) die "--runs must be a gs:// directory, which all workers share" ;; esac; }

create() {
  need type
  case $type in
    v4-*) : "${runtime:=tpu-ubuntu2204-base}" ;; v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;; v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    *) need runtime ;;
  esac
  resources create "$name" --node-id "$name" --accelerator-type "$type" --runtime-version "$runtime" ${spot:+--spot}
}

wait_() {
  local now tries=0
  [ -z "$dry" ] || { echo "# until \`gcloud compute tpus queued-resources describe $name\` says ACTIVE"; return 0; }
  while true; do
    now=$(state)
    case $now in
      ACTIVE) return 0 ;;
      FAILED | SUSPENDED | SUSPENDING | NONE) say "the slice is $now"; return 1 ;;
      UNKNOWN) tries=$((tries + 1)); [ "$tries" -lt 60 ] || { say "gcloud does not say what became of the slice"; return 1; }; sleep "$poll" ;;
      *) say "the slice is $now"; sleep "$poll" ;;
    esac
  done
}

setup() {
  local packed
  packed=$(mktemp -d)
  do_ git -C "$repo" archive --format tar.gz --output "$packed/rmo.tar.gz" HEAD
  do_ gcloud compute tpus tpu-vm scp "$packed/rmo.tar.gz" "$name": "${at[@]}" --worker=all || { rm -rf "$packed"; return 1; }
  rm -rf "$packed"
  everywhere "rm -rf rmo && mkdir rmo && tar -xzf rmo.tar.gz -C rmo && cd rmo && EXTRAS=tpu,gcs launch/local.sh rmo --help > /dev/null"
}

run() {
  inside
  bucket
  local what
  what=$(quoted rmo run "$config" --runs "$runs" "${options[@]}")
  # What is left of a run that lost a worker saves, or is killed.
  everywhere "pkill -f '[r]mo run'; for i in \$(seq 60); do pgrep -f '[r]mo run' > /dev/null || break; sleep 2; done; pkill -9 -f '[r]mo run'; true"
  everywhere "cd rmo && rm -f exit && { RMO_HOSTS=1 EXTRAS=tpu,gcs setsid nohup bash -c 'launch/local.sh ${what//\'/\'\\\'\'}; echo \$? > exit' > log 2>&1 < /dev/null & }"
}

# Follow worker 0; the exit code is the run's, 75 if the slice is gone.
logs() {
  local found tries=0 now ssh=(gcloud compute tpus tpu-vm ssh "$name" "${at[@]}" --worker=0)
  # shellcheck disable=SC2016
  do_ "${ssh[@]}" --command 'cd rmo && touch log && { tail -n +1 -F log & p=$!; until [ -f exit ]; do sleep 2; done; sleep 2; kill $p; }' || true
  [ -z "$dry" ] || return 0
  while true; do
    if found=$("${ssh[@]}" --command 'cat rmo/exit 2> /dev/null || echo running' 2> /dev/null); then
      tries=0
      case $found in running | '') ;; *) return "$found" ;; esac # running: only the connection was lost
    else
      tries=$((tries + 1))
      [ "$tries" -lt 20 ] || { say "worker 0 does not answer"; return 76; }
    fi
    now=$(state)
    case $now in ACTIVE | UNKNOWN) ;; *) return 75 ;; esac
    sleep "$poll"
  done
}

fetch() {
  need config CONFIG
  bucket
  local experiment
  experiment=$("$repo/launch/local.sh" rmo list "$config" "${options[@]}" | sed -n 's|.*, in .*/||p')
  do_ mkdir -p "runs/$experiment"
  for what in '*.html' '*.json' '*.csv' '*.md' figures; do
    do_ gcloud storage cp --recursive "$runs/$experiment/$what" "runs/$experiment/" || say "no $what yet"
  done
}

delete() { resources delete "$name" --quiet --force || say "could not delete $name: look for it, it may still cost"; }

up() {
  need type
  inside
  bucket
  # Whatever goes wrong, a slice that is paid by the second does not stay behind.
  [ -n "$keep" ] || trap 'delete' EXIT
  trap 'exit 130' INT TERM
  local attempt code
  for ((attempt = 0; ; attempt++)); do
    code=0
    if [ -n "$dry" ] || [ "$(state)" = NONE ]; then create; fi
    if wait_ && setup && run; then logs || code=$?; else code=75; fi
    if ! again "$code"; then break; fi
    say "the run $(why "$code")"
    [ "$attempt" -lt "$restarts" ] || { say "gave up after $attempt restarts; the same command continues"; exit "$code"; }
    case $(state) in ACTIVE | UNKNOWN) ;; *) delete; sleep "$poll" ;; esac
  done
  [ "$code" -ne 0 ] || fetch
  [ "$code" -eq 0 ] || say "the run ended with $code, see above"
  return "$code"
}

case $command in
  create | setup | run | logs | fetch | delete | up) "$command" ;;
  wait) wait_ ;;
  *) die "no command $command (see --help)" ;;
esac
