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
# The lock pins torch's CUDA build. For CPU the same version is taken from torch's own CPU index, and
# everything else, hashes included, from the lock.
RUN --mount=type=cache,target=/root/.cache/uv set -eu; \
    uv venv "$VIRTUAL_ENV"; \
    if [ "$DEVICE" = cpu ]; then \
        version=$(uv export --frozen --no-dev --no-emit-project --no-hashes -q | sed -n 's/^\(torch==[0-9.]*\).*/\1/p'); \
        uv pip install --torch-backend cpu "$version"; \
        uv export --frozen --no-dev --no-emit-project --prune torch -q > requirements.txt; \
    else \
        uv export --frozen --no-dev --no-emit-project -q > requirements.txt; \
    fi; \
    uv pip install --no-deps --require-hashes -r requirements.txt
COPY lte_runtime lte_runtime
COPY daemon daemon
RUN --mount=type=cache,target=/root/.cache/uv uv build --wheel -q && uv pip install --no-deps dist/*.whl

FROM python:${PYTHON}-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /var/lib/lte lte && chmod 0710 /var/lib/lte
COPY --from=build /opt/lte /opt/lte
ENV PATH=/opt/lte/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LTE_STATE_DIR=/var/lib/lte/state \
    LTE_KAFKA__BOOTSTRAP=kafka:9092
USER lte
WORKDIR /var/lib/lte
VOLUME /var/lib/lte
# Answers and edits are on the unix socket in the volume. For TCP set LTE_RPC__LISTEN with TLS and a token.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["lte", "status", "--check"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["lte"]
CMD ["serve"]
