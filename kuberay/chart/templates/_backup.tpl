{{- define "ai-assistant.backupPostgresEnv" -}}
- {name: PGHOST, value: {{ include "ai-assistant.postgresHost" . | quote }}}
- {name: PGPORT, value: {{ include "ai-assistant.postgresPort" . | quote }}}
- {name: PGUSER, value: {{ .Values.postgres.user }}}
- {name: PGSSLMODE, value: {{ include "ai-assistant.postgresSslmode" . }}}
- name: PGPASSWORD
  valueFrom:
    {{- include "ai-assistant.postgresPassword" . | nindent 4 }}
- {name: BACKUP_DATABASES, value: "{{ .Values.postgres.database }}{{ if .Values.mlflow.enabled }} {{ .Values.mlflow.database }}{{ end }}"}
{{- end -}}

{{- define "ai-assistant.backupQdrantEnv" -}}
{{- $nodes := list -}}
{{- if .Values.qdrant.enabled -}}
{{- $name := printf "%s-qdrant" (include "ai-assistant.fullname" .) -}}
{{- range $number := until (int .Values.qdrant.replicas) -}}
{{- $nodes = append $nodes (printf "http://%s-%d.%s-nodes:6333" $name $number $name) -}}
{{- end -}}
{{- else -}}
{{- $nodes = list .Values.qdrant.externalUrl -}}
{{- end -}}
- {name: QDRANT_NODES, value: {{ join " " $nodes | quote }}}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "ai-assistant.secretName" . }}, key: qdrant-api-key}
{{- end -}}
