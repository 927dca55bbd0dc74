#!/usr/bin/env bash
# Run an experiment on a Slurm cluster: one job per stage instance, as arrays that wait for the arrays they need.
#   launch/slurm.sh configs/small.py --runs /shared/runs -- --gpus-per-node=1 --time=12:00:00
# What follows -- goes to every sbatch (partition, account, GPUs, nodes; tasks of one job are processes of one run).
# Jobs that are preempted, killed or lose a node are queued again and continue. The same command submits what is left.
#   --runs DIR       where run directories live, shared by all nodes (default: runs)
#   --at-once N      most jobs of one array that run at a time (default: all)
#   --restarts N     how often one job is queued again (default: 10)
#   --dry-run        print the commands
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
runs=runs limit='' restarts=10 config='' options=() more=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage 0 ;;
    --runs) runs=$(value "$@"); shift 2 ;;
    --at-once) limit=%$(value "$@"); shift 2 ;;
    --restarts) restarts=$(value "$@"); shift 2 ;;
    --dry-run) dry=1; shift ;;
    --) shift; more=("$@"); break ;;
    -*) options+=("$1" "$(value "$@")"); shift 2 ;; # a field of the experiment
    *) [ -z "$config" ] || die "two configs: $config and $1"; config=$(realpath -- "$1"); shift ;;
  esac
done
[ -n "$config" ] || usage
case $runs in *://* | /*) ;; *) runs=$PWD/$runs ;; esac

groups=$("$repo/launch/local.sh" rmo list "$config" --runs "$runs" --jobs "${options[@]}")
[ -n "$groups" ] || { say "every stage is done"; exit 0; }
declare -A job
while IFS=$'\t' read -r group needs instances; do
  read -ra names <<< "$instances"
  wait=''
  for need in ${needs#-}; do wait+=:${job[$need]}; done
  arguments=(
    --parsable --job-name "rmo-$group" --array "0-$((${#names[@]} - 1))$limit" --requeue --open-mode append
    --signal TERM@120 --chdir "$repo" --kill-on-invalid-dep yes "${more[@]}"
  )
  [ -z "$wait" ] || arguments+=(--dependency "afterok$wait")
  script=("$repo/launch/slurm_job.sh" "$restarts" "$config" "$runs" "${#options[@]}" "${options[@]}" "${names[@]}")
  if [ -n "$dry" ]; then
    do_ sbatch "${arguments[@]}" "${script[@]}"
    job[$group]="<$group>"
  else
    said=$(sbatch "${arguments[@]}" "${script[@]}") || { say "sbatch refused $group; cancelling the others"; [ ${#job[@]} -eq 0 ] || scancel "${job[@]}"; exit 1; }
    job[$group]=${said%%;*}
    say "$group: job ${job[$group]}, ${#names[@]} of it"
  fi
done <<< "$groups"
