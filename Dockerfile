# fpmtools on a CPU. It is not needed for anything: pip in an environment does the same.
#   docker build -t fpmtools .
#   docker run --rm -v "$PWD:/data" fpmtools run --data my_images --config microscope.yaml
FROM python:3.12.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 MPLCONFIGDIR=/tmp/matplotlib

RUN useradd --create-home --uid 1000 fpm
WORKDIR /src
COPY . .
RUN pip install -c constraints.txt ".[zarr]"

USER 1000
WORKDIR /data
ENTRYPOINT ["fpmtools"]
CMD ["--help"]
