# syntax=docker/dockerfile:1
# The worker's image.  With deep learning: docker build --build-arg EXTRAS=torch,optuna .

FROM python:3.12-slim AS build

ARG EXTRAS=""
ENV PATH=/opt/tensorfleet/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# Everything that has hashes first: this layer stays until requirements.txt changes.  pip compiles what it installs to
# bytecode, without which Keras takes eleven seconds to import instead of four.
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/tensorfleet \
    && pip install --require-hashes --only-binary :all: -r requirements.txt \
    && pip freeze > locked.txt

COPY pyproject.toml README.md LICENSE hatch_build.py ./
COPY tensorfleet tensorfleet
COPY consumer consumer
COPY pipeline pipeline
COPY schemas schemas
# Shown by `tensorfleet --version`: --build-arg COMMIT=$(git rev-parse --short=12 HEAD)
ARG COMMIT=""
RUN --mount=type=cache,target=/root/.cache/pip \
    TENSORFLEET_COMMIT="$COMMIT" pip install --constraint locked.txt ".${EXTRAS:+[$EXTRAS]}"


FROM python:3.12-slim

# tini reaps what the trainers' process groups leave behind, and passes SIGTERM on to the worker alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /var/lib/tensorfleet tensorfleet \
    && install --directory --owner tensorfleet --mode 0750 /var/lib/tensorfleet

COPY --from=build /opt/tensorfleet /opt/tensorfleet

ENV PATH=/opt/tensorfleet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PORT=8000 \
    DATA_DIR=/var/lib/tensorfleet/data \
    DATASET_CACHE_DIR=/var/lib/tensorfleet/datasets \
    SPOOL_DIR=/var/lib/tensorfleet/spool

USER 10001
WORKDIR /var/lib/tensorfleet
EXPOSE 8000
STOPSIGNAL SIGTERM

# /livez, not /health: a worker that trains is not restarted because MongoDB is down.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/livez', timeout=4)"]

ENTRYPOINT ["tini", "--", "tensorfleet"]
CMD ["worker"]
