#!/usr/bin/env bash
# Puts snapshots back, node by node, and then the aliases: RESTORE_NAME is the name of a backup, or `latest`.
# The number of nodes must be the one that the backup was made of.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$0")/qdrant-http.sh"

folder="${BACKUP_FOLDER:?where backups are kept}/qdrant"
nodes="${QDRANT_NODES:?addresses of the nodes, separated by spaces}"
name="${RESTORE_NAME:?a backup, or latest}"

if [ "$name" = latest ]; then
  name="$(find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' -exec basename {} \; | sort | tail -n 1)"
fi
if [ -z "$name" ] || [ ! -d "$folder/$name" ]; then
  echo "restore: there is no backup '$name' in $folder; it has: $(ls "$folder" 2>/dev/null | tr '\n' ' ')" >&2
  exit 1
fi
cd "$folder/$name"
if ! sha256sum --check --quiet SHA256SUMS; then
  echo "restore: $folder/$name is damaged, nothing was changed; take another one" >&2
  exit 1
fi
# shellcheck disable=SC2086
set -- $nodes
stored="$(find . -mindepth 1 -maxdepth 1 -type d -name 'node-*' | wc -l)"
if [ "$stored" -ne $# ]; then
  echo "restore: the backup is of $stored nodes, there are $#: set qdrant.replicas to $stored first" >&2
  exit 1
fi

qdrant_login
body="$(mktemp)"
trap 'rm -f "$body" "$WGETRC"' EXIT
boundary="snapshot-$$-$RANDOM$RANDOM"
number=0
for node in "$@"; do
  for snapshot in "node-$number"/*.snapshot; do
    [ -e "$snapshot" ] || continue
    collection="$(basename "$snapshot" .snapshot)"
    {
      printf -- '--%s\r\n' "$boundary"
      printf 'content-disposition: form-data; name="snapshot"; filename="%s.snapshot"\r\n' "$collection"
      printf 'content-type: application/octet-stream\r\n\r\n'
      cat "$snapshot"
      printf '\r\n--%s--\r\n' "$boundary"
    } >"$body"
    wget --quiet --tries=1 --timeout=3600 --output-document=- --method=POST --body-file="$body" \
      --header="content-type: multipart/form-data; boundary=$boundary" \
      "$node/collections/$collection/snapshots/upload?priority=snapshot&wait=true" >/dev/null
    echo "restored $collection on $node"
  done
  number=$((number + 1))
done

pairs="$(grep -o '{[^{}]*"alias_name"[^{}]*}' aliases.json || true)"
while read -r pair; do
  [ -n "$pair" ] || continue
  alias="$(printf '%s' "$pair" | names alias_name)"
  collection="$(printf '%s' "$pair" | names collection_name)"
  qdrant POST "$1/collections/aliases" \
    "{\"actions\": [{\"create_alias\": {\"alias_name\": \"$alias\", \"collection_name\": \"$collection\"}}]}" >/dev/null
  echo "alias $alias -> $collection"
done <<<"$pairs"
