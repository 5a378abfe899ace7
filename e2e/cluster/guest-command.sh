#!/bin/bash
# One request of the command server: the length of a script in bytes, the
# script. Answer: "<status> <bytes of stdout> <bytes of stderr>",
# then both.
LC_ALL=C
read -r length
IFS= read -r -N "$length" script
answer="$(mktemp -d /run/command.XXXXXX)"
LC_ALL=C.UTF-8 /bin/bash -c "$script" guest >"$answer/output" 2>"$answer/errors" </dev/null
status=$?
printf '%s %s %s\n' "$status" "$(stat -c %s "$answer/output")" "$(stat -c %s "$answer/errors")"
cat "$answer/output" "$answer/errors"
rm -rf "$answer"
