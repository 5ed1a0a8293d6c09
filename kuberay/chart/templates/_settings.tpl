{{/* The settings tree of the application: what the values say, and what follows from this deployment. */}}
{{- define "ai-assistant.settings" -}}
{{- $own := dict
      "serve" (dict "host" "0.0.0.0" "port" (int .Values.serve.httpOptions.port))
      "llm" (dict "models_file" "/etc/ai-assistant/models.yaml")
      "learning" (dict "launch" (ternary "external" "cluster" (eq .Values.learning.run "schedule"))) -}}
{{- mergeOverwrite (deepCopy .Values.settings) $own | toYaml -}}
{{- end -}}

{{/* The Serve config: the application blocks of serve_app/config.yaml (files/serve.yaml is a link to it), with the
address, the options per deployment and the arguments of this release. */}}
{{- define "ai-assistant.serveConfig" -}}
{{- $config := .Files.Get "files/serve.yaml" | fromYaml -}}
{{- if not $config.applications -}}
{{- fail "files/serve.yaml holds no applications: it must be a link to serve_app/config.yaml (a checkout without symbolic links cannot build this chart)" -}}
{{- end -}}
{{- $deployments := list -}}
{{- range $name, $options := .Values.serve.deployments -}}
{{- $deployments = append $deployments (merge (dict "name" $name) $options) -}}
{{- end -}}
{{- $application := index $config.applications 0 -}}
{{- $args := dict "settings" (include "ai-assistant.settings" . | fromYaml) "models" .Values.models -}}
{{- $_ := set $application "args" (merge $args $application.args) -}}
{{- $_ := set $application "deployments" $deployments -}}
{{- $_ := set $config "proxy_location" .Values.serve.proxyLocation -}}
{{- $_ := set $config "http_options" (mergeOverwrite $config.http_options .Values.serve.httpOptions) -}}
{{- $config | toYaml -}}
{{- end -}}
