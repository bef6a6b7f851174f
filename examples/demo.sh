#!/bin/sh
# Three requests with curl: JSON, images in float32, a language model's logits in bfloat16.
#     sh examples/demo.sh http://127.0.0.1:8000
# All logits of the second and the third are 0, so that their losses are log(3) and log(32000).
set -eu
url=$1/v1/cross_entropy?outputs=loss
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# ask NAME MEDIA_TYPE: send $body, and show the loss. A file is sent by --data-binary: -d would
# leave out every byte that is a newline.
ask() {
    answer=$(curl --silent --show-error --data-binary "@$body" --write-out '%{http_code}' \
        --header "Content-Type: $2" --header 'Accept: application/json' "$url")
    status=$(printf '%s\n' "$answer" | tail -n 1)
    if [ "$status" != 200 ]; then
        printf '%s\n' "$answer" >&2
        exit 1
    fi
    printf '%-14s %s\n' "$1" "$(printf '%s\n' "$answer" | head -n 1)"
}

# safetensors HEADER BYTES: the length of the header as 8 bytes, the header, and so many zeros.
safetensors() {
    length=$(printf '%s' "$1" | wc -c)
    printf "\\$(printf '%03o' $((length % 256)))\\$(printf '%03o' $((length / 256)))"
    head -c 6 /dev/zero
    printf '%s' "$1"
    head -c "$2" /dev/zero
}

cat >"$body" <<'JSON'
{"logits": [[0,0,0,0,0], [0,0,1,1,0], [1,3,2,3,0], [0,0,0,0,0]], "labels": [1, 4, 3, 2]}
JSON
ask 'four rows' application/json

safetensors '{"labels":{"dtype":"I64","shape":[4,256,256],"data_offsets":[0,2097152]},
"logits":{"dtype":"F32","shape":[4,3,256,256],"data_offsets":[2097152,5242880]}}' 5242880 >"$body"
ask images application/x-safetensors

safetensors '{"labels":{"dtype":"I64","shape":[64],"data_offsets":[0,512]},
"logits":{"dtype":"BF16","shape":[64,32000],"data_offsets":[512,4096512]}}' 4096512 >"$body"
ask 'language model' application/x-safetensors
