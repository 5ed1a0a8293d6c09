#!/usr/bin/env bash
# Runs once, in Postgres' own start on an empty data folder: the database of the tracking server.
set -euo pipefail

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
  --set name="$MLFLOW_DATABASE" <<'SQL'
select format('create database %I', :'name')
where not exists (select from pg_database where datname = :'name') \gexec
SQL
