{{/* Name of all objects of this operator. Labels limit it to 63 characters. */}}
{{- define "hatchery.fullname" -}}
{{- printf "%s-operator" (.Release.Name | trunc 50 | trimSuffix "-") }}
{{- end }}

{{/* Selector labels of the Service, the policies and the Deployment. They never change within a release. */}}
{{- define "hatchery.selectorLabels" -}}
app.kubernetes.io/name: hatchery-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hatchery.labels" -}}
{{ include "hatchery.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hatchery
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The operator's settings file: `settings` of the values, and settings derived from other values. */}}
{{- define "hatchery.settings" -}}
{{- $progress := dict "serviceUrl" (printf "https://%s.%s.svc:8443" (include "hatchery.fullname" .) .Release.Namespace) }}
{{- if .Values.progress.certificateSecret }}
{{- $progress = set $progress "certificate" "/etc/hatchery-certificate" }}
{{- end }}
{{- $derived := dict "operatorName" (include "hatchery.fullname" .) "namespaces" .Values.watchNamespaces "jobsImage" .Values.image.jobs "imagePullPolicy" .Values.image.pullPolicy "progress" $progress }}
{{- mergeOverwrite (deepCopy .Values.settings) $derived | toYaml }}
{{- end }}

{{/* Restricted Pod Security for every pod of the chart. */}}
{{- define "hatchery.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "hatchery.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
