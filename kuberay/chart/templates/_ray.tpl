{{/* Environment of every Ray container. The flags are those of the local stack, which a test compares. */}}
{{- define "ai-assistant.rayEnv" -}}
{{ include "ai-assistant.env" . }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_worker_niceness, value: "0"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_ENABLE_DIRECT_INGRESS, value: "0"}
- {name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S, value: "2"}
- {name: RAY_COLOR_PREFIX, value: "0"}
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ .Values.ray.drainSeconds | quote }}}
{{- with .Values.ray.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "path" "/api/healthz" "port" 52365) */}}
{{- define "ai-assistant.rayLiveness" -}}
httpGet: {path: {{ .path }}, port: {{ .port }}}
initialDelaySeconds: 30
periodSeconds: 5
timeoutSeconds: 5
failureThreshold: {{ .root.Values.ray.livenessFailureThreshold }}
{{- end -}}

{{/* The volumes of a Ray pod. Changes of the settings reach running pods, as the name of the ConfigMap stays. */}}
{{- define "ai-assistant.rayVolumes" -}}
- {name: ray-tmp, emptyDir: {sizeLimit: 20Gi}}
- {name: home, persistentVolumeClaim: {claimName: {{ include "ai-assistant.homeClaim" .root }}}}
- {name: config, configMap: {name: {{ include "ai-assistant.fullname" .root }}-config}}
{{- if .knowledge }}
- {name: knowledge, persistentVolumeClaim: {claimName: {{ .knowledge }}, readOnly: true}}
{{- end }}
{{- end -}}

{{- define "ai-assistant.rayMounts" -}}
- {name: ray-tmp, mountPath: /tmp/ray}
- {name: home, mountPath: /data}
- {name: config, mountPath: /etc/ai-assistant, readOnly: true}
{{- if .knowledge }}
- {name: knowledge, mountPath: /knowledge, readOnly: true}
{{- end }}
{{- end -}}

{{- define "ai-assistant.rayPlacement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Starts Ray only when the application could start: the operator deploys once, right after Ray is up. */}}
{{- define "ai-assistant.waitForStores" -}}
- name: wait-for-stores
  image: {{ include "ai-assistant.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [python, -m, cluster.ready]
  env:
    {{- include "ai-assistant.env" .root | nindent 4 }}
  securityContext:
    {{- include "ai-assistant.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 200m, memory: 256Mi}
    limits: {cpu: "1", memory: 512Mi}
  volumeMounts:
    - {name: home, mountPath: /data, readOnly: true}
    - {name: config, mountPath: /etc/ai-assistant, readOnly: true}
{{- end -}}

{{/* (dict "root" $ "spec" .Values.ray.head "component" "ray-head" "image" ... "cpus" "0" "knowledge" "") */}}
{{- define "ai-assistant.rayHead" -}}
rayStartParams:
  dashboard-host: 0.0.0.0
  {{- with .cpus }}
  num-cpus: {{ . | quote }}
  {{- end }}
  object-store-memory: {{ .spec.objectStoreBytes | int64 | quote }}
template:
  metadata:
    labels:
      {{- include "ai-assistant.selector" (dict "root" .root "component" .component) | nindent 6 }}
    {{- with include "ai-assistant.istioRay" .root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
  spec:
    serviceAccountName: {{ include "ai-assistant.fullname" .root }}-{{ .account }}
    terminationGracePeriodSeconds: {{ .root.Values.ray.terminationGracePeriodSeconds }}
    securityContext:
      {{- include "ai-assistant.podSecurity" (dict "user" 1000) | nindent 6 }}
    {{- with include "ai-assistant.pullSecrets" .root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- with include "ai-assistant.rayPlacement" .spec }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    initContainers:
      {{- include "ai-assistant.waitForStores" . | nindent 6 }}
    containers:
      - name: ray-head
        image: {{ .image }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        ports:
          - {name: gcs-server, containerPort: 6379}
          - {name: dashboard, containerPort: 8265}
          - {name: client, containerPort: 10001}
          - {name: serve, containerPort: {{ .root.Values.serve.httpOptions.port }}}
          - {name: metrics, containerPort: 8080}
          - {name: as-metrics, containerPort: 44217}
          - {name: dash-metrics, containerPort: 44227}
        env:
          {{- include "ai-assistant.rayEnv" .root | nindent 10 }}
        livenessProbe:
          {{- include "ai-assistant.rayLiveness" (dict "root" .root "path" "/api/gcs_healthz" "port" 8265) | nindent 10 }}
        securityContext:
          {{- include "ai-assistant.raySecurity" . | nindent 10 }}
        resources:
          {{- toYaml .spec.resources | nindent 10 }}
        volumeMounts:
          {{- include "ai-assistant.rayMounts" . | nindent 10 }}
    volumes:
      {{- include "ai-assistant.rayVolumes" . | nindent 6 }}
{{- end -}}

{{/* (dict "root" $ "name" "router" "spec" ... "component" "ray-worker" "image" ... "resources" {..} "knowledge" "") */}}
{{- define "ai-assistant.rayGroup" -}}
groupName: {{ .name }}
replicas: {{ .min }}
minReplicas: {{ .min }}
maxReplicas: {{ .max }}
{{- with .resources }}
resources:
  {{- range $name, $quantity := . }}
  {{ $name }}: {{ $quantity | quote }}
  {{- end }}
{{- end }}
rayStartParams:
  object-store-memory: {{ .spec.objectStoreBytes | int64 | quote }}
template:
  metadata:
    labels:
      {{- include "ai-assistant.selector" (dict "root" .root "component" .component) | nindent 6 }}
    {{- with include "ai-assistant.istioRay" .root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
  spec:
    serviceAccountName: {{ include "ai-assistant.fullname" .root }}-{{ .account }}
    automountServiceAccountToken: false
    terminationGracePeriodSeconds: {{ .root.Values.ray.terminationGracePeriodSeconds }}
    securityContext:
      {{- include "ai-assistant.podSecurity" (dict "user" 1000) | nindent 6 }}
    {{- with include "ai-assistant.pullSecrets" .root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- with include "ai-assistant.rayPlacement" .spec }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    topologySpreadConstraints:
      {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
      - maxSkew: 1
        topologyKey: {{ $key }}
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels:
            ray.io/group: {{ $.name }}
            app.kubernetes.io/instance: {{ $.root.Release.Name }}
            app.kubernetes.io/component: {{ $.component }}
      {{- end }}
    containers:
      - name: ray-worker
        image: {{ .image }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        ports:
          - {name: serve, containerPort: {{ .root.Values.serve.httpOptions.port }}}
          - {name: metrics, containerPort: 8080}
        env:
          {{- include "ai-assistant.rayEnv" .root | nindent 10 }}
        livenessProbe:
          {{- include "ai-assistant.rayLiveness" (dict "root" .root "path" "/api/healthz" "port" 52365) | nindent 10 }}
        securityContext:
          {{- include "ai-assistant.raySecurity" . | nindent 10 }}
        resources:
          {{- toYaml .spec.resources | nindent 10 }}
        volumeMounts:
          {{- include "ai-assistant.rayMounts" . | nindent 10 }}
    volumes:
      {{- include "ai-assistant.rayVolumes" . | nindent 6 }}
{{- end -}}

{{/* Annotations of Ray pods for a mesh: Ray's own protocols pass by the sidecar, only HTTP goes through it. */}}
{{- define "ai-assistant.istioRay" -}}
{{- if .Values.istio.enabled -}}
annotations:
  proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
  traffic.sidecar.istio.io/includeInboundPorts: {{ .Values.serve.httpOptions.port | quote }}
  traffic.sidecar.istio.io/excludeOutboundPorts: 5432,6333,6379
  sidecar.istio.io/inject: "true"
{{- end -}}
{{- end -}}

{{/* A Ray cluster of its own for one job: (dict "root" $ "name" "ingestion" "spec" .Values.ingestion
"image" ... "knowledge" "claim"). Its head works too, so it advertises its CPUs. */}}
{{- define "ai-assistant.rayJobSpec" -}}
entrypoint: {{ .entrypoint }}
submissionMode: K8sJobMode
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: 600
activeDeadlineSeconds: {{ .spec.activeDeadlineSeconds }}
# A cluster that died is tried once more; the work itself goes on where it was.
backoffLimit: 1
submitterPodTemplate:
  metadata:
    labels:
      {{- include "ai-assistant.selector" (dict "root" .root "component" "submitter") | nindent 6 }}
  spec:
    serviceAccountName: {{ include "ai-assistant.fullname" .root }}-job
    automountServiceAccountToken: false
    restartPolicy: Never
    securityContext:
      {{- include "ai-assistant.podSecurity" (dict "user" 1000) | nindent 6 }}
    {{- with include "ai-assistant.pullSecrets" .root }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    containers:
      - name: submitter
        image: {{ include "ai-assistant.image" .root }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        securityContext:
          {{- include "ai-assistant.raySecurity" . | nindent 10 }}
        resources:
          requests: {cpu: 250m, memory: 256Mi}
          limits: {cpu: "1", memory: 1Gi}
rayClusterSpec:
  rayVersion: {{ .root.Values.ray.version | quote }}
  authOptions:
    mode: token
    secretName: {{ include "ai-assistant.secretName" .root }}
  headGroupSpec:
    {{- include "ai-assistant.rayHead" (dict "root" .root "spec" .spec.head "component" (printf "ray-%s" .name) "account" "job" "image" .image "cpus" "" "knowledge" .knowledge) | nindent 4 }}
  {{- if gt (int .spec.workers.replicas) 0 }}
  workerGroupSpecs:
    - {{ include "ai-assistant.rayGroup" (dict "root" .root "name" .name "spec" .spec.workers "component" (printf "ray-%s" .name) "account" "job" "image" .image "min" .spec.workers.replicas "max" .spec.workers.replicas "resources" (dict) "knowledge" .knowledge) | nindent 6 | trim }}
  {{- end }}
{{- end -}}
