#!/bin/sh
# Restart all replicas, one after another, each only while all others are ready.
set -eu
ports="7861 7862"
ready() {
    curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors "http://127.0.0.1:$1/readyz"
}
for port in $ports; do ready "$port"; done
for port in $ports; do
    systemctl restart "knowhue@$port"
    ready "$port"
done
