# A container for clusters: docker build -t stig . && docker run --gpus all stig
# It installs by the Makefile alone, so that the two cannot differ; see docs/cluster.md.
# The base has the CUDA of the torch in constraints.txt, so that Docker refuses a driver that is too old for it; the compiler is
# --compile's. Machines without a GPU need no CUDA: --build-arg BASE=debian:bookworm-slim
ARG BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04
FROM ${BASE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1001 stig && install --directory --owner=stig --group=stig /home/stig/stig

USER stig
WORKDIR /home/stig/stig
COPY --chown=stig:stig Makefile requirements.txt requirements-dev.txt constraints.txt ./
RUN make install
COPY --chown=stig:stig . .
ENV PATH="/home/stig/stig/.venv/bin:${PATH}"

CMD ["make", "demo"]
