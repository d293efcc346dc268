{{- define "marquee.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "marquee.selector" -}}
app.kubernetes.io/name: marquee
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "marquee.labels" -}}
{{ include "marquee.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "marquee.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "marquee.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- /* The image of (dict "image" .Values.image "chart" .Chart) */ -}}
{{- define "marquee.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "marquee.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What every pod has beside its containers */ -}}
{{- define "marquee.pod" -}}
serviceAccountName: {{ include "marquee.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "marquee.env" -}}
- {name: PGHOST, value: {{ .Values.warehouse.host | quote }}}
- {name: PGPORT, value: {{ .Values.warehouse.port | quote }}}
- {name: PGDATABASE, value: {{ .Values.warehouse.database | quote }}}
- {name: PGUSER, value: {{ .Values.warehouse.user | quote }}}
- {name: PGSSLMODE, value: {{ .Values.warehouse.sslmode | quote }}}
- {name: PGPASSWORD_FILE, value: {{ .Values.passwordFile | default "/run/secrets/marquee/warehouse/password" | quote }}}
{{- with .Values.warehouse.target }}
- {name: DBT_TARGET, value: {{ . | quote }}}
{{- end }}
{{- range .Values.secretFiles }}
- {name: {{ printf "%s_FILE" .variable }}, value: {{ printf "/run/secrets/marquee/%s/%s" .variable .key | quote }}}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "marquee.secretMounts" -}}
{{- if not .Values.passwordFile }}
- {name: warehouse, mountPath: /run/secrets/marquee/warehouse, readOnly: true}
{{- end }}
{{- range $index, $file := .Values.secretFiles }}
- {name: {{ printf "secret-%d" $index }}, mountPath: {{ printf "/run/secrets/marquee/%s" $file.variable }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "marquee.secretVolumes" -}}
{{- if not .Values.passwordFile }}
- name: warehouse
  secret:
    secretName: {{ .Values.warehouse.passwordSecret.name }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.warehouse.passwordSecret.key | quote }}, path: password}
{{- end }}
{{- range $index, $file := .Values.secretFiles }}
- name: {{ printf "secret-%d" $index }}
  secret:
    secretName: {{ $file.secret }}
    defaultMode: 0440
    items:
      - {key: {{ $file.key | quote }}, path: {{ $file.key | quote }}}
{{- end }}
{{- end -}}
