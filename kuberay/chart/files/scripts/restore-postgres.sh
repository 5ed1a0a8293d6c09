#!/usr/bin/env bash
# Puts a logical backup back: RESTORE_NAME is the name of its folder, or `latest`. Each database comes back in one
# transaction: whole, or as it was. Stop the application first, or it works on a database that changes under it.
set -euo pipefail

folder="${BACKUP_FOLDER:?where backups are kept}/postgres"
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
for dump in *.dump; do
  pg_restore --clean --if-exists --no-owner --exit-on-error --single-transaction \
    --dbname="${dump%.dump}" "$dump"
  echo "restored ${dump%.dump} from $folder/$name"
done
