#!/bin/sh
# A neighbour of `murank serve` on the same box, with curl: stores a crop, looks for it, erases it.
#
#   murank serve benchmarks/miniature/engine --gallery gallery.db --uds murank.sock
#   sh examples/service_curl.sh people/query/0001_c1s1_000000_00.jpg murank.sock
set -eu
[ $# -eq 2 ] || { echo "usage: service_curl.sh CROP SOCKET" >&2; exit 2; }
crop=$1 socket=$2
[ -f "$crop" ] || { echo "there is no crop $crop" >&2; exit 2; }

ask() { # PATH BODY; a body of pictures is longer than an argument may be
    printf '%s' "$2" | curl --silent --show-error --fail-with-body --unix-socket "$socket" \
        --header 'Content-Type: application/json' --data-binary @- "http://localhost$1"
    echo
}

image=$(base64 <"$crop" | tr -d '\n')
curl --silent --fail --unix-socket "$socket" http://localhost/readyz || {
    echo "no service is ready at $socket: start murank serve first" >&2; exit 2
}
echo
ask /v1/gallery/rows "{\"crops\": [\"$image\"], \"camera\": 1, \"time\": $(date +%s), \"id\": \"curl-1\"}"
ask /v1/gallery/search "{\"crop\": \"$image\", \"top_k\": 3}"
ask /v1/rerank "{\"query\": \"$image\", \"documents\": [{\"id\": \"curl-1\"}]}"
ask /v1/gallery/erase '{"ids": ["curl-1"]}'
