{{- /* "true" if the leader restores. A guard that observes allows every write, so it must not revert one; and nothing records what
       policies allow by an exemption. */}}
{{- define "guardian.heals" -}}
{{- $isRecorded := or (ne .Values.engine "policy") (empty .Values.exemptions) }}
{{- if and (.Values.heal).enabled (eq .Values.mode "enforce") $isRecorded }}true{{ end }}
{{- end }}

{{- define "guardian.driftMode" -}}
{{- if not (include "guardian.heals" .) }}report
{{- else if (.Values.authorize).enabled }}heal
{{- else }}authorize
{{- end }}
{{- end }}
