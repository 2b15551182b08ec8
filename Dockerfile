# millie in a container, CPU only: docker build -t millie . && docker run --rm -v "$PWD:/data" millie doctor
FROM python:3.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib

# The CPU build of torch: the one from PyPI brings several GB of CUDA on Linux.
COPY constraints.txt /build/
RUN python -m pip install --index-url https://download.pytorch.org/whl/cpu \
      --constraint /build/constraints.txt torch

COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN python -m pip install --constraint /build/constraints.txt '/build[slides,dicom]' \
    && useradd --create-home --uid 1000 millie

USER 1000
WORKDIR /data
ENTRYPOINT ["millie"]
CMD ["--help"]
