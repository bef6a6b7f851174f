# lossd: docker build -t lossd . && docker run --rm -p 8000:8000 lossd
#
# The root file system may be read-only, the user is not root, and only the cache is written:
#   docker run --rm --read-only --cap-drop ALL -v lossd-cache:/var/cache/lossd -p 8000:8000 lossd
#
# It listens to whoever can reach it, unless it is given tokens, such as with
#   -v "$PWD/tokens:/run/secrets/lossd:ro" -e LOSSD_AUTH_TOKEN_FILE=/run/secrets/lossd
# Running requests get 25 s to end (LOSSD_SHUTDOWN_SECONDS), and Docker's own patience is 10 s:
#   docker run --stop-timeout 30 ...
# deploy/ holds files for Compose, Kubernetes and KServe.
#
# For an NVIDIA GPU, with NVIDIA's Container Toolkit and a driver of CUDA 13; each start compiles its kernels:
#   docker build --target cuda -t lossd:cuda . && docker run --gpus all -p 8000:8000 lossd:cuda
# With the extras of bulk scoring (docs/bulk.md):
#   docker build --target bulk -t lossd:bulk . && docker run -v "$PWD:/shards" lossd:bulk score "/shards/*"

# Any image with Python 3.11 or newer, its venv, and apt.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
RUN python -m venv /opt/tools && python -m venv --without-pip /opt/lossd
COPY requirements/run.txt requirements/build.txt requirements/
RUN /opt/tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements/build.txt && \
    /opt/tools/bin/pip --python /opt/lossd/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r requirements/run.txt
COPY pyproject.toml README.md ./
COPY kernels kernels
COPY service service
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . && \
    /opt/tools/bin/pip --python /opt/lossd/bin/python install --no-cache-dir --no-deps wheels/*.whl
# The libraries' own tests: 33 MB, a tenth of the environment, and nothing imports them.
RUN find /opt/lossd/lib -type d -name tests -prune -exec rm -rf {} +
# Kernels for the levels of x86-64 (or for arm64), so that no container compiles them at its start:
# 25 MB. Those for the machine that builds are thrown away.
RUN NUMBA_CACHE_DIR=/tmp/native /opt/lossd/bin/lossd warm --target all && rm -rf /tmp/native

# NVIDIA's libraries, as wheels and no toolkit; cicc, 103 MB, is one of them once more, as a program.
FROM build AS build-cuda
COPY requirements/cuda.txt requirements/
RUN /opt/tools/bin/pip --python /opt/lossd/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r requirements/cuda.txt && \
    find /opt/lossd/lib -type d -name tests -prune -exec rm -rf {} + && \
    find /opt/lossd/lib -type f -name cicc -delete

# What bulk scoring may need besides: Dask, and formats and URLs of shards.
FROM build AS build-bulk
COPY requirements/bulk.txt requirements/
RUN /opt/tools/bin/pip --python /opt/lossd/bin/python install --no-cache-dir --require-hashes \
        --only-binary :all: -r requirements/bulk.txt

FROM ${BASE} AS runtime
# libgomp1: without it Numba falls back, without a word, to a threading layer that aborts the
# process where two kernels are launched at once.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends libgomp1 && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lossd && \
    install --directory --owner lossd --group lossd /var/cache/lossd
# Kernels that the image does not hold are compiled on first use: a volume keeps them.
ARG BASE
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="lossd" \
    org.opencontainers.image.description="A loss server: PyTorch's cross-entropy over HTTP, at memory speed, without PyTorch" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE}"
ENV PATH=/opt/lossd/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/lossd \
    LOSSD_HOST=0.0.0.0
VOLUME /var/cache/lossd
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "import os, sys; from service.cli.listening import health_check; sys.exit(health_check(os.environ))"]
ENTRYPOINT ["lossd"]
CMD ["serve"]

FROM runtime AS cuda
COPY --from=build-cuda /opt/lossd /opt/lossd
# The variables ask the Container Toolkit for every GPU, and of the driver for what computes.
ENV LOSSD_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS bulk
COPY --from=build-bulk /opt/lossd /opt/lossd

# The last stage is what is built by default: nothing of CUDA is in it, nor of bulk scoring's extras.
FROM runtime
COPY --from=build /opt/lossd /opt/lossd
