#!/bin/sh
# Build the image with docker, podman or buildah, whichever is there.
#
#   BASE=python:3.13-slim NAME=lossd deploy/build_image.sh [OPTIONS OF THE BUILDER]
#
# buildah needs neither an engine nor a daemon: it builds in a chroot, and keeps images in plain
# folders, which works in a container as well.
set -eu
cd "$(dirname "$0")/.."
set -- --build-arg "BASE=${BASE:-python:3.13-slim}" --tag "${NAME:-lossd}" "$@" .
# An engine that cannot be reached is no engine.
for engine in docker podman; do
    if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
        exec "$engine" build "$@"
    fi
done
if command -v buildah >/dev/null; then
    BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs exec buildah build --layers "$@"
fi
echo "make image needs docker, podman or buildah (on Debian: apt install buildah)" >&2
exit 1
