#!/usr/bin/env bash
# One snapshot of every collection on every node: <BACKUP_FOLDER>/qdrant/<UTC time>/node-<n>/<collection>.snapshot,
# with aliases.json and SHA256SUMS. In a cluster each node has only its own shards, so each is asked.
# QDRANT_NODES is a list of addresses; QDRANT_API_KEY, BACKUP_KEEP.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "$0")/qdrant-http.sh"

folder="${BACKUP_FOLDER:?where backups are kept}/qdrant"
nodes="${QDRANT_NODES:?addresses of the nodes, separated by spaces}"
keep="${BACKUP_KEEP:?how many backups to keep}"

mkdir -p "$folder"
rm -rf "$folder"/.partial-*
name="$(date -u +%Y%m%dT%H%M%SZ)"
partial="$folder/.partial-$name"
mkdir "$partial"
qdrant_login
trap 'rm -rf "$partial" "$WGETRC"' EXIT

number=0
for node in $nodes; do
  mkdir "$partial/node-$number"
  # An answer first, names after: a node without collections is no failure, one that is away is.
  answer="$(qdrant GET "$node/collections")"
  collections="$(printf '%s' "$answer" | names name || true)"
  for collection in $collections; do
    answer="$(qdrant POST "$node/collections/$collection/snapshots?wait=true")"
    snapshot="$(printf '%s' "$answer" | names name | head -n 1)"
    file="$partial/node-$number/$collection.snapshot"
    wget --quiet --tries=3 --output-document="$file" "$node/collections/$collection/snapshots/$snapshot"
    qdrant DELETE "$node/collections/$collection/snapshots/$snapshot" >/dev/null
    if [ ! -s "$file" ]; then
      echo "backup: $node sent an empty snapshot of $collection" >&2
      exit 1
    fi
  done
  number=$((number + 1))
done
qdrant GET "${nodes%% *}/aliases" >"$partial/aliases.json"
(cd "$partial" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
sync
mv "$partial" "$folder/$name"
echo "backup $folder/$name: $(du -sh "$folder/$name" | cut -f1)"

find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' | sort -r | tail -n "+$((keep + 1))" |
  while read -r old; do rm -rf "$old"; done
