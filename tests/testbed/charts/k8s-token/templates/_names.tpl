{{- /* The name of all four objects. Helm refuses release names longer than 53, so the name is never truncated. */ -}}
{{- define "object" -}}
{{ trimSuffix "-" (trunc 63 .Release.Name) }}-token
{{- end -}}

{{- define "labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- range $key, $value := .Values.md_metadata.default_tags }}
{{ $key }}: {{ toJson $value }}
{{- end }}
app.kubernetes.io/deployed-with: massdriver.cloud
{{- end -}}
