{{/* One operator per cluster: names do not depend on the release, so that a
second release is refused by Helm instead of fighting over the hosts. */}}
{{- define "lvs-operator.controller" -}}lvs-operator-controller{{- end }}
{{- define "lvs-operator.agent" -}}lvs-operator-agent{{- end }}
{{- define "lvs-operator.uninstall" -}}lvs-operator-prepare-uninstall{{- end }}

{{/* The Secret with the heartbeat key. */}}
{{- define "lvs-operator.heartbeatKey" -}}
{{- .Values.agent.heartbeat.keySecretName | default "lvs-operator-heartbeat-key" }}
{{- end }}

{{- define "lvs-operator.selector" -}}
app.kubernetes.io/name: lvs-operator
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lvs-operator.labels" -}}
{{ include "lvs-operator.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "lvs-operator.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ index $image (printf "%sRepository" .component) }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Annotations by which Prometheus finds a pod. */}}
{{- define "lvs-operator.scrape" -}}
{{- if and .root.Values.metrics.prometheusAnnotations (not .root.Values.metrics.podMonitor.enabled) }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ ternary .metricsPort .port (ne .root.Values.metrics.tls.secretName "") | quote }}
prometheus.io/path: /metrics
{{- if .root.Values.metrics.tls.secretName }}
prometheus.io/scheme: https
{{- end }}
{{- end }}
{{- end }}

{{/* The projected token: bound to the pod, therefore to the node; renewed by the kubelet. */}}
{{- define "lvs-operator.tokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0444
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3600
    - configMap:
        name: kube-root-ca.crt
        items:
        - {key: ca.crt, path: ca.crt}
    - downwardAPI:
        items:
        - path: namespace
          fieldRef: {fieldPath: metadata.namespace}
{{- end }}
{{- define "lvs-operator.tokenMount" -}}
- name: api-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{/* /metrics over TLS on a port of its own, for whom the values say: arguments, port, mount and volume of a container. */}}
{{- define "lvs-operator.metricsArguments" -}}
{{- if .root.Values.metrics.tls.secretName -}}
- --metrics-address=0.0.0.0:{{ .metricsPort }}
- --metrics-tls-directory=/etc/lvs-operator/metrics-tls
{{- if .root.Values.metrics.authentication.enabled }}
- --metrics-authentication
{{- end }}
{{- end }}
{{- end }}
{{- define "lvs-operator.metricsMount" -}}
{{- if .Values.metrics.tls.secretName -}}
- name: metrics-tls
  mountPath: /etc/lvs-operator/metrics-tls
  readOnly: true
{{- end }}
{{- end }}
{{- define "lvs-operator.metricsVolume" -}}
{{- with .Values.metrics.tls.secretName -}}
# Without the Secret only metrics are missing: nobody's traffic waits for it.
- name: metrics-tls
  secret:
    secretName: {{ . }}
    optional: true
    defaultMode: 0444
    items:
    - {key: tls.crt, path: tls.crt}
    - {key: tls.key, path: tls.key}
{{- end }}
{{- end }}

{{/* Traces to a collector: arguments, mount and volume of a container. */}}
{{- define "lvs-operator.tracingArguments" -}}
{{- with .root.Values.tracing.otlp -}}
{{- if .endpoint -}}
- --otlp-endpoint={{ .endpoint }}
{{- if .certificateAuthorities.configMapName }}
- --otlp-certificate=/etc/lvs-operator/collector/{{ .certificateAuthorities.key }}
{{- end }}
{{- if eq $.component "controller" }}
- --otlp-sampling-ratio={{ .samplingRatio }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- define "lvs-operator.tracingMount" -}}
{{- if .Values.tracing.otlp.certificateAuthorities.configMapName -}}
- name: collector
  mountPath: /etc/lvs-operator/collector
  readOnly: true
{{- end }}
{{- end }}
{{- define "lvs-operator.tracingVolume" -}}
{{- with .Values.tracing.otlp.certificateAuthorities.configMapName -}}
# Without the ConfigMap only traces are missing: nobody's traffic waits for it.
- name: collector
  configMap:
    name: {{ . }}
    optional: true
{{- end }}
{{- end }}

{{/* Refuses what a schema cannot see. */}}
{{- define "lvs-operator.check" -}}
{{- if hasKey (.Values.agent.resources.limits | default dict) "cpu" }}
{{- fail "values: agent.resources.limits.cpu: remove it; a throttled agent could not keep its addresses alive" }}
{{- end }}
{{- with .Values.metrics }}
{{- if and .authentication.enabled (not .tls.secretName) }}
{{- fail "values: metrics.authentication.enabled requires metrics.tls.secretName: a token by plain HTTP is anybody's" }}
{{- end }}
{{- if and .podMonitor.enabled .authentication.enabled (not .podMonitor.tokenSecretName) }}
{{- fail "values: metrics.podMonitor.enabled with metrics.authentication.enabled requires metrics.podMonitor.tokenSecretName: without a token every scrape is refused" }}
{{- end }}
{{- if and .podMonitor.tokenSecretName (not .authentication.enabled) }}
{{- fail "values: metrics.podMonitor.tokenSecretName is shown only with metrics.authentication.enabled: enable that, or remove it" }}
{{- end }}
{{- end }}
{{- with .Values.tracing.otlp }}
{{- if and (hasPrefix "https:" .endpoint) (not .certificateAuthorities.configMapName) }}
{{- fail "values: tracing.otlp.endpoint is https: name the collector's authorities in tracing.otlp.certificateAuthorities.configMapName, the images have none" }}
{{- end }}
{{- if and .certificateAuthorities.configMapName (not (hasPrefix "https:" .endpoint)) }}
{{- fail "values: tracing.otlp.certificateAuthorities.configMapName is used only with an https:// tracing.otlp.endpoint: set that, or remove it" }}
{{- end }}
{{- end }}
{{- range $part := list "agent" "controller" }}
{{- $ports := index $.Values $part }}
{{- if eq (int $ports.httpPort) (int $ports.metricsPort) }}
{{- fail (printf "values: %s.metricsPort is %s.httpPort (%d): give it a port of its own" $part $part (int $ports.httpPort)) }}
{{- end }}
{{- end }}
{{- with .Values.agent.apiServer }}
{{- if and .endpoints .host }}
{{- fail "values: agent.apiServer.host and agent.apiServer.endpoints exclude each other: add the host's address to endpoints, or remove one of the two" }}
{{- end }}
{{- end }}
{{- $router := .Values.defaultRouter }}
{{- $pools := dict }}
{{- range $router.addressPools }}{{- $_ := set $pools .name true }}{{- end }}
{{- range $index, $grant := $router.grants }}
{{- range $grant.addressPoolNames }}
{{- if not (hasKey $pools .) }}
{{- fail (printf "values: defaultRouter.grants[%d].addressPoolNames names %q, which is not in defaultRouter.addressPools (%s)" $index . (keys $pools | sortAlpha | join ", " | default "empty")) }}
{{- end }}
{{- end }}
{{- end }}
{{- $interfaces := dict }}
{{- range $router.interfaces }}{{- $_ := set $interfaces .name true }}{{- end }}
{{- if and (eq $router.virtualMAC "Enabled") (not $router.virtualRouterID) }}
{{- fail "values: defaultRouter.virtualMAC Enabled requires defaultRouter.virtualRouterID: set a number that no other router on the link has" }}
{{- end }}
{{- with $router.detection.interfaceName }}
{{- if not (hasKey $interfaces .) }}
{{- fail (printf "values: defaultRouter.detection.interfaceName names %q, which is not in defaultRouter.interfaces (%s)" . (keys $interfaces | sortAlpha | join ", " | default "empty")) }}
{{- end }}
{{- end }}
{{- range $index, $entry := $router.tracking.interfaces }}
{{- if not (hasKey $interfaces $entry.interfaceName) }}
{{- fail (printf "values: defaultRouter.tracking.interfaces[%d].interfaceName names %q, which is not in defaultRouter.interfaces (%s)" $index $entry.interfaceName (keys $interfaces | sortAlpha | join ", " | default "empty")) }}
{{- end }}
{{- end }}
{{- range $list := list "addressPools" "additionalAddresses" }}
{{- range $index, $entry := index $router $list }}
{{- with $entry.interfaceName }}
{{- if not (hasKey $interfaces .) }}
{{- fail (printf "values: defaultRouter.%s[%d].interfaceName names %q, which is not in defaultRouter.interfaces (%s)" $list $index . (keys $interfaces | sortAlpha | join ", " | default "empty")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
