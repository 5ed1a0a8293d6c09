{{- define "ai-assistant.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name -}}{{- else -}}{{- printf "%s-%s" .Release.Name $name -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object: (dict "root" $ "component" "qdrant"). */}}
{{- define "ai-assistant.labels" -}}
{{ include "ai-assistant.selector" . }}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Labels of a pod template. No version: on a Ray pod it would cost a new cluster at each upgrade of the chart.
KubeRay puts its own value on app.kubernetes.io/name, so nothing selects by that. */}}
{{- define "ai-assistant.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ai-assistant.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "ai-assistant.cudaImage" -}}
{{ include "ai-assistant.image" . }}{{ .Values.image.cudaSuffix }}
{{- end -}}

{{- define "ai-assistant.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "ai-assistant.secretName" -}}
{{- default (printf "%s-secrets" (include "ai-assistant.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "ai-assistant.homeClaim" -}}
{{- default (printf "%s-home" (include "ai-assistant.fullname" .)) .Values.storage.home.existingClaim -}}
{{- end -}}

{{- define "ai-assistant.backupsClaim" -}}
{{- default (printf "%s-backups" (include "ai-assistant.fullname" .)) .Values.storage.backups.existingClaim -}}
{{- end -}}

{{- define "ai-assistant.postgresHost" -}}
{{- if eq .Values.postgres.mode "external" -}}{{ .Values.postgres.external.host }}
{{- else if eq .Values.postgres.mode "cloudnativepg" -}}{{ include "ai-assistant.fullname" . }}-postgres-rw
{{- else -}}{{ include "ai-assistant.fullname" . }}-postgres
{{- end -}}
{{- end -}}

{{- define "ai-assistant.postgresPort" -}}
{{- if eq .Values.postgres.mode "external" -}}{{ .Values.postgres.external.port }}{{- else -}}5432{{- end -}}
{{- end -}}

{{- define "ai-assistant.postgresSslmode" -}}
{{- if eq .Values.postgres.mode "external" -}}{{ .Values.postgres.external.sslmode }}
{{- else if eq .Values.postgres.mode "cloudnativepg" -}}require
{{- else -}}disable
{{- end -}}
{{- end -}}

{{/* The operator makes the password of its cluster itself. */}}
{{- define "ai-assistant.postgresPassword" -}}
{{- if eq .Values.postgres.mode "cloudnativepg" -}}
secretKeyRef: {name: {{ include "ai-assistant.fullname" . }}-postgres-app, key: password}
{{- else -}}
secretKeyRef: {name: {{ include "ai-assistant.secretName" . }}, key: postgres-password}
{{- end -}}
{{- end -}}

{{- define "ai-assistant.qdrantUrl" -}}
{{- if .Values.qdrant.enabled -}}http://{{ include "ai-assistant.fullname" . }}-qdrant:6333{{- else -}}{{ .Values.qdrant.externalUrl }}{{- end -}}
{{- end -}}

{{- define "ai-assistant.redisAddress" -}}
{{- default (printf "%s-redis:6379" (include "ai-assistant.fullname" .)) .Values.redis.externalAddress -}}
{{- end -}}

{{/* "true" when this release runs Redis. */}}
{{- define "ai-assistant.ownRedis" -}}
{{- if and .Values.ray.gcsFaultTolerance (not .Values.redis.externalAddress) -}}true{{- end -}}
{{- end -}}
