# Sourced by the launchers: what they share. Not a command.
# shellcheck shell=bash
# shellcheck disable=SC2034
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry=${DRY_RUN:-}

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit "${1:-2}"; }

die() { echo "${0##*/}: $*" >&2; exit 2; }

say() { echo "${0##*/}: $*" >&2; }

# Run a command, or print it.
do_() {
  if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || die "needs bash 4.4 or later, this is $BASH_VERSION"

# The value of an option, which must be there: value "$@"
value() { [ $# -ge 2 ] || die "$1 needs a value (see ${0##*/} --help)"; printf '%s' "$2"; }

# Whether a run that ended so continues when it is started again: not after success, a bug (1), bad input (2) or Ctrl-C.
# rmo's own codes are 75 (told to stop, saved), 76 (another process is gone) and 77 (the stage is held by another run).
again() { case $1 in 0 | 1 | 2 | 77 | 130) return 1 ;; *) return 0 ;; esac; }

why() {
  case $1 in
    75) echo "was told to stop, and saved" ;; 76 | 134) echo "lost another process" ;; 137) echo "was killed" ;;
    *) echo "ended with $1" ;;
  esac
}
