{{/* (dict "user" 1000): who the processes of a pod are. */}}
{{- define "ai-assistant.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Ray writes beside its temp dir too (caches of libraries), so only other containers have a read-only root. */}}
{{- define "ai-assistant.raySecurity" -}}
allowPrivilegeEscalation: false
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ai-assistant.containerSecurity" -}}
{{ include "ai-assistant.raySecurity" . }}
readOnlyRootFilesystem: true
{{- end -}}

{{/* What every process of ours is told. */}}
{{- define "ai-assistant.env" -}}
{{- $secret := include "ai-assistant.secretName" . -}}
- {name: AI_ASSISTANT_CONFIG, value: /etc/ai-assistant/config.yaml}
- {name: AI_ASSISTANT_HOME, value: /data}
- name: POSTGRES_PASSWORD
  valueFrom:
    {{- include "ai-assistant.postgresPassword" . | nindent 4 }}
- name: DATABASE_URL
  value: postgresql://{{ .Values.postgres.user }}:$(POSTGRES_PASSWORD)@{{ include "ai-assistant.postgresHost" . }}:{{ include "ai-assistant.postgresPort" . }}/{{ .Values.postgres.database }}?sslmode={{ include "ai-assistant.postgresSslmode" . }}
- {name: QDRANT_URL, value: {{ include "ai-assistant.qdrantUrl" . | quote }}}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: qdrant-api-key}
{{- if .Values.mlflow.enabled }}
- {name: MLFLOW_TRACKING_URI, value: "http://{{ include "ai-assistant.fullname" . }}-mlflow:5000"}
{{- end }}
{{- range include "ai-assistant.modelKeys" . | fromJsonArray }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $secret }}, key: {{ . }}}
{{- end }}
- {name: DO_NOT_TRACK, value: "1"}
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
- {name: TOKENIZERS_PARALLELISM, value: "false"}
{{- end -}}

{{/* Names of the variables with the keys of remote models, each once, as JSON. */}}
{{- define "ai-assistant.modelKeys" -}}
{{- $names := list -}}
{{- range .Values.models -}}
{{- if and .api_key_env (ne (toString .enabled) "false") -}}{{- $names = append $names .api_key_env -}}{{- end -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Memory of a folder that only lives as long as the pod. */}}
{{- define "ai-assistant.tmpVolume" -}}
- {name: tmp, emptyDir: {sizeLimit: 2Gi}}
{{- end -}}
