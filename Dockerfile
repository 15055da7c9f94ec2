# A container for clusters: docker build -t stig . && docker run --gpus all stig
# It installs by the Makefile alone, so that the two cannot differ; see docs/cluster.md.
# Machines without a GPU need no CUDA: --build-arg BASE=debian:bookworm-slim
ARG BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04
FROM ${BASE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1001 stig && install --directory --owner=stig --group=stig /home/stig/stig

USER stig
WORKDIR /home/stig/stig
COPY --chown=stig:stig Makefile requirements.txt requirements-dev.txt constraints.txt ./
RUN make install
COPY --chown=stig:stig . .
ENV PATH="/home/stig/stig/.venv/bin:${PATH}"

CMD ["make", "demo"]
