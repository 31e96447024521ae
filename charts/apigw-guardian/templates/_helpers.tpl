{{- /* Gives every value that is missing or null its default, and refuses those without effect. Each template calls it first: a release
       that keeps its values of an older chart (helm upgrade --reuse-values) lacks the blocks that came later. */}}
{{- define "guardian.defaults" -}}
{{- include "guardian.fill" (dict "into" .Values "from" (.Files.Get "files/values.yaml" | fromYaml)) }}
{{- range $name, $spec := .Values.reservations }}
{{- if kindIs "invalid" $spec }}{{ $_ := unset $.Values.reservations $name }}{{ end }}
{{- end }}
{{- $passedOn := list "resources" "podSecurityContext" "containerSecurityContext" "affinity" "topologySpreadConstraints" "tolerations" "extraEnv" "networkPolicy" "exemptions" }}
{{- range $passedOn }}{{ include "guardian.clean" (get $.Values .) }}{{ end }}
{{- include "guardian.clean" .Values.certs.issuerRef }}
{{- include "guardian.check" . }}
{{- end }}

{{- /* Removes every null from a value that goes into an object as it is, and makes text of the labels and values of selectors. */}}
{{- define "guardian.clean" -}}
{{- $value := . }}
{{- if kindIs "map" $value }}
{{- range $key, $part := $value }}
{{- if kindIs "invalid" $part }}{{ $_ := unset $value $key }}
{{- else if eq $key "matchLabels" }}{{ $_ := set $value $key (include "guardian.strings" $part | fromYaml) }}
{{- else if eq $key "values" }}
{{- $texts := list }}
{{- range $part }}{{ $texts = append $texts (include "guardian.string" .) }}{{ end }}
{{- $_ := set $value $key $texts }}
{{- else }}{{ include "guardian.clean" $part }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- range $value }}{{ include "guardian.clean" . }}{{ end }}
{{- end }}
{{- end }}

{{- /* Parameters: into, from. A null in one of the blocks $whole removes that field for good. */}}
{{- define "guardian.fill" -}}
{{- $whole := list "resources" "nodeSelector" "podSecurityContext" "containerSecurityContext" }}
{{- range $key, $default := .from }}
{{- $value := get $.into $key }}
{{- if or (not (hasKey $.into $key)) (kindIs "invalid" $value) }}
{{- $_ := set $.into $key $default }}
{{- else if and (kindIs "map" $default) (kindIs "map" $value) (not (has $key $whole)) }}
{{- include "guardian.fill" (dict "into" $value "from" $default) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Values that would have no effect with the others. */}}
{{- define "guardian.check" -}}
{{- if ne .Values.engine "webhook" }}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version }}
{{- fail (printf "engine %s needs ValidatingAdmissionPolicies, and Kubernetes %s serves none before 1.30: set engine to webhook" .Values.engine .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if hasKey (.Values.reservations | default dict) "apigw-ingress" }}
{{- fail (printf "reservations.apigw-ingress has no effect with engine %s, whose policies are those of the built-in reservation: set engine to webhook" .Values.engine) }}
{{- end }}
{{- if and .Values.reservations (eq .Values.engine "policy") }}
{{- fail "reservations have no effect with engine policy: set engine to webhook or both, or remove them and run: apigw-guardian policy --reservations DIRECTORY | kubectl apply -f -" }}
{{- end }}
{{- if and .Values.authorize.retired (eq .Values.engine "policy") }}
{{- fail "authorize.retired has no effect with engine policy, which honours no unlock: set engine to webhook first" }}
{{- end }}
{{- end }}
{{- if and .Values.controller.enabled (ne .Values.engine "policy") }}
{{- fail (printf "controller.enabled has no effect with engine %s, whose replicas do its work: remove it, or set engine to policy" .Values.engine) }}
{{- end }}
{{- with .Values.certs }}
{{- if and .secretName (ne .mode "provided") }}
{{- fail (printf "certs.secretName has no effect with certs.mode %s: remove it, or set certs.mode to provided" .mode) }}
{{- end }}
{{- if and .issuerRef (ne .mode "cert-manager") }}
{{- fail (printf "certs.issuerRef has no effect with certs.mode %s: remove it, or set certs.mode to cert-manager" .mode) }}
{{- end }}
{{- if and (not .clientAuth.secretName) (or (ne .clientAuth.mode "require") (ne .clientAuth.key "ca.crt")) }}
{{- fail "certs.clientAuth.mode and certs.clientAuth.key have no effect without certs.clientAuth.secretName: set it, or remove them" }}
{{- end }}
{{- end }}
{{- with .Values.audit.otlp }}
{{- if and (not .endpoint) (or .clusterName .secretName) }}
{{- fail "audit.otlp.clusterName and audit.otlp.secretName have no effect without audit.otlp.endpoint: set it, or remove them" }}
{{- end }}
{{- end }}
{{- with .Values.tencentCloud }}
{{- if and (not .credentialsSecret) (or .region .clusterId) }}
{{- fail "tencentCloud.region and tencentCloud.clusterId have no effect without tencentCloud.credentialsSecret: set it, or remove them" }}
{{- end }}
{{- end }}
{{- if and .Values.authorize.retired (not .Values.authorize.enabled) }}
{{- fail "authorize.retired has no effect with authorize.enabled false: set it to true" }}
{{- end }}
{{- if not (or .Values.crds.enabled .Values.crds.keep) }}
{{- fail "crds.keep false has no effect with crds.enabled false: remove it, or set crds.enabled to true" }}
{{- end }}
{{- end }}

{{- /* Not empty if a Pod of the guard runs: the webhook, or the controller, which serves no review. */}}
{{- define "guardian.runs" -}}
{{- if or (ne .Values.engine "policy") .Values.controller.enabled }}true{{ end }}
{{- end }}

{{- /* A number or a boolean as text; a whole number without an exponent. */}}
{{- define "guardian.string" -}}
{{- if and (kindIs "float64" .) (eq (floor .) (. | float64)) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- /* A map of labels or annotations, with values as text. */}}
{{- define "guardian.strings" -}}
{{- $all := dict }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $all $key (include "guardian.string" $value) }}{{ end }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{- /* A list of maps whose field value is text: environment variables, tolerations. */}}
{{- define "guardian.texts" -}}
{{- $all := list }}
{{- range . }}
{{- $text := dict }}
{{- if not (kindIs "invalid" .value) }}{{ $text = dict "value" (include "guardian.string" .value) }}{{ end }}
{{- $all = append $all (merge $text (omit . "value")) }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{- /* The further environment variables. A proxy is for other hosts than the cluster's own API server, whose address Kubernetes writes into
       every Pod. */}}
{{- define "guardian.extraEnv" -}}
{{- $env := include "guardian.texts" .Values.extraEnv | fromYamlArray }}
{{- $proxied := false }}
{{- $direct := list }}
{{- $others := list }}
{{- range $env }}
{{- if eq (upper .name) "HTTPS_PROXY" }}{{ $proxied = true }}{{ end }}
{{- if eq (upper .name) "NO_PROXY" }}{{ $direct = append $direct .value }}{{ else }}{{ $others = append $others . }}{{ end }}
{{- end }}
{{- if and $proxied (not (has nil $direct)) }}
{{- $direct = concat $direct (list "$(KUBERNETES_SERVICE_HOST)") | uniq }}
{{- $env = append $others (dict "name" "NO_PROXY" "value" (join "," $direct)) }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{- define "guardian.names" -}}
{{- $names := list }}
{{- range . }}{{ $names = append $names .name }}{{ end }}
{{- toJson $names }}
{{- end }}

{{- define "guardian.commonLabels" -}}
{{- include "guardian.strings" .Values.commonLabels }}
{{- end }}

{{- /* A text as the value of a label. The chart has its alias as its name in a parent chart. */}}
{{- define "guardian.label" -}}
{{- . | replace "+" "_" | trunc 63 | trimAll "-_." }}
{{- end }}

{{- define "guardian.labels" -}}
{{- include "guardian.moreLabels" (dict "root" .) }}
{{- end }}

{{- /* The labels of an object. Parameters: root; labels, a map of the values for this object. */}}
{{- define "guardian.moreLabels" -}}
{{- $more := include "guardian.strings" .labels | fromYaml }}
{{- with .root }}
{{- $own := dict
  "app.kubernetes.io/version" (include "guardian.label" .Chart.AppVersion)
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | include "guardian.label") }}
{{- merge $own (include "guardian.instance" . | fromYaml) $more (include "guardian.commonLabels" . | fromYaml) | toYaml }}
{{- end }}
{{- end }}

{{- /* The labels of a PrometheusRule. Parameters: root; labels, a map of the values for this object. */}}
{{- define "guardian.alertLabels" -}}
{{- include "guardian.moreLabels" (dict "root" .root "labels" (merge (deepCopy .labels) .root.Values.alerts.labels)) }}
{{- end }}

{{- /* What all Pods of the release have in common. */}}
{{- define "guardian.instance" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "apigw-guardian" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* The labels of a replica, by which the Service and others select it. */}}
{{- define "guardian.selector" -}}
{{ include "guardian.instance" . }}
app.kubernetes.io/component: webhook
{{- end }}

{{- /* Labels and annotations of a Pod. Parameters: root; labels and annotations, which no value overrides; defaults, annotations which
       the values override. */}}
{{- define "guardian.podMetadata" -}}
{{- $root := .root }}
{{- /* Opt-outs of Istio (sidecar, ambient), Kuma, Linkerd and Consul: the API server is in no mesh, and a Job with a sidecar does not end. */}}
{{- $optOutLabels := dict "sidecar.istio.io/inject" "false" "istio.io/dataplane-mode" "none" "kuma.io/sidecar-injection" "disabled" }}
{{- $optOuts := dict "sidecar.istio.io/inject" "false" "linkerd.io/inject" "disabled" "consul.hashicorp.com/connect-inject" "false" -}}
labels:
  {{- merge (deepCopy .labels) (include "guardian.strings" $root.Values.podLabels | fromYaml) (include "guardian.commonLabels" $root | fromYaml) $optOutLabels | toYaml | nindent 2 }}
annotations:
  {{- merge (deepCopy .annotations) (include "guardian.strings" $root.Values.podAnnotations | fromYaml) $optOuts (.defaults | default dict) | toYaml | nindent 2 }}
{{- end }}

{{- /* The digest of the reservations, so that a Pod is replaced when they change. */}}
{{- define "guardian.reservationsDigest" -}}
{{- with include "guardian.reservations" . }}guardian.apigw.io/reservations: {{ sha256sum . }}{{ else }}{}{{ end }}
{{- end }}

{{- /* What the Jobs have in common. Parameters: root; deadline and ttl, the defaults of activeDeadlineSeconds and
       ttlSecondsAfterFinished, 0 for none. */}}
{{- define "guardian.job" -}}
{{- $jobs := .root.Values.jobs -}}
backoffLimit: {{ kindIs "invalid" $jobs.backoffLimit | ternary (.root.Values.hooks.enabled | ternary 2 6) $jobs.backoffLimit | int }}
{{- with $jobs.activeDeadlineSeconds | default .deadline }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- if not (kindIs "invalid" $jobs.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int $jobs.ttlSecondsAfterFinished }}
{{- else if .ttl }}
ttlSecondsAfterFinished: {{ .ttl }}
{{- end }}
{{- end }}

{{- /* The webhook configuration is cluster-scoped and has one name, so every object of the chart does too. */}}
{{- define "guardian.name" -}}apigw-guardian{{- end }}

{{- /* The chart of a release has the digest of its image as the default. A tag in the values is for another image. */}}
{{- define "guardian.image" -}}
{{- $release := (.Files.Get "files/values.yaml" | fromYaml).image.digest }}
{{- $registry := (.Values.global).imageRegistry | default "" | trimSuffix "/" }}
{{- with .Values.image -}}
{{- /* A repository that begins with a host keeps it. */}}
{{- if and $registry (not (regexMatch "^([^/]*[.:][^/]*|localhost)/" .repository)) }}{{ $registry }}/{{ end }}
{{- .repository }}{{ if and .digest (not (and .tag (eq .digest $release))) }}@{{ .digest }}{{ else }}:{{ include "guardian.string" (.tag | default $.Chart.AppVersion) }}{{ end }}
{{- end }}
{{- end }}

{{- /* Every reserved resource as a JSON list of {reservation, group, resource, namespace, name, kind}: the file that the program brings, and
       the further reservations. A kind that is not in $regular needs the field resource, its plural. */}}
{{- define "guardian.reserved" -}}
{{- $regular := list "ClusterRole" "ClusterRoleBinding" "ConfigMap" "Role" "RoleBinding" "Secret" "ServiceAccount" }}
{{- $all := list }}
{{- $builtIn := (.Files.Get "files/apigw-ingress.yaml" | fromYaml).spec }}
{{- $sets := deepCopy .Values.reservations }}
{{- if not (hasKey $sets "apigw-ingress") }}{{ $_ := set $sets "apigw-ingress" $builtIn }}{{ end }}
{{- range $reservation, $set := $sets }}
{{- range $set.resources }}
{{- $manifest := .manifest }}
{{- $parts := splitList "/" $manifest.apiVersion }}
{{- $group := "" }}
{{- if gt (len $parts) 1 }}{{ $group = first $parts }}{{ end }}
{{- $plural := .resource }}
{{- if and (not $plural) (has $manifest.kind $regular) }}{{ $plural = printf "%ss" (lower $manifest.kind) }}{{ end }}
{{- if not $plural }}
{{- fail (printf "reservations: the plural of %s %q is unknown: add resource: PLURAL next to its manifest (see kubectl api-resources)" $manifest.kind $manifest.metadata.name) }}
{{- end }}
{{- $all = append $all (dict "reservation" $reservation "group" $group "resource" $plural "namespace" ($manifest.metadata.namespace | default "") "name" $manifest.metadata.name "kind" $manifest.kind) }}
{{- end }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{- /* The verbs that `helm test` may use on a kind of reserved resource. Reading or patching a Secret returns its token. RBAC
       refuses an update of a role or binding by a user without the granted rights, so that update cannot reach the guard. */}}
{{- define "guardian.attackVerbs" -}}
{{- if eq . "Secret" }}["delete"]
{{- else if has . (list "ClusterRole" "ClusterRoleBinding" "Role" "RoleBinding") }}["get", "delete"]
{{- else }}["get", "update", "patch", "delete"]
{{- end }}
{{- end }}

{{- /* Grants on each reserved resource by name: a ClusterRole for cluster-scoped resources, a Role in each namespace for the
       others, and their bindings to one ServiceAccount. Parameters: root; role, the name of the roles; account, the
       ServiceAccount (default: role); annotations; verbs, a list; reservation, the only one to grant (default: all); attacks, to use guardian.attackVerbs instead of verbs;
       escalates, to add the verbs that grant the reserved roles; others, verbs to add for kinds other than RBAC's; mints, to add tokens of the ServiceAccounts; clusterRules, more rules of the ClusterRole. */}}
{{- define "guardian.grants" -}}
{{- $root := .root }}
{{- $reserved := list }}
{{- $namespaces := list "" }}
{{- range include "guardian.reserved" $root | fromJsonArray }}
{{- if or (not $.reservation) (eq $.reservation .reservation) }}
{{- $reserved = append $reserved . }}
{{- $namespaces = append $namespaces .namespace }}
{{- end }}
{{- end }}
{{- range $namespace := $namespaces | uniq }}
{{- $prefix := empty $namespace | ternary "Cluster" "" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata:
  name: {{ $.role }}
  {{- with $namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels: {{- include "guardian.labels" $root | nindent 4 }}
  {{- with $.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
rules:
{{- range $reserved }}
{{- if eq .namespace $namespace }}
{{- $verbs := $.verbs }}
{{- if $.attacks }}{{ $verbs = include "guardian.attackVerbs" .kind | fromJsonArray }}{{ end }}
{{- if and $.others (not (has .kind (list "ClusterRole" "ClusterRoleBinding" "Role" "RoleBinding"))) }}{{ $verbs = concat $verbs $.others }}{{ end }}
{{- if and $.escalates (has .kind (list "ClusterRole" "Role")) }}{{ $verbs = concat $verbs (list "escalate" "bind") }}{{ end }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource }}]
  resourceNames: [{{ .name | quote }}]
  verbs: {{ toJson $verbs }}
{{- if and $.mints (eq .kind "ServiceAccount") }}
- apiGroups: [""]
  resources: [serviceaccounts/token]
  resourceNames: [{{ .name | quote }}]
  verbs: [create]
{{- end }}
{{- end }}
{{- end }}
{{- if and $.clusterRules (empty $namespace) }}
{{ toYaml $.clusterRules }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}RoleBinding
metadata:
  name: {{ $.role }}
  {{- with $namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels: {{- include "guardian.labels" $root | nindent 4 }}
  {{- with $.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $prefix }}Role
  name: {{ $.role }}
subjects:
- kind: ServiceAccount
  namespace: {{ $root.Release.Namespace | quote }}
  name: {{ $.account | default $.role }}
{{- end }}
{{- end }}

{{- /* A Role in kube-system to read the cluster's CA, which a token Secret must contain, and its binding. Parameters: root,
       account, annotations. */}}
{{- define "guardian.clusterCA" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .account }}-cluster-ca
  namespace: kube-system
  labels: {{- include "guardian.labels" .root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
rules:
# The CA that kube-controller-manager publishes. With another CA in the token Secret, API Gateway would trust another API server.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [kube-root-ca.crt]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .account }}-cluster-ca
  namespace: kube-system
  labels: {{- include "guardian.labels" .root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .account }}-cluster-ca}
subjects:
- {kind: ServiceAccount, namespace: {{ .root.Release.Namespace | quote }}, name: {{ .account }}}
{{- end }}

{{- /* The security context of every Pod. OpenShift assigns users and groups itself, and refuses others. */}}
{{- define "guardian.podSecurity" -}}
{{- $context := .Values.podSecurityContext }}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- range list "runAsUser" "runAsGroup" }}
{{- if eq (get $context . | toString) "65532" }}{{ $context = omit $context . }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- /* That of a replica. A port below 1024 needs a capability, or this sysctl, which Kubernetes and its policy "restricted" take for safe. */}}
{{- define "guardian.replicaSecurity" -}}
{{- $ports := include "guardian.ports" . | fromJson }}
{{- $context := include "guardian.podSecurity" . | fromYaml }}
{{- if lt (min $ports.webhook $ports.probes $ports.metrics | int) 1024 }}
{{- $context = merge (dict) $context (dict "sysctls" (list (dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0"))) }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "guardian.containerSecurity" -}}
{{- toYaml .Values.containerSecurityContext }}
{{- end }}

{{- /* Where a Pod runs, and what its image needs. Parameters: root; affinity; tolerations, besides those of the values. */}}
{{- define "guardian.placement" -}}
{{- $values := .root.Values -}}
{{- $names := list }}
{{- range concat ($values.image.pullSecrets | default list) (($values.global).imagePullSecrets | default list) }}
{{- if kindIs "map" . }}{{ $names = append $names .name }}{{ else }}{{ $names = append $names . }}{{ end }}
{{- end }}
{{- with $names | uniq }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- include "guardian.strings" . | nindent 2 }}
{{- end }}
{{- with concat (include "guardian.texts" $values.tolerations | fromYamlArray) (.tolerations | default list) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the Pod of a job runs: affinity to other Pods is for the replicas. Parameters: as guardian.placement. */}}
{{- define "guardian.jobPlacement" -}}
{{- include "guardian.placement" (merge (dict "affinity" (pick .root.Values.affinity "nodeAffinity")) .) }}
{{- end }}

{{- /* The reservations that the program reads from files, as JSON by name: those in the values, and the built-in one if it has
       exemptions. */}}
{{- define "guardian.reservations" -}}
{{- $all := deepCopy (.Values.reservations | default dict) }}
{{- if .Values.exemptions }}
{{- $builtIn := get $all "apigw-ingress" | default (.Files.Get "files/apigw-ingress.yaml" | fromYaml).spec }}
{{- $exemptions := concat ($builtIn.exemptions | default list) .Values.exemptions }}
{{- $all = set $all "apigw-ingress" (set $builtIn "exemptions" $exemptions) }}
{{- end }}
{{- if $all }}{{ toJson $all }}{{ end }}
{{- end }}

{{- define "guardian.reservationArgs" -}}
{{- if include "guardian.reservations" . }}
- --reservations=/etc/apigw-guardian/reservations
{{- end }}
{{- end }}

{{- define "guardian.reservationMount" -}}
{{- if include "guardian.reservations" . }}
- {name: reservations, mountPath: /etc/apigw-guardian/reservations, readOnly: true}
{{- end }}
{{- end }}

{{- define "guardian.reservationVolume" -}}
{{- if include "guardian.reservations" . }}
- name: reservations
  configMap: {name: {{ include "guardian.name" . }}-reservations}
{{- end }}
{{- end }}

{{- /* The volume mounts of a Pod that mounts only the reservations. */}}
{{- define "guardian.reservationMounts" -}}
{{- with include "guardian.reservationMount" . }}
volumeMounts: {{- . }}
{{- end }}
{{- end }}

{{- define "guardian.reservationVolumes" -}}
{{- with include "guardian.reservationVolume" . }}
volumes: {{- . }}
{{- end }}
{{- end }}

{{- /* The host name with which the API server calls the guard. */}}
{{- define "guardian.host" -}}{{ include "guardian.name" . }}.{{ .Release.Namespace }}.svc{{- end }}

{{- /* The Secret that holds the serving certificate; "" for the built-in CA. */}}
{{- define "guardian.certSecret" -}}
{{- with .Values.certs }}
{{- if eq .mode "cert-manager" }}{{ include "guardian.name" $ }}-serving
{{- else if eq .mode "provided" }}{{ required "certs.secretName is required when certs.mode is provided" .secretName }}
{{- end }}
{{- end }}
{{- end }}

{{- define "guardian.certArgs" -}}
{{- with .Values.certs }}
{{- if eq .mode "builtin" }}
- --ca-lifetime={{ .caLifetime }}
- --leaf-lifetime={{ .leafLifetime }}
{{- else }}
- --certs=files
- --cert-dir=/etc/apigw-guardian/certs
{{- end }}
{{- if .clientAuth.secretName }}
- {{ printf "--client-ca=/etc/apigw-guardian/client-ca/%s" .clientAuth.key | quote }}
- --client-auth={{ .clientAuth.mode }}
{{- end }}
{{- end }}
{{- end }}

{{- define "guardian.certMount" -}}
{{- if include "guardian.certSecret" . }}
- {name: certs, mountPath: /etc/apigw-guardian/certs, readOnly: true}
{{- end }}
{{- if .Values.certs.clientAuth.secretName }}
- {name: client-ca, mountPath: /etc/apigw-guardian/client-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "guardian.certVolume" -}}
{{- with include "guardian.certSecret" . }}
- name: certs
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- with .Values.certs.clientAuth }}
{{- if .secretName }}
- name: client-ca
  secret: {secretName: {{ .secretName | quote }}, items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]}
{{- end }}
{{- end }}
{{- end }}

{{- define "guardian.cloudArgs" -}}
{{- with .Values.tencentCloud }}
{{- if .credentialsSecret }}
- --tencent-cloud-credentials=/etc/apigw-guardian/tencent-cloud
- {{ required "tencentCloud.region is required with tencentCloud.credentialsSecret" .region | printf "--tencent-cloud-region=%s" | quote }}
- {{ required "tencentCloud.clusterId is required with tencentCloud.credentialsSecret" .clusterId | printf "--tencent-cloud-cluster=%s" | quote }}
- {{ printf "--tencent-cloud-endpoint=%s" .endpoint | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The API key of Tencent Cloud. A Pod starts without the Secret, and reports that. */}}
{{- define "guardian.cloudMount" -}}
{{- if .Values.tencentCloud.credentialsSecret }}
- {name: tencent-cloud, mountPath: /etc/apigw-guardian/tencent-cloud, readOnly: true}
{{- end }}
{{- end }}

{{- define "guardian.cloudVolume" -}}
{{- with .Values.tencentCloud.credentialsSecret }}
- name: tencent-cloud
  secret: {secretName: {{ . | quote }}, optional: true}
{{- end }}
{{- end }}

{{- /* A duration such as 36h or 1h30m0s in seconds. */}}
{{- define "guardian.seconds" -}}
{{- $units := dict "h" 3600 "m" 60 "s" 1 }}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+[hms]" . -1 }}
{{- $seconds = add $seconds (mul (regexFind "^[0-9]+" .) (get $units (regexFind "[hms]$" .))) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /* The ports on which a replica listens, as JSON by name. */}}
{{- define "guardian.ports" -}}
{{- $webhook := .Values.webhook | default dict }}
{{- $ports := dict "webhook" (int ($webhook.port | default 9443)) "probes" (int ($webhook.probesPort | default 8081)) "metrics" (int ($webhook.metricsPort | default 8080)) }}
{{- if lt (values $ports | uniq | len) 3 }}
{{- fail "webhook.port, webhook.probesPort and webhook.metricsPort must differ" }}
{{- end }}
{{- if and .Values.hostNetwork (or (has 10250 (values $ports)) (lt (min $ports.webhook $ports.probes $ports.metrics) 1024)) }}
{{- fail "with hostNetwork, webhook.port, webhook.probesPort and webhook.metricsPort must be 1024 or higher, and not the kubelet's 10250" }}
{{- end }}
{{- toJson $ports }}
{{- end }}
