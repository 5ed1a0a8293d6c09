#!/usr/bin/env bash
# One logical backup of every database: <BACKUP_FOLDER>/postgres/<UTC time>/<database>.dump and SHA256SUMS.
# A folder appears under its name only when it is whole, so a backup that was killed is never taken for one.
# Connection by libpq's variables (PGHOST, PGUSER, PGPASSWORD ...); BACKUP_DATABASES is a list, BACKUP_KEEP a number.
set -euo pipefail

folder="${BACKUP_FOLDER:?where backups are kept}/postgres"
databases="${BACKUP_DATABASES:?names of databases, separated by spaces}"
keep="${BACKUP_KEEP:?how many backups to keep}"

mkdir -p "$folder"
# Left by a run that was killed; the CronJob never starts two at once.
rm -rf "$folder"/.partial-*
name="$(date -u +%Y%m%dT%H%M%SZ)"
partial="$folder/.partial-$name"
mkdir "$partial"
trap 'rm -rf "$partial"' EXIT

for database in $databases; do
  pg_dump --format=custom --no-owner --dbname="$database" --file="$partial/$database.dump"
  # Reads the table of contents back: a dump that was cut short has none.
  pg_restore --list "$partial/$database.dump" >/dev/null
done
(cd "$partial" && sha256sum -- *.dump >SHA256SUMS)
sync
mv "$partial" "$folder/$name"
echo "backup $folder/$name: $(du -sh "$folder/$name" | cut -f1)"

find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' | sort -r | tail -n "+$((keep + 1))" |
  while read -r old; do rm -rf "$old"; done
