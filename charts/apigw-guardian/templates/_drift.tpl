{{- /* "true" if the leader restores. A guard that observes allows every write, so it must not revert one. */}}
{{- define "guardian.heals" -}}
{{- if and (.Values.heal).enabled (eq .Values.mode "enforce") }}true{{ end }}
{{- end }}

{{- define "guardian.driftMode" -}}
{{- if not (include "guardian.heals" .) }}report
{{- else if (.Values.authorize).enabled }}heal
{{- else }}authorize
{{- end }}
{{- end }}
