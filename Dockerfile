# docker build -t twotower .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" twotower train data=movielens_1m
#
# With CUDA; the driver comes from the host (NVIDIA Container Toolkit):
# docker build -t twotower:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" twotower:cuda train
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY docs/published.yaml docs/
COPY src src
# the packages change less often than the code: they get a layer of their own below
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
e = p['optional-dependencies']; \
print(*p['dependencies'], *e['export'], *e['sweep'], *e['duckdb'], *e['tensorboard'], sep='\n')" \
    > packages.txt \
    && install -D --target-directory /packages packages.txt constraints.txt \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=build,source=/packages,target=/packages \
    pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
    --constraint /packages/constraints.txt --requirement /packages/packages.txt
RUN --mount=type=bind,from=build,source=/wheel,target=/wheel \
    pip install --no-cache-dir --no-deps /wheel/*.whl \
    && useradd --no-create-home --uid 1000 twotower \
    && install -d --owner twotower /work
# --user may be one that the image does not know
ENV HOME=/tmp USER=twotower
USER 1000
# data, cache and outputs are folders of the mounted folder
WORKDIR /work
ENTRYPOINT ["twotower"]
