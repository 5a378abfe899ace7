#!/usr/bin/env bash
# What the chart renders, without a cluster: lint, refusals of wrong values,
# and the promises about the agent's pod that the manifests must keep.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=check.sh
. "$here/check.sh"
chart="$here/../../charts/lvs-operator"
helm="$("$here/../setup/tool.sh" helm)"

kubectl="$("$here/../setup/tool.sh" kubectl)"

# render FLAGS…: the manifests, as YAML.
render() { "$helm" template lvs-operator "$chart" --namespace lvs-system --kube-version 1.34.0 "$@"; }
# holds KIND NAME TRUTH FLAGS…: the jq expression TRUTH is true of that manifest.
# (kubectl patch --local is the YAML reader that the lab has anyway.)
holds() {
    local kind="$1" name="$2" truth="$3" manifest
    shift 3
    manifest="$(render "$@" | KUBECONFIG=/dev/null "$kubectl" patch --local -f - --type=merge -p '{}' -o json |
        jq --arg kind "$kind" --arg name "$name" 'select(.kind == $kind and .metadata.name == $name)')"
    [ -n "$manifest" ] || {
        printf 'no %s %s was rendered\n' "$kind" "$name"
        return 1
    }
    jq -e "$truth" <<<"$manifest"
}
agent() { holds DaemonSet lvs-operator-agent "$@"; }

accepted "lint" "$helm" lint --strict "$chart"
accepted "every template renders" render
accepted "README.md is what the schema says ('make generate')" \
    diff "$chart/README.md" <(jq --raw-output --from-file "$here/readme.jq" "$chart/values.schema.json")
# A default that README.md names, as far as values.yaml has a scalar in its place.
documented_defaults() {
    local values path documented real compared=0
    values="$(render --set-file "extraObjects[0]=$here/values-table.txt" --show-only templates/extra-objects.yaml |
        KUBECONFIG=/dev/null "$kubectl" patch --local -f - --type=merge -p '{}' -o json | jq --raw-output .data.values)"
    while IFS='|' read -r _ path _ documented _; do
        path="${path//[\` ]/}"
        documented="$(sed 's/^ *//; s/ *$//' <<<"$documented")"
        real="$(jq --raw-output --arg path "$path" 'getpath($path | split(".")) | scalars | select(. != "" and . != null)' <<<"$values" 2>/dev/null)" || continue
        [ -n "$real" ] || continue
        [ "$real" = "$documented" ] || printf '%s: README.md says "%s", values.yaml "%s"\n' "$path" "$documented" "$real"
        compared=$((compared + 1))
    done < <(grep '^| `' "$chart/README.md")
    [ "$compared" -ge 20 ] || echo "only $compared were compared"
}
# shellcheck disable=SC2016
accepted "defaults in README.md are those of values.yaml" bash -c '[ -z "$1" ] || { echo "$1"; exit 1; }' - "$(documented_defaults)"
accepted "authorities of health checks" agent \
    '.spec.template.spec | (.volumes[] | select(.name == "certificate-authorities") | .configMap.name == "our-ca")
        and (.containers[0].env[] | select(.name == "SSL_CERT_FILE") | .value | endswith("/bundle.pem"))' \
    --set agent.certificateAuthorities.configMapName=our-ca,agent.certificateAuthorities.key=bundle.pem
# shellcheck disable=SC2016  # jq's variable
accepted "credentials of health checks, which need not exist yet" agent \
    '.spec.template.spec | (.volumes[] | select(.name == "health-check-credentials") | .secret == {secretName: "checks", optional: true, defaultMode: 256})
        and (.containers[0] | (.args | index("--health-check-credentials-secret=checks") != null) and
            ((.volumeMounts[] | select(.name == "health-check-credentials").mountPath) as $path
                | .args | index("--health-check-credentials-directory=" + $path) != null))' \
    --set agent.healthCheckCredentials.secretName=checks
accepted "no credentials of health checks unless they are given" agent \
    '.spec.template.spec | [.volumes[], .containers[0].volumeMounts[] | select(.name == "health-check-credentials")] == []'
accepted "no agent may read Secrets by the API" holds Role lvs-operator-agent '[.rules[].resources[]] | index("secrets") == null'
# definitions COUNT FLAGS…: so many CustomResourceDefinitions are in what Helm would make.
definitions() {
    local manifests
    manifests="$(render --include-crds "${@:2}")" && [ "$(grep -c '^kind: CustomResourceDefinition$' <<<"$manifests" || true)" = "$1" ]
}
accepted "the definitions of the four kinds" definitions 4
accepted "definitions that somebody else applies" definitions 0 --set crds.enabled=false
refused "an unknown value of the definitions' sub-chart" "keep" render --set crds.keep=true
accepted "without the default router" render --set defaultRouter.enabled=false

# What a cluster of this release would refuse of the built-in kinds, unknown fields among it. The oldest that is
# supported, and the newest whose schemas there are.
modules="$("$here/../setup/kubernetes-validate.sh")"
valid_for() {
    local release="$1" manifests report
    shift
    manifests="$(render "$@")" || return
    report="$(PYTHONPATH="$modules" /usr/bin/python3 -m kubernetes_validate --strict --kubernetes-version "$release" /dev/stdin <<<"$manifests" 2>&1)" ||
        { grep -v '^INFO' <<<"$report"; return 1; }
    [ "$(grep -c '^INFO .* passed' <<<"$report")" -gt 15 ] || { printf '%s\n' "$report"; return 1; }
    # Its own kinds it does not know; no other may be passed over.
    ! grep '^WARN' <<<"$report" | grep -v -e 'lvs.dev/v1alpha1' -e 'monitoring.coreos.com/v1'
}
for release in 1.32 1.37; do
    accepted "valid for Kubernetes $release" valid_for "$release"
    accepted "valid for Kubernetes $release with everything switched on" valid_for "$release" \
        --set networkPolicy.enabled=true,metrics.podMonitor.enabled=true,controller.hostNetwork=true \
        --set metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true \
        --set metrics.tls.secretName=our-tls,metrics.authentication.enabled=true,metrics.podMonitor.tokenSecretName=prometheus \
        --set tracing.otlp.endpoint=https://collector:4318,tracing.otlp.certificateAuthorities.configMapName=our-ca \
        --set agent.certificateAuthorities.configMapName=our-ca,agent.apiServer.host=192.0.2.7,imagePullSecrets[0].name=registry
done
refused "a field that Kubernetes does not know" "'grammar' was unexpected" valid_for 1.32 \
    --set-json 'extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "grammar": "no"}]'

# Wrong values are refused by name.
refused "Kubernetes 1.31" "kubeVersion: >=1.32" "$helm" template x "$chart" --kube-version 1.31.9
refused "a misspelt value" "'agnet' not allowed" render --set agnet.logLevel=debug
refused "a misspelt field of the router" "/defaultRouter" render --set defaultRouter.adressPools.x=1
refused "an unknown uninstall policy" "'Clean', 'KeepTraffic'" render --set uninstallPolicy=clean
refused "no controllers" "/controller/replicas" render --set controller.replicas=0
refused "a pool without addresses" "missing property 'addresses'" render --set 'defaultRouter.addressPools[0].name=public'
refused "a pool whose address is none" "/defaultRouter/addressPools/0/addresses/0" \
    render --set 'defaultRouter.addressPools[0].name=public,defaultRouter.addressPools[0].addresses[0]=web.example'
refused "a grant of an unknown pool" 'names "publik", which is not in defaultRouter.addressPools (public)' \
    render --set 'defaultRouter.addressPools[0].name=public,defaultRouter.addressPools[0].addresses[0]=192.0.2.1' \
    --set 'defaultRouter.grants[0].namespaces.from=All,defaultRouter.grants[0].addressPoolNames[0]=publik'
refused "an unknown logical interface" 'interfaceName names "outside", which is not in defaultRouter.interfaces' \
    render --set 'defaultRouter.addressPools[0].name=public,defaultRouter.addressPools[0].addresses[0]=192.0.2.1,defaultRouter.addressPools[0].interfaceName=outside'
refused "heartbeats over an interface that is none" 'detection.interfaceName names "inside", which is not in defaultRouter.interfaces (outside)' \
    render --set 'defaultRouter.interfaces[0].name=outside,defaultRouter.interfaces[0].devices[0]=eth0,defaultRouter.detection.interfaceName=inside'
refused "an API endpoint by name" "/agent/apiServer/endpoints/0" render --set 'agent.apiServer.endpoints={https://api.example.com:6443}'
refused "an API endpoint without TLS" "/agent/apiServer/endpoints/0" render --set 'agent.apiServer.endpoints={http://192.0.2.7:6443}'
refused "API endpoints beside a host" "exclude each other" render --set 'agent.apiServer.endpoints={https://192.0.2.7:6443},agent.apiServer.host=192.0.2.7'
refused "a tracked interface that is none" 'interfaceName names "uplink", which is not in defaultRouter.interfaces' \
    render --set 'defaultRouter.tracking.interfaces[0].interfaceName=uplink'
refused "a tracked node condition without its status" "missing property 'status'" \
    render --set 'defaultRouter.tracking.nodeConditions[0].type=Ready'
refused "a tracked endpoint by TLS" "/defaultRouter/tracking/endpoints/0/url" \
    render --set 'defaultRouter.tracking.endpoints[0].url=https://127.0.0.1/ok'
refused "a virtual MAC of no router" 'requires defaultRouter.virtualRouterID' render --set defaultRouter.virtualMAC=Enabled
refused "a director by name and by label" "/defaultRouter/directors/0" \
    render --set 'defaultRouter.directors[0].nodeName=a,defaultRouter.directors[0].nodeSelector.matchLabels.a=b'
refused "a CPU limit on the agent" "agent.resources.limits.cpu: remove it" render --set agent.resources.limits.cpu=1
refused "a mark range in decimal" "/controller/firewallMarkRange" render --set controller.firewallMarkRange=1-9
refused "marks of health checks in decimal" "/agent/healthCheckMarkRange" render --set agent.healthCheckMarkRange=1-9

# What the hosts are promised.
accepted "the agent: no privileges but two capabilities" agent '.spec.template.spec.containers[0].securityContext ==
    {privileged: false, runAsUser: 0, runAsGroup: 0, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true,
     capabilities: {drop: ["ALL"], add: ["NET_ADMIN", "NET_RAW"]}}'
accepted "the agent: host's network and nothing else of the host's name spaces" agent \
    '.spec.template.spec | .hostNetwork and .dnsPolicy == "ClusterFirstWithHostNet" and (has("hostPID") or has("hostIPC") | not)'
accepted "the agent: three host paths, sysctls of the network among them" agent \
    '[.spec.template.spec.volumes[] | select(.hostPath).hostPath.path] == ["/proc/sys/net", "/run/lvs-operator", "/var/lib/lvs-operator"]'
accepted "the agent: never two on a host, one node at a time" agent \
    '.spec.updateStrategy.rollingUpdate == {maxSurge: 0, maxUnavailable: 1}'
accepted "the agent: survives pressure and taints" agent '.spec.template.spec
    | .priorityClassName == "system-node-critical" and .tolerations == [{operator: "Exists"}]
    and (.containers[0].resources.limits | has("cpu") | not)'
accepted "the agent: its own token, renewed and bound" agent '.spec.template.spec
    | .automountServiceAccountToken == false
    and ([.volumes[].projected.sources[]?.serviceAccountToken.expirationSeconds // empty] == [3600])'
accepted "the agent: direct endpoint of the API server" agent \
    '[.spec.template.spec.containers[0].env[] | select(.name | startswith("KUBERNETES_SERVICE")).value] == ["192.0.2.7", "6443"]' \
    --set agent.apiServer.host=192.0.2.7
accepted "the agent: direct endpoints of API servers, each an argument" agent \
    '[.spec.template.spec.containers[0].args[] | select(startswith("--api-endpoint"))] == ["--api-endpoint=https://192.0.2.7:6443", "--api-endpoint=https://[2001:db8::7]"]
    and ([.spec.template.spec.containers[0].env[] | select(.name | startswith("KUBERNETES_SERVICE"))] == [])' \
    --set 'agent.apiServer.endpoints={https://192.0.2.7:6443,https://[2001:db8::7]}'
accepted "the agent: no endpoints of its own unless they are given" agent \
    '[.spec.template.spec.containers[0].args[] | select(startswith("--api-endpoint"))] == []'
accepted "the controllers: no privileges at all" holds Deployment lvs-operator-controller '.spec.template.spec
    | .securityContext.runAsNonRoot and (has("hostNetwork") | not)
    and (.containers[0].securityContext | .readOnlyRootFilesystem and .capabilities == {drop: ["ALL"]})'
accepted "the controllers: read endpoints, and write none" holds ClusterRole lvs-operator-controller \
    '[.rules[] | select(.resources | index("endpointslices")) | .verbs] == [["get", "list", "watch"]]'
accepted "the controllers: no more of ConfigMaps than to list and watch them" holds ClusterRole lvs-operator-controller \
    '[.rules[] | select(.resources | index("configmaps")) | .verbs] == [["list", "watch"]]'
accepted "the default router: annotated, only what was given" holds VirtualRouter default \
    '.metadata.annotations["lvs.dev/is-default-router"] == "true" and .spec == {addressPools: [{name: "p", addresses: ["192.0.2.1"]}]}' \
    --set 'defaultRouter.addressPools[0].name=p,defaultRouter.addressPools[0].addresses[0]=192.0.2.1'
accepted "uninstall is prepared by a hook with its own rights" holds Job lvs-operator-prepare-uninstall \
    '.metadata.annotations["helm.sh/hook"] == "pre-delete"
    and .spec.template.spec.serviceAccountName == "lvs-operator-prepare-uninstall"
    and (.spec.template.spec.containers[0].args | index("--policy=KeepTraffic") != null)' \
    --set uninstallPolicy=KeepTraffic

for policy in Clean KeepTraffic; do
    accepted "the default router, uninstalled with $policy" holds VirtualRouter default \
        ".metadata.annotations[\"helm.sh/resource-policy\"] == $([ "$policy" = Clean ] && echo null || echo '"keep"')" --set "uninstallPolicy=$policy"
done

accepted "no scrape twice: a PodMonitor replaces the annotations" holds PodMonitor lvs-operator \
    '.spec.podMetricsEndpoints[0] | .port == "http" and .interval == "15s"' \
    --set metrics.podMonitor.enabled=true,metrics.podMonitor.interval=15s,metrics.podMonitor.labels.release=prometheus
accepted "the agent: no annotations beside a PodMonitor" agent \
    '.spec.template.metadata.annotations | has("prometheus.io/scrape") | not' --set metrics.podMonitor.enabled=true
# shellcheck disable=SC2016  # a template of Prometheus
accepted "alerts on demand: a PrometheusRule with every one of them, its templates left to Prometheus" holds PrometheusRule lvs-operator \
    "([.spec.groups[].rules[].alert] | length) == $(grep -c '^  - alert: ' "$chart/files/rules.yaml")"'
    and (.spec.groups[0].rules[0].annotations.summary | contains("{{ $labels.virtual_service }}")) and .metadata.labels.release == "prometheus"' \
    --set metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.release=prometheus
accepted "the dashboard on demand: a ConfigMap with the label of Grafana's sidecar" holds ConfigMap lvs-operator-dashboard \
    '.metadata.labels.grafana_dashboard == "1" and (.data["lvs-operator.json"] | fromjson | .uid == "lvs-operator")' --set metrics.dashboard.enabled=true
tls=metrics.tls.secretName=our-tls
tokens=$tls,metrics.authentication.enabled=true
# shellcheck disable=SC2016  # jq's variable
metrics_port='((.ports[] | select(.name == "metrics").containerPort) as $port | .args | index("--metrics-address=0.0.0.0:\($port)") != null)'
for part in "DaemonSet agent 9651" "Deployment controller 9661"; do
    read -r kind name port <<<"$part"
    accepted "the $name: metrics over TLS on a port of their own, the certificate from the Secret, its authority's left out" \
        holds "$kind" "lvs-operator-$name" ".spec.template | .metadata.annotations[\"prometheus.io/port\"] == \"$port\" and .metadata.annotations[\"prometheus.io/scheme\"] == \"https\"
            and (.spec | (.volumes[] | select(.name == \"metrics-tls\").secret | .secretName == \"our-tls\" and .optional and ([.items[].key] == [\"tls.crt\", \"tls.key\"]))
            and (.containers[0] | $metrics_port and (.ports[] | select(.name == \"metrics\").containerPort) == $port
                and (.args | index(\"--metrics-tls-directory=\" + \"/etc/lvs-operator/metrics-tls\") != null and index(\"--metrics-authentication\") == null)
                and ([.readinessProbe, .livenessProbe | .httpGet | .port == \"http\" and .scheme == null] == [true, true])))" --set "$tls"
    accepted "the $name: tokens on demand" holds "$kind" "lvs-operator-$name" \
        '.spec.template.spec.containers[0].args | index("--metrics-authentication") != null' --set "$tokens"
    accepted "the $name: by default nothing of both" holds "$kind" "lvs-operator-$name" '.spec.template
        | (.metadata.annotations | has("prometheus.io/scheme") | not) and ([.spec.containers[0].args[] | select(startswith("--metrics"))] == [])
        and ([.spec.volumes[] | select(.name == "metrics-tls")] == []) and ([.spec.containers[0].ports[] | select(.name == "metrics")] == [])'
done
accepted "the agent: the port of metrics is the node's" agent '.spec.template.spec.containers[0].ports[] | select(.name == "metrics").hostPort == 9651' --set "$tls"
accepted "who judges tokens may ask two questions and nothing else" holds ClusterRole lvs-operator-metrics-authentication \
    '[.rules[] | .resources[] + " " + .verbs[]] == ["tokenreviews create", "subjectaccessreviews create"]' --set "$tokens"
accepted "who may scrape may get /metrics and nothing else" holds ClusterRole lvs-operator-metrics-reader \
    '.rules == [{nonResourceURLs: ["/metrics"], verbs: ["get"]}]' --set "$tokens"
refused "no right to judge tokens unless they are wanted" "no ClusterRole lvs-operator-metrics-authentication was rendered" \
    holds ClusterRole lvs-operator-metrics-authentication true --set "$tls"
refused "no binding of it either" "no ClusterRoleBinding lvs-operator-metrics-authentication was rendered" \
    holds ClusterRoleBinding lvs-operator-metrics-authentication true
accepted "a PodMonitor follows: TLS, the name in the certificate, the token" holds PodMonitor lvs-operator \
    '.spec.podMetricsEndpoints[0] | .port == "metrics" and .scheme == "https" and .authorization == {credentials: {name: "prometheus", key: "token"}}
        and .tlsConfig == {ca: {secret: {name: "our-tls", key: "ca.crt"}}, serverName: "metrics.example"}' \
    --set "$tokens,metrics.tls.serverName=metrics.example,metrics.podMonitor.enabled=true,metrics.podMonitor.tokenSecretName=prometheus"
accepted "the controllers: a NetworkPolicy lets metrics through too" holds NetworkPolicy lvs-operator-controller \
    '[.spec.ingress[].ports[].port] == ["http", "metrics"]' --set "$tls,networkPolicy.enabled=true"
refused "tokens by plain HTTP" "metrics.authentication.enabled requires metrics.tls.secretName" render --set metrics.authentication.enabled=true
refused "a PodMonitor that would be refused" "requires metrics.podMonitor.tokenSecretName" render --set "$tokens,metrics.podMonitor.enabled=true"
refused "a token that nobody asks for" "metrics.podMonitor.tokenSecretName is shown only with" render --set "$tls,metrics.podMonitor.tokenSecretName=prometheus"
refused "one port for health and metrics" "agent.metricsPort is agent.httpPort (9650)" render --set "$tls,agent.metricsPort=9650"
refused "a misspelt value of TLS" "'secret' not allowed" render --set metrics.tls.secret=our-tls
refused "a misspelt label map of alerts" "/metrics/prometheusRule" render --set metrics.prometheusRule.label.release=x
collector=tracing.otlp.endpoint=http://collector.monitoring:4318
over_tls=tracing.otlp.endpoint=https://collector.monitoring:4318,tracing.otlp.certificateAuthorities.configMapName=our-ca
for part in "DaemonSet agent" "Deployment controller"; do
    read -r kind name <<<"$part"
    ratio=null
    [ "$name" = agent ] || ratio='"--otlp-sampling-ratio=0.25"'
    # What begins with it, or null.
    # shellcheck disable=SC2016  # jq's variable
    argument='(.containers[0].args as $all | def argument($name): [$all[] | select(startswith($name))][0];'
    accepted "the $name: traces to the collector" holds "$kind" "lvs-operator-$name" ".spec.template.spec | $argument
        argument(\"--otlp-endpoint\") == \"--otlp-endpoint=http://collector.monitoring:4318\" and argument(\"--otlp-sampling\") == $ratio
        and argument(\"--otlp-certificate\") == null)" --set "$collector,tracing.otlp.samplingRatio=0.25"
    accepted "the $name: traces over TLS, the authorities from a ConfigMap that need not exist" holds "$kind" "lvs-operator-$name" ".spec.template.spec
        | $argument argument(\"--otlp-certificate\")) as \$file
        | (.volumes[] | select(.name == \"collector\").configMap == {name: \"our-ca\", optional: true})
        and (.containers[0].volumeMounts[] | select(.name == \"collector\") | .readOnly and \$file == \"--otlp-certificate=\" + .mountPath + \"/ca.crt\")" --set "$over_tls"
    accepted "the $name: no traces by default" holds "$kind" "lvs-operator-$name" \
        '.spec.template.spec | [.containers[0].args[] | select(startswith("--otlp"))] + [.volumes[] | select(.name == "collector")] == []'
done
accepted "the controllers: a NetworkPolicy keeps them from no collector" holds NetworkPolicy lvs-operator-controller \
    '.spec.policyTypes == ["Ingress"] and (.spec | has("egress") | not)' --set "$collector,networkPolicy.enabled=true"
refused "a collector by another protocol" "/tracing/otlp/endpoint" render --set tracing.otlp.endpoint=grpc://collector:4317
refused "a collector with a password" "/tracing/otlp/endpoint" render --set tracing.otlp.endpoint=http://user:word@collector:4318
refused "a collector over TLS that nobody trusts" "certificateAuthorities.configMapName" render --set tracing.otlp.endpoint=https://collector:4318
refused "authorities that nobody asks" "used only with an https://" render --set "$collector,tracing.otlp.certificateAuthorities.configMapName=our-ca"
refused "more than all changes" "/tracing/otlp/samplingRatio" render --set tracing.otlp.samplingRatio=2
accepted "the controllers: a NetworkPolicy on demand, for the HTTP port alone" holds NetworkPolicy lvs-operator-controller \
    '.spec.ingress == [{ports: [{port: "http", protocol: "TCP"}]}] and .spec.podSelector.matchLabels["app.kubernetes.io/component"] == "controller"' \
    --set networkPolicy.enabled=true
accepted "the controllers: on the host's network on demand" holds Deployment lvs-operator-controller '.spec.template.spec
    | .hostNetwork and .dnsPolicy == "ClusterFirstWithHostNet"' --set controller.hostNetwork=true
accepted "further objects, with templates" holds ConfigMap lvs-system-notes '.data.release == "lvs-operator"' \
    --set-json 'extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Namespace }}-notes"}, "data": {"release": "{{ .Release.Name }}"}}]'

# fields: the names of all fields below a JSON schema, references followed.
# shellcheck disable=SC2016  # jq's variables
fields='def fields($root; $at):
    (if has("$ref") then $root.definitions[."$ref" | ltrimstr("#/definitions/")] else . end)
    | (.properties // {} | to_entries[] | ($at + "." + .key) as $path | $path, (.value | fields($root; $path))),
      (.items // empty | fields($root; $at + "[]"));'
# The values of the default router are VirtualRouter.spec, no field more or less.
router_fields() {
    local values definition
    values="$(jq "$fields"'. as $root | [.properties.defaultRouter | fields($root; "")] - [".enabled", ".name"] | sort' "$chart/values.schema.json")"
    definition="$(KUBECONFIG=/dev/null "$kubectl" patch --local -f "$chart/charts/crds/crds/lvs.dev_virtualrouters.yaml" --type=merge -p '{}' -o json |
        jq "$fields"'. as $root | [.spec.versions[0].schema.openAPIV3Schema.properties.spec | fields($root; "")] | sort')"
    [ "$(jq length <<<"$values")" -gt 20 ] && diff <(printf '%s\n' "$values") <(printf '%s\n' "$definition")
}
accepted "the default router's values are the fields of VirtualRouter.spec" router_fields

summary
