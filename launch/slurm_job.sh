#!/usr/bin/env bash
# What one job of launch/slurm.sh does; not for hand use:
#   slurm_job.sh RESTARTS CONFIG RUNS COUNT OPTION... INSTANCE...   (the instance is that of SLURM_ARRAY_TASK_ID)
set -uo pipefail
# shellcheck source=launch/common.sh
. launch/common.sh # Slurm runs a copy of this file, in the repository
[ $# -ge 5 ] || die "started by launch/slurm.sh"
restarts=$1 config=$2 runs=$3 count=$4
shift 4
options=("${@:1:count}")
shift "$count"
names=("$@")
name=${names[$SLURM_ARRAY_TASK_ID]}
me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
codes=$PWD/.codes.$me
rm -f "$codes"
# shellcheck disable=SC2016
srun bash -c '"${@:2}" || { code=$?; echo "$code" >> "$1"; exit "$code"; }' _ "$codes" \
  launch/local.sh rmo run "$config" --runs "$runs" "${options[@]}" --only "=$name"
code=$?
# Of several tasks one that cannot go on explains why the others lost it.
while read -r one; do again "$one" || { code=$one; break; }; done < <(cat "$codes" 2> /dev/null)
rm -f "$codes"
if again "$code" && [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
  echo "slurm_job.sh: $name $(why "$code"): queued again" >&2
  scontrol requeue "$me" && sleep 60 # Slurm ends this script
fi
exit "$code"
