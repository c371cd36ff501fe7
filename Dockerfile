# The two commands of the README in a container:
#
#   docker build --target cpu --tag domainbridge:cpu .
#   docker run --rm --volume "$PWD/runs:/domainbridge/runs" domainbridge:cpu make demo
#   docker run --rm domainbridge:cpu make test
#
#   docker build --target cuda --tag domainbridge:cuda .
#   docker run --rm --gpus all --shm-size 2g --volume "$PWD/runs:/domainbridge/runs" domainbridge:cuda make demo
#
# docs/installing.md shows a run on your own images.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS base
# make: the two commands. git: `domainbridge --version` names the commit. g++: torch.compile on a CPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make git g++ \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home domainbridge && install --directory --owner domainbridge /domainbridge /domainbridge/runs
USER domainbridge
WORKDIR /domainbridge
COPY --chown=domainbridge . .
ENV PATH=/domainbridge/.venv/bin:$PATH PIP_NO_CACHE_DIR=1

FROM base AS cpu
# The plain wheel of torch for Linux brings CUDA, some gigabytes; this index has the one for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN PIP_EXTRA_INDEX_URL=${TORCH_INDEX} make install
CMD ["make", "demo"]

FROM base AS cuda
# torch's wheel has the CUDA libraries; the driver comes from the host, with the NVIDIA container toolkit.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN make install
CMD ["make", "demo"]
