#!/usr/bin/env bash
# Run an experiment on GKE as a JobSet (jobset.sigs.k8s.io), one pod per TPU host; results in a bucket:
#   launch/gke.sh configs/paper.py --image IMAGE --accelerator tpu-v5-lite-podslice --topology 8x8 \
#     --hosts 16 --chips 4 --runs gs://bucket/runs --service-account rmo [--queue QUEUE] [--spot]
# IMAGE holds this repository at /rmo with EXTRAS=tpu,gcs installed by launch/local.sh. What is preempted or lost is
# started again by JobSet and continues from the bucket; bad input is not. Kueue queues it where --queue is given.
#   --sweep N          one JobSet per stage instance, at most N at a time, in the order that they need one another
#   --hosts H --chips C    pods, and chips of each       --restarts N    default 50
#   --namespace NS     --wait TIMEOUT    how long to wait for the end, e.g. 24h; without it, the last line says how
#   --dry-run          print the commands and manifests; fields of the experiment go to rmo
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
image='' accelerator='' topology='' hosts=1 chips=4 runs='' account=default queue='' spot='' sweep='' restarts=50
namespace=default timeout='' config='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage 0 ;;
    --image) image=$(value "$@"); shift 2 ;;
    --accelerator) accelerator=$(value "$@"); shift 2 ;;
    --topology) topology=$(value "$@"); shift 2 ;;
    --hosts) hosts=$(value "$@"); shift 2 ;;
    --chips) chips=$(value "$@"); shift 2 ;;
    --runs) runs=$(value "$@"); shift 2 ;;
    --service-account) account=$(value "$@"); shift 2 ;;
    --queue) queue=$(value "$@"); shift 2 ;;
    --namespace) namespace=$(value "$@"); shift 2 ;;
    --restarts) restarts=$(value "$@"); shift 2 ;;
    --sweep) sweep=$(value "$@"); shift 2 ;;
    --wait) timeout=$(value "$@"); shift 2 ;;
    --spot) spot=1; shift ;;
    --dry-run) dry=1; shift ;;
    -*) options+=("$1" "$(value "$@")"); shift 2 ;;
    *) [ -z "$config" ] || die "two configs: $config and $1"; config=$1; shift ;;
  esac
done
[ -n "$config" ] || usage 2
[ "${config#/}" = "$config" ] || die "give CONFIG as a path inside the repository, e.g. configs/paper.py"
for one in image accelerator topology runs; do [ -n "${!one}" ] || die "needs --$one"; done
case $runs in gs://?*) ;; *) die "--runs must be a gs:// directory, which all pods share" ;; esac

# A JobSet's manifest: manifest NAME ARGUMENT...
manifest() {
  local name=$1 argument
  shift
  cat << YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  namespace: $namespace
  labels: {app: rmo${queue:+, kueue.x-k8s.io/queue-name: $queue}}
  annotations: {alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool}
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules: [{action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}]
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        backoffLimit: 0
        podFailurePolicy: # a bug (1), bad input (2) or a stage that another run holds (77) would only fail again
          rules: [{action: FailJob, onExitCodes: {containerName: rmo, operator: In, values: [1, 2, 77]}}]
        template:
          spec:
            restartPolicy: Never
            serviceAccountName: $account
            terminationGracePeriodSeconds: 120
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $accelerator
              cloud.google.com/gke-tpu-topology: $topology
$([ -z "$spot" ] || echo '              cloud.google.com/gke-spot: "true"')
            tolerations:
            - {key: google.com/tpu, operator: Exists, effect: NoSchedule}
            - {key: cloud.google.com/gke-spot, operator: Exists, effect: NoSchedule}
            containers:
            - name: rmo
              image: $image
              workingDir: /rmo
              env: [{name: EXTRAS, value: "tpu,gcs"}]
              resources: {limits: {google.com/tpu: $chips}}
              command: [launch/local.sh, rmo, run]
              args:
$(for argument in "$@"; do printf "              - '%s'\n" "${argument//\'/\'\'}"; done)
YAML
}

submit() {
  if [ -n "$dry" ]; then echo "kubectl apply --filename - <<< '"; manifest "$@"; echo "'"; else manifest "$@" | kubectl apply --filename -; fi
}

# Until a JobSet has come to its end; fails where it failed.
finish() {
  local name=$1 how silent=0
  [ -z "$dry" ] || { echo "# until kubectl get jobset $name says Completed"; return 0; }
  while true; do
    how=$(kubectl get jobset "$name" --namespace "$namespace" --output jsonpath='{.status.terminalState}') || how=Silent
    case $how in Completed) return 0 ;; Failed) say "$name failed: kubectl logs -l jobset.sigs.k8s.io/jobset-name=$name"; return 1 ;; esac
    if [ "$how" = Silent ]; then silent=$((silent + 1)); else silent=0; fi
    [ "$silent" -lt 30 ] || { say "kubectl does not find $name"; return 1; }
    sleep "${POLL:-20}"
  done
}

tidy() { tr -c 'a-z0-9\n' - <<< "${1,,}" | cut -c 1-40 | sed 's/-*$//'; }
base=rmo-$(tidy "$(basename "$config" .py)")
if [ -z "$sweep" ]; then
  submit "$base" "$config" --runs "$runs" "${options[@]}"
  if [ -n "$timeout" ]; then
    do_ kubectl wait jobset "$base" --namespace "$namespace" --for=condition=Completed --timeout "$timeout"
  else
    say "follow it: kubectl logs --follow --namespace $namespace -l jobset.sigs.k8s.io/jobset-name=$base"
  fi
  exit
fi

[[ $sweep =~ ^[1-9][0-9]*$ ]] || die "--sweep is $sweep: give how many JobSets may run at a time"
# Each group waits for those before it; inside a group, at most --sweep JobSets run at a time.
groups=$("$repo/launch/local.sh" rmo list "$config" --runs "$runs" --jobs "${options[@]}")
[ -n "$groups" ] || { say "every stage is done"; exit 0; }
while IFS=$'\t' read -r group _ instances; do
  read -ra names <<< "$instances"
  started=()
  for i in "${!names[@]}"; do
    [ "$i" -lt "$sweep" ] || finish "${started[$((i - sweep))]}"
    job=$base-$(tidy "${names[$i]}")-$(cksum <<< "${names[$i]} ${options[*]}" | cut -d ' ' -f 1)
    do_ kubectl delete jobset "$job" --namespace "$namespace" --ignore-not-found # of an earlier attempt
    submit "$job" "$config" --runs "$runs" "${options[@]}" --only "=${names[$i]}"
    started+=("$job")
  done
  for job in "${started[@]}"; do finish "$job"; done
  say "$group: done"
done <<< "$groups"
