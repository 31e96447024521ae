{{- /* Not empty if the policies are rendered. Kubernetes serves them since 1.30. */}}
{{- define "guardian.policies" -}}
{{- $isServed := and (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") }}
{{- if and .Values.policies.enabled (or .Values.policies.force $isServed) }}true{{ end }}
{{- end }}

{{- /* A CEL expression: an update leaves the metadata as they were, but for the API server's bookkeeping. */}}
{{- define "guardian.keepsMetadata" -}}
{{- $own := "k in ['managedFields', 'resourceVersion', 'generation']" -}}
request.operation == 'UPDATE' && dyn(object.metadata).all(k, {{ $own }} || k in dyn(oldObject.metadata) && dyn(object.metadata)[k] == dyn(oldObject.metadata)[k]) && dyn(oldObject.metadata).all(k, {{ $own }} || k in dyn(object.metadata))
{{- end }}

{{- /* The binding that puts a policy into force. Parameters: root; name, that of the policy. */}}
{{- define "guardian.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "guardian.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}
