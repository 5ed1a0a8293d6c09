#!/bin/sh
# Starts a node of the Qdrant cluster: the first one makes the cluster, the others join it.
set -eu

cd /qdrant
own="http://$POD_NAME.$QDRANT_NODES_DOMAIN:6335"
if [ "$POD_NAME" = "$QDRANT_FIRST_NODE" ]; then
  exec ./entrypoint.sh --uri "$own"
fi
exec ./entrypoint.sh --uri "$own" --bootstrap "http://$QDRANT_FIRST_NODE.$QDRANT_NODES_DOMAIN:6335"
