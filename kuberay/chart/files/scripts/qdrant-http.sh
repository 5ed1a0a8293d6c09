# Calls to Qdrant for the scripts beside this one. The key goes through a file, not through a command line.

qdrant_login() {
  WGETRC="$(mktemp)"
  export WGETRC
  printf 'header = api-key: %s\n' "${QDRANT_API_KEY:?the key of Qdrant}" >"$WGETRC"
}

# qdrant METHOD URL [BODY]: the answer on standard output.
qdrant() {
  if [ "$1" = GET ]; then
    wget --quiet --tries=3 --timeout=600 --output-document=- "$2"
  else
    wget --quiet --tries=1 --timeout=3600 --output-document=- --method="$1" \
      --header='content-type: application/json' --body-data="${3:-}" "$2"
  fi
}

# names KEY: the values of that key in the JSON on standard input. Qdrant writes these names without escapes.
names() {
  grep -o "\"$1\": *\"[^\"]*\"" | sed -e 's/^[^:]*: *"//' -e 's/"$//'
}
