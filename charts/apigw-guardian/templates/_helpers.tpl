{{- define "guardian.labels" -}}
app.kubernetes.io/name: apigw-guardian
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "guardian.selector" -}}
app.kubernetes.io/name: apigw-guardian
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- /* The webhook configuration is cluster-scoped and has one name, so every object of the chart does too. */}}
{{- define "guardian.name" -}}apigw-guardian{{- end }}

{{- define "guardian.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* Every reserved resource as a JSON list of {group, resource, namespace, name, kind}: the file that the program brings, and
       the further reservations. A kind that is not in $regular needs the field resource, its plural. */}}
{{- define "guardian.reserved" -}}
{{- $regular := list "ClusterRole" "ClusterRoleBinding" "ConfigMap" "Role" "RoleBinding" "Secret" "ServiceAccount" }}
{{- $all := list }}
{{- $builtIn := (.Files.Get "files/apigw-ingress.yaml" | fromYaml).spec }}
{{- $sets := list }}
{{- if not (hasKey (.Values.reservations | default dict) "apigw-ingress") }}{{ $sets = append $sets $builtIn }}{{ end }}
{{- range .Values.reservations }}{{ $sets = append $sets . }}{{ end }}
{{- range $set := $sets }}
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
{{- $all = append $all (dict "group" $group "resource" $plural "namespace" ($manifest.metadata.namespace | default "") "name" $manifest.metadata.name "kind" $manifest.kind) }}
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
       ServiceAccount (default: role); annotations; verbs, a list; attacks, to use guardian.attackVerbs instead of verbs;
       escalates, to add the verbs that grant the reserved roles; clusterRules, more rules of the ClusterRole. */}}
{{- define "guardian.grants" -}}
{{- $root := .root }}
{{- $reserved := include "guardian.reserved" $root | fromJsonArray }}
{{- $namespaces := list "" }}
{{- range $reserved }}{{ $namespaces = append $namespaces .namespace }}{{ end }}
{{- range $namespace := $namespaces | uniq }}
{{- $prefix := empty $namespace | ternary "Cluster" "" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata:
  name: {{ $.role }}
  {{- with $namespace }}
  namespace: {{ . }}
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
{{- if and $.escalates (has .kind (list "ClusterRole" "Role")) }}{{ $verbs = concat $verbs (list "escalate" "bind") }}{{ end }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource }}]
  resourceNames: [{{ .name | quote }}]
  verbs: {{ toJson $verbs }}
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
  namespace: {{ . }}
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
  namespace: {{ $root.Release.Namespace }}
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
- {kind: ServiceAccount, namespace: {{ .root.Release.Namespace }}, name: {{ .account }}}
{{- end }}

{{- /* The security context of every Pod. */}}
{{- define "guardian.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "guardian.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "guardian.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
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
- --client-ca=/etc/apigw-guardian/client-ca/{{ .clientAuth.key }}
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
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.certs.clientAuth }}
{{- if .secretName }}
- name: client-ca
  secret: {secretName: {{ .secretName }}, items: [{key: {{ .key }}, path: {{ .key }}}]}
{{- end }}
{{- end }}
{{- end }}

{{- /* A duration such as 36h in seconds. */}}
{{- define "guardian.seconds" -}}
{{- $units := dict "h" 3600 "m" 60 "s" 1 }}
{{- mul (regexFind "^[0-9]+" .) (get $units (regexFind "[hms]$" .)) }}
{{- end }}

{{- /* The ports on which a replica listens, as JSON by name. */}}
{{- define "guardian.ports" -}}
{{- $webhook := .Values.webhook | default dict }}
{{- $ports := dict "webhook" (int ($webhook.port | default 9443)) "probes" (int ($webhook.probesPort | default 8081)) "metrics" (int ($webhook.metricsPort | default 8080)) }}
{{- if lt (values $ports | uniq | len) 3 }}
{{- fail "webhook.port, webhook.probesPort and webhook.metricsPort must differ" }}
{{- end }}
{{- toJson $ports }}
{{- end }}
