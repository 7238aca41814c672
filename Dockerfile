# syntax=docker/dockerfile:1
# CPU (default):  docker build -t lte-daemon .
# CUDA:           docker build -t lte-daemon:cuda --build-arg DEVICE=cuda .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG DEVICE=cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/lte
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE NOTICE ./
# The product and the group `model`, the default language model's weights. The lock pins torch's CUDA build: for
# CPU the same version is taken from torch's own CPU index, and everything else, hashes included, from the lock.
# hnswlib is compiled, by itself for the very processor of the build: an image must run on others too, and the
# cache may hold a wheel that does not.
RUN --mount=type=cache,target=/root/.cache/uv set -eu; \
    uv venv "$VIRTUAL_ENV"; \
    export_lock() { uv export --frozen --no-default-groups --group model --no-emit-project -q "$@"; }; \
    if [ "$DEVICE" = cpu ]; then \
        version=$(export_lock --no-hashes | sed -n 's/^\(torch==[0-9.]*\).*/\1/p'); \
        uv pip install --torch-backend cpu "$version"; \
        export_lock --prune torch > requirements.txt; \
    else \
        export_lock > requirements.txt; \
    fi; \
    export HNSWLIB_NO_NATIVE=1; \
    if [ "$(uname -m)" = x86_64 ]; then export CFLAGS=-march=x86-64-v3 CXXFLAGS=-march=x86-64-v3; fi; \
    uv pip install --no-deps --require-hashes --refresh-package hnswlib -r requirements.txt
COPY lte_runtime lte_runtime
COPY daemon daemon
RUN --mount=type=cache,target=/root/.cache/uv uv build --wheel -q && uv pip install --no-deps dist/*.whl

FROM python:${PYTHON}-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/lte lte && chmod 0710 /var/lib/lte
COPY --from=build /opt/lte /opt/lte
ENV PATH=/opt/lte/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LTE_STATE_DIR=/var/lib/lte/state
USER lte
WORKDIR /var/lib/lte
VOLUME /var/lib/lte
# Answers and edits are on the unix socket in the volume. For TCP set LTE_RPC__LISTEN with TLS and a token.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["lte", "status", "--check"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["lte"]
CMD ["serve"]
