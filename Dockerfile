# Whetstone as an image: docs/deployment.md.
#
#   docker build -t whetstone .                              the server, with PyTorch for CUDA
#   docker build -t whetstone --build-arg TORCH=cpu .        the server, with PyTorch for processors only
#   docker build -t whetstone-inference --target inference . the inference host alone, without Python, for replicas
#
# BASE is a slim Debian with Python 3.11 to 3.14 and Node 20 or newer in its packages: 13 or later.
ARG BASE=debian:trixie-slim

# ----------------------------------------------------------------- what has to be built: Node with its packages, the native runtime
FROM ${BASE} AS build
# For networks with mirrors of their own. They are no part of the image.
ARG NPM_CONFIG_REGISTRY
ARG SSL_CERT_FILE
ARG NODE_EXTRA_CA_CERTS
RUN apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm cmake make g++ \
  && rm -rf /var/lib/apt/lists/*
# Debian's npm 9 does not understand the reference in `overrides` of package.json.
RUN npm install --global npm@11
WORKDIR /opt/whetstone
COPY . .
# NODE_ENV leaves out the packages of the tests; onnxruntime-node brings the libraries of all systems.
RUN NODE_ENV=production node scripts/setup.mjs node native \
  && rm -rf /root/.npm inference-native/build/CMakeFiles node_modules/onnxruntime-node/bin/*/darwin node_modules/onnxruntime-node/bin/*/win32

# ----------------------------------------------------------------- the inference host
FROM ${BASE} AS inference
RUN apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates libstdc++6 passwd tini \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin whetstone \
  && install -d -m 0700 -o whetstone -g whetstone /data /backups
COPY --from=build /opt/whetstone /opt/whetstone
WORKDIR /opt/whetstone
ENV PATH=/opt/whetstone/node_modules/.bin:$PATH
USER whetstone
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["node", "-e", "fetch('http://127.0.0.1:8000/v2/health/live').then((answer) => process.exit(answer.ok ? 0 : 1))"]
# The first process takes over those whose parents have died.
ENTRYPOINT ["tini", "--"]
CMD ["node", "--max-semi-space-size=1", "--heap-growing-percent=400", "src/inference/main.ts", "--config", "/etc/whetstone/models.json"]

# ----------------------------------------------------------------- the server
FROM inference AS server
USER root
ARG TORCH=cuda
ARG PIP_INDEX_URL
ARG PIP_CERT
ARG UV_DEFAULT_INDEX
ARG SSL_CERT_FILE
RUN apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && case "$TORCH" in \
       cpu) export UV_TORCH_BACKEND=cpu UV_NO_VERIFY_HASHES=1 ;; \
       cuda) ;; \
       *) echo "TORCH is cpu or cuda, not $TORCH." >&2; exit 1 ;; \
     esac \
  && UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 node scripts/setup.mjs python \
  && rm -rf /root/.cache
ENV WHETSTONE_HOST=0.0.0.0 \
    WHETSTONE_DATA_DIR=/data \
    TORCH_HOME=/data/torch \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER whetstone
VOLUME /data
EXPOSE 8080
HEALTHCHECK --start-period=60s CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.WHETSTONE_PORT ?? 8080) + '/health').then((answer) => process.exit(answer.ok ? 0 : 1))"]
CMD ["node", "--max-semi-space-size=16", "src/main.ts", "serve"]
