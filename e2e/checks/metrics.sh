#!/usr/bin/env bash
# Alerts and dashboard: the rules are valid, each alert has a case in which it
# fires, one in which it does not, and a section of docs/alerts.md; the
# dashboard is whole, its queries are valid; both use metrics that docs/metrics.md
# has, which unit tests hold against agent and controller. Grafana itself is
# not here.
# shellcheck disable=SC2016  # Grafana's and jq's variables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rules=charts/lvs-operator/files/rules.yaml
cases=e2e/checks/rules-test.yaml
dashboard=charts/lvs-operator/files/dashboard.json
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

failures=0
failed() {
    printf 'metrics: %s\n' "$*"
    failures=$((failures + 1))
}

promtool check rules "$rules"
promtool test rules "$cases"

sed -n 's/^  - alert: //p' "$rules" >"$work/alerts"
[ "$(wc -l <"$work/alerts")" -gt 10 ] || failed "only $(wc -l <"$work/alerts") alerts found in $rules: the check would see little"
[ -z "$(sort "$work/alerts" | uniq -d)" ] || failed "an alert stands twice in $rules"
while read -r alert; do
    grep -qx -- "- name: $alert fires" "$cases" || failed "$alert has no case in $cases in which it fires"
    grep -qx -- "  - {alertname: $alert, eval_time: [0-9a-z]*, exp_alerts: \[\]}" "$cases" || failed "$alert has no case in $cases in which it is silent"
    grep -qx "      runbook: docs/alerts.md#${alert,,}" "$rules" || failed "$alert does not name its section of docs/alerts.md"
done <"$work/alerts"
for word in 'expr: ' 'labels: {severity: \(critical\|warning\|info\)}$' 'summary: ' 'description: ' 'runbook: '; do
    [ "$(grep -c "^ *$word" "$rules")" -eq "$(wc -l <"$work/alerts")" ] || failed "not every alert has one \"$word\" in $rules"
done
diff <(sort "$work/alerts") <(sed -n 's/^## //p' docs/alerts.md | sort) || failed "the sections of docs/alerts.md are not the alerts (left: the alerts)"

# has TRUTH WHAT: of the dashboard.
has() { jq -e "$1" "$dashboard" >/dev/null || failed "$dashboard: $2"; }
has '[.panels[].id] | length > 20 and length == (unique | length)' "ids of panels are not unique"
has '.panels | all(.title != "" and (.gridPos | .x + .w <= 24))' "a panel has no title, or is too wide"
has '[.panels[] | select(.type != "row")] | all(.fieldConfig.defaults.unit // "" != "")' "a panel has no unit"
has '[.panels[] | select(.type != "row") | ., .targets[]] | all(.datasource == {type: "prometheus", uid: "${datasource}"})' "a datasource is not the variable"
has '[.panels[] | select(.type != "row")] | all((.targets | length > 0) and ([.targets[].refId] | length == (unique | length)))' "a panel has no targets, or two of one name"
has '.templating.list | map(.name) == ["datasource", "namespace", "virtual_service", "router"]' "the variables are not as they were"
has '[.panels[].targets[]?.expr | gsub("\\$__rate_interval"; "") | scan("\\$([a-z_]+)")[0]] - [.templating.list[].name] == []' "a query uses a variable that is not there"
[ "$(jq '[.panels[] | .gridPos as $p | range($p.x; $p.x + $p.w) as $x | range($p.y; $p.y + $p.h) as $y | [$x, $y]] | length - (unique | length)' "$dashboard")" -eq 0 ] ||
    failed "$dashboard: panels lie upon each other"
# promtool reads a query where it is a rule.
jq '{groups: [{name: "dashboard", rules: [.panels[].targets[]?.expr
    | gsub("\\$__rate_interval"; "1m") | gsub("\\$[a-z_]+"; ".*")] | to_entries | map({record: "query:\(.key)", expr: .value})}]}' "$dashboard" >"$work/queries.yaml"
promtool check rules "$work/queries.yaml"

# Names that are used, without the endings of histograms.
sed -n 's/^| `\(lvs_[a-z_]*\)` |.*/\1/p' docs/metrics.md | sort -u >"$work/known"
{ sed -n 's/^    expr: //p' "$rules"; jq -r '.panels[].targets[]?.expr, .templating.list[].query' "$dashboard"; } |
    grep -oE '\blvs_[a-z_]+' | sed -E 's/_(bucket|sum|count)$//' | sort -u >"$work/used"
[ "$(wc -l <"$work/used")" -gt 20 ] || failed "only $(wc -l <"$work/used") metrics are used: the check would see little"
while read -r name; do
    failed "$name is used and not in docs/metrics.md"
done < <(comm -13 "$work/known" "$work/used")

[ "$failures" -eq 0 ] || exit 1
printf 'metrics: %d alerts, %d queries, %d of %d metrics in use\n' "$(wc -l <"$work/alerts")" "$(jq '.groups[].rules | length' "$work/queries.yaml")" \
    "$(wc -l <"$work/used")" "$(wc -l <"$work/known")"
