# Sourced: counts what was checked, and says what went wrong.
# shellcheck shell=bash

checks=0
failures=0

# passed WHAT / failed WHAT [DETAIL…]: one line each.
passed() {
    checks=$((checks + 1))
    printf 'ok      %s\n' "$1"
}
failed() {
    checks=$((checks + 1))
    failures=$((failures + 1))
    printf 'FAILED  %s\n' "$1"
    shift
    [ "$#" -eq 0 ] || printf '        %s\n' "$@"
}

# accepted WHAT COMMAND…: the command must succeed.
accepted() {
    local what="$1" output
    shift
    if output="$("$@" 2>&1)"; then passed "$what"; else failed "$what" "$output"; fi
}

# refused WHAT TEXT COMMAND…: the command must fail and say TEXT. A refusal for
# another reason is a failure of the check, so that a typing mistake in the
# test cannot pass for a rule.
refused() {
    local what="$1" text="$2" output
    shift 2
    if output="$("$@" 2>&1)"; then
        failed "$what" "was accepted, expected a refusal saying: $text"
    elif grep -qF -- "$text" <<<"$output"; then
        passed "$what"
    else
        failed "$what" "expected: $text" "got: $output"
    fi
}

# summary: the last line; its status is that of the whole test.
summary() {
    printf '%s: %d checks, %d failed\n' "${0##*/}" "$checks" "$failures"
    [ "$checks" -gt 0 ] && [ "$failures" -eq 0 ]
}
