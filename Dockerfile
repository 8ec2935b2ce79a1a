# Serves the model repository that is mounted at $MLSERVER_MODELS_DIR.
#
#     docker build -t mlserver-pyfunc .
#     docker run -p 8080:8080 -p 8081:8081 -v "$PWD/examples/many:/mnt/models:ro" mlserver-pyfunc
#
# It holds the server and uv, which installs what a function requires when it is loaded, and fetches
# a Python that is not there if MLSERVER_PYFUNC_PYTHON_DOWNLOADS=1. An image built from this one, or
# by mlserver-pyfunc build, has all of that and starts without a network.

FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY mlserver_pyfunc /src/mlserver_pyfunc
RUN python -m venv /opt/mlserver \
    && /opt/mlserver/bin/pip install --no-cache-dir "/src[isolation,remote]" \
    && rm -rf /opt/mlserver/lib/python3.12/site-packages/pandas/tests

FROM python:3.12-slim
# Sources in git repositories are fetched by git itself.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 0775 -o 1000 -g 0 /mnt/models
COPY --from=build /opt/mlserver /opt/mlserver

# Only /tmp is written to, so the root file system may be read-only. A settings.json in the model
# repository comes before these, as do variables given to the container.
ENV PATH=/opt/mlserver/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=mlserver \
    MLSERVER_MODELS_DIR=/mnt/models \
    MLSERVER_ENVIRONMENTS_DIR=/tmp/mlserver/envs \
    MLSERVER_METRICS_DIR=/tmp/mlserver/metrics \
    MLSERVER_PYFUNC_CACHE=/tmp/mlserver-pyfunc \
    MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION=mlserver_pyfunc.SchemalessModelRepository \
    MLSERVER_PYFUNC_REPOSITORY_API=loopback \
    MLSERVER_PARALLEL_WORKERS=0 \
    MLSERVER_DEBUG=false \
    MLSERVER_GZIP_ENABLED=false \
    MLSERVER_GRPC_MAX_MESSAGE_LENGTH=268435456

LABEL org.opencontainers.image.title="mlserver-pyfunc" \
    org.opencontainers.image.source="https://github.com/mlserver-pyfunc/mlserver-pyfunc" \
    org.opencontainers.image.licenses="Apache-2.0"

# Group 0, for platforms that choose the user id themselves.
USER 1000:0
WORKDIR /tmp
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('MLSERVER_HTTP_PORT', '8080') + '/v2/health/ready', timeout=4)"]
ENTRYPOINT []
CMD ["sh", "-c", "exec mlserver start \"$MLSERVER_MODELS_DIR\""]
