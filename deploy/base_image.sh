#!/bin/sh
# Make a stand-in for the Dockerfile's base image from Debian's own packages, for machines that
# reach Debian's archive but no image registry. Needs root, debootstrap and buildah.
#
#   deploy/base_image.sh [NAME]     (localhost/lossd-base by default; then make image BASE=NAME)
set -eu
name=${1:-localhost/lossd-base}
suite=trixie # the Debian that python:3.13-slim is made from
root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" >&2
# python:X-slim calls it by these names.
ln -s /usr/bin/python3 "$root/usr/local/bin/python"
ln -s /usr/bin/python3 "$root/usr/local/bin/python3"

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
container=$(buildah from scratch)
buildah add --quiet "$container" "$root" /
buildah commit --quiet --rm "$container" "$name"
