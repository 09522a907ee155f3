# shellcheck shell=bash
# Sourced by the other scripts here: named steps, each timed, all run even when one fails, counted at the end.
#
#   step NAME COMMAND...    runs COMMAND; one check
#   tests NAME COMMAND...   runs COMMAND, a `cargo test`; as many checks as it ran tests
#   seconds_left            of the time that CI gives, less what closing takes
#   closing                 where the time went, and the counts; ends with 1 when a check failed

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What CI gives a run, and what is kept back of it: a step's last seeds, and the closing lines.
CI_SECONDS=5400
CI_RESERVE=180

# The simulator's scenarios of one failure mode each that lasts (docs/simulation.md, Modes).
# shellcheck disable=SC2034 # for those that source this
MODES=(process-crash host-down disk-failure data-corruption log-corruption database-corruption cascading-failure slow-follower
    state-divergence resource-exhaustion network-partition clock-skew deadlock disk-degrading term-divergence split-brain quorum-loss)

passed=0
failed=0
failures=()
summary=()
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

export CARGO_TERM_COLOR=never
# Nothing is built twice here, so that incremental state only costs disk.
export CARGO_INCREMENTAL=0
# A test that needs root, or a tool, says so and is skipped where it is missing. Here nothing may be missing: a test that
# would be skipped fails instead.
export RESILVER_TEST_NO_SKIP=1

fail() {
    failed=$((failed + $1))
    failures+=("$2")
    printf 'FAILED: %s\n' "$2"
}

timed() {
    local name=$1 begun=$SECONDS status=0
    shift
    printf '\n==> %s: %s\n' "$name" "${*}"
    "$@" || status=$?
    summary+=("$(printf '%6d s  %s' $((SECONDS - begun)) "$name")")
    return "$status"
}

step() {
    local status=0
    timed "$@" || status=$?
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
    else
        fail 1 "$1 (status $status)"
    fi
}

tests() {
    local name=$1 log status=0 good bad ignored
    log="$logs/${name//[^a-z0-9]/-}"
    shift
    timed "$name" logged "$@" || status=$?
    # "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; ..."
    read -r good bad ignored < <(awk '/^test result:/ { good += $4; bad += $6; ignored += $8 }
        END { print good + 0, bad + 0, ignored + 0 }' "$log")
    passed=$((passed + good))
    if [ "$bad" -gt 0 ]; then
        # Their names, and where each gave up: of a long log often only the end is kept.
        fail "$bad" "$name: $bad of $((good + bad)) tests$(gave_up "$log")"
    elif [ "$status" -ne 0 ]; then
        fail 1 "$name (status $status)"
    elif [ "$good" -eq 0 ]; then
        fail 1 "$name: no test ran"
    fi
    if [ "$ignored" -gt 0 ]; then
        fail "$ignored" "$name: $ignored tests are ignored, and nothing else runs them"
    fi
}

# "test NAME ... FAILED", "thread 'NAME' (4711) panicked at FILE:LINE:COLUMN:" and what it says.
gave_up() {
    local test said
    while read -r test; do
        said=$(grep -F -A 1 -m 1 "thread '$test'" "$1" | cut -c 1-300 | sed 's/^/        /') || true
        printf '\n    %s\n%s' "$test" "$said"
    done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$1")
}

# Through `tee` into the caller's `log`, for the counting: `pipefail` keeps the command's status.
logged() {
    "$@" 2>&1 | tee "$log"
}

# Installs what is missing, and only that: `needs COMMAND PACKAGE...`.
needs() {
    local command=$1
    shift
    if command -v "$command" >/dev/null; then
        return 0
    fi
    if [ "$updated" = no ]; then
        apt-get update -q || return
        updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}
updated=no

# Part of the toolchain that is there; no other toolchain can be fetched.
component() {
    cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

is_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "not root: the tests that need namespaces and mounts would be skipped" >&2
        return 1
    fi
}

# Never below 1, so that a step which must run says itself that it got too little.
seconds_left() {
    local left=$((CI_SECONDS - CI_RESERVE - SECONDS))
    echo $((left > 1 ? left : 1))
}

closing() {
    printf '\nwhere the time went:\n'
    printf '%s\n' "${summary[@]}"
    printf '%6d s  in all\n' "$SECONDS"
    if [ "${#failures[@]}" -gt 0 ]; then
        printf '\nfailed:\n'
        printf '  %s\n' "${failures[@]}"
    fi
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
}
