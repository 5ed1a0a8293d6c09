{{/* What a schema cannot say: each failure names the value and what to do. */}}
{{- define "ai-assistant.validate" -}}
{{- $v := .Values -}}
{{- $fullname := include "ai-assistant.fullname" . -}}
{{- if gt (len $fullname) 26 -}}
{{- fail (printf "the name %q has %d characters; 26 is the most, as KubeRay adds to the names of jobs and clusters: set fullnameOverride or a shorter release name" $fullname (len $fullname)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "the name %q must begin with a letter and hold only a-z, 0-9 and hyphens: set fullnameOverride" $fullname) -}}
{{- end -}}
{{- range $name, $group := $v.ray.groups -}}
{{- if gt (int $group.minReplicas) (int $group.maxReplicas) -}}
{{- fail (printf "ray.groups.%s: minReplicas %d is more than maxReplicas %d" $name (int $group.minReplicas) (int $group.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $known := list "Router" "Retriever" "Writer" "Scheduler" -}}
{{- range $v.models -}}
{{- if and (has .engine (list "llama_cpp" "vllm")) (ne (toString .enabled) "false") -}}
{{- $known = append $known (printf "LocalLLM-%s" .name) -}}
{{- if and (gt (float64 (default 0 .gpus)) 0.0) (not $v.ray.groups.gpu.enabled) -}}
{{- fail (printf "models: %s reserves GPUs, but ray.groups.gpu.enabled is false: no pod could ever hold it" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $options := $v.serve.deployments -}}
{{- if not (has $name $known) -}}
{{- fail (printf "serve.deployments.%s: there is no such deployment; known with these models: %s" $name (join ", " $known)) -}}
{{- end -}}
{{- with $options.autoscaling_config -}}
{{- if gt (int .min_replicas) (int .max_replicas) -}}
{{- fail (printf "serve.deployments.%s.autoscaling_config: min_replicas %d is more than max_replicas %d" $name (int .min_replicas) (int .max_replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $request := int (dig "llm" "request_timeout_s" 120 $v.settings) -}}
{{- $serveDrain := int (dig "serve" "drain_s" 10 $v.settings) -}}
{{- if not (and (lt $request $serveDrain) (lt $serveDrain (int $v.ray.drainSeconds)) (lt (int $v.ray.drainSeconds) (int $v.ray.terminationGracePeriodSeconds)) (lt (int $v.ray.terminationGracePeriodSeconds) (int $v.ray.clusterDeletionDelaySeconds))) -}}
{{- fail (printf "settings.llm.request_timeout_s (%d) < settings.serve.drain_s (%d) < ray.drainSeconds (%d) < ray.terminationGracePeriodSeconds (%d) < ray.clusterDeletionDelaySeconds (%d) must hold, or requests are cut when pods go" $request $serveDrain (int $v.ray.drainSeconds) (int $v.ray.terminationGracePeriodSeconds) (int $v.ray.clusterDeletionDelaySeconds)) -}}
{{- end -}}
{{- if gt (mul 5 (int $v.ray.livenessFailureThreshold)) 180 -}}
{{- fail (printf "ray.livenessFailureThreshold %d means that a hung pod runs on for %d s; 36 (180 s) is the most that keeps the recovery time below 5 minutes" (int $v.ray.livenessFailureThreshold) (mul 5 (int $v.ray.livenessFailureThreshold))) -}}
{{- end -}}
{{- if and (eq $v.ray.upgrade.type "NewClusterWithIncrementalUpgrade") (not $v.ray.upgrade.incremental.gatewayClassName) -}}
{{- fail "ray.upgrade.incremental.gatewayClassName is required with upgrade type NewClusterWithIncrementalUpgrade" -}}
{{- end -}}
{{- if gt (int $v.ray.upgrade.incremental.stepSizePercent) (int $v.ray.upgrade.incremental.maxSurgePercent) -}}
{{- fail "ray.upgrade.incremental.stepSizePercent must not be more than maxSurgePercent" -}}
{{- end -}}
{{- if and (eq $v.postgres.mode "external") (not $v.postgres.external.host) -}}
{{- fail "postgres.external.host is required with postgres.mode external" -}}
{{- end -}}
{{- if and $v.postgres.cloudnativepg.objectStore.enabled (not $v.postgres.cloudnativepg.objectStore.destinationPath) -}}
{{- fail "postgres.cloudnativepg.objectStore.destinationPath is required when the object store is enabled, e.g. s3://bucket/path" -}}
{{- end -}}
{{- if and (not $v.qdrant.enabled) (not $v.qdrant.externalUrl) -}}
{{- fail "qdrant.externalUrl is required when qdrant.enabled is false" -}}
{{- end -}}
{{- if gt (int $v.qdrant.replicationFactor) (int $v.qdrant.replicas) -}}
{{- fail (printf "qdrant.replicationFactor %d needs as many qdrant.replicas, there are %d" (int $v.qdrant.replicationFactor) (int $v.qdrant.replicas)) -}}
{{- end -}}
{{- if gt (int $v.qdrant.writeConsistencyFactor) (int $v.qdrant.replicationFactor) -}}
{{- fail (printf "qdrant.writeConsistencyFactor %d is more than qdrant.replicationFactor %d: no write could succeed" (int $v.qdrant.writeConsistencyFactor) (int $v.qdrant.replicationFactor)) -}}
{{- end -}}
{{- if and $v.mlflow.autoscaling.enabled (gt (int $v.mlflow.autoscaling.minReplicas) (int $v.mlflow.autoscaling.maxReplicas)) -}}
{{- fail (printf "mlflow.autoscaling: minReplicas %d is more than maxReplicas %d" (int $v.mlflow.autoscaling.minReplicas) (int $v.mlflow.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.host is required when the ingress is enabled" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.name) -}}
{{- fail "gateway.name is required when the route is enabled: the name of an existing Gateway" -}}
{{- end -}}
{{- if and $v.secrets.existingSecret $v.externalSecrets.enabled -}}
{{- fail "secrets.existingSecret and externalSecrets.enabled exclude each other: choose who makes the Secret" -}}
{{- end -}}
{{- if and $v.externalSecrets.enabled (not $v.externalSecrets.storeName) -}}
{{- fail "externalSecrets.storeName is required: the store that holds the secrets" -}}
{{- end -}}
{{- end -}}

{{/* The keys that the Secret must hold with these values, as JSON. */}}
{{- define "ai-assistant.secretKeys" -}}
{{- $keys := list "auth_token" "qdrant-api-key" -}}
{{- if ne .Values.postgres.mode "cloudnativepg" -}}{{- $keys = append $keys "postgres-password" -}}{{- end -}}
{{- if .Values.ray.gcsFaultTolerance -}}{{- $keys = append $keys "redis-password" -}}{{- end -}}
{{- if and .Values.mlflow.enabled (hasPrefix "s3://" .Values.mlflow.artifacts.destination) -}}{{- $keys = concat $keys (list "mlflow-s3-access-key" "mlflow-s3-secret-key") -}}{{- end -}}
{{- if and (eq .Values.postgres.mode "cloudnativepg") .Values.postgres.cloudnativepg.objectStore.enabled -}}{{- $keys = concat $keys (list "backup-s3-access-key" "backup-s3-secret-key") -}}{{- end -}}
{{- concat $keys (include "ai-assistant.modelKeys" . | fromJsonArray) | sortAlpha | toJson -}}
{{- end -}}
