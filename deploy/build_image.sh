#!/bin/sh
# Build the image with docker, podman or buildah, whichever is there.
#
#   BASE=python:3.13-slim NAME=lossd SOURCE=URL deploy/build_image.sh [OPTIONS OF THE BUILDER]
#
# SOURCE, where the sources are, is for a label.
#
# buildah needs neither an engine nor a daemon: it builds in a chroot, and keeps images in plain
# folders, which works in a container as well.
set -eu
cd "$(dirname "$0")/.."
# Labels say what the image was made from; a checkout without git has no revision.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || true)
created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
set -- --build-arg "BASE=${BASE:-python:3.13-slim}" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
    --build-arg "SOURCE=${SOURCE:-}" \
    --tag "${NAME:-lossd}" "$@" .
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
