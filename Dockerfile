# The pipeline with its libraries, for CPUs or for NVIDIA cards, from the same lock: docs/docker.md.
#   docker build -t tuneline .
#   docker build -t tuneline:cuda --build-arg TORCH=cuda .
ARG IMAGE=python:3.12-slim

# The environment, made as `make setup` makes it everywhere.
FROM ${IMAGE} AS environment
# cpu; cuda, which is the index's own build of torch; or a CUDA version such as cu126.
ARG TORCH=cpu
ENV VENV=/opt/venv
WORKDIR /project
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
COPY Makefile requirements.lock requirements-unhashed.lock ./
RUN if [ "$TORCH" != cuda ]; then export UV_TORCH_BACKEND="$TORCH"; fi \
 && make "$VENV/.libraries" \
 && cp requirements.lock requirements-unhashed.lock "$VENV/"
# What only tests and checks need.
RUN "$VENV/bin/uv" pip uninstall --python "$VENV/bin/python" \
    axe-playwright-python hypothesis ipykernel mkdocs-material mkdocs-static-i18n mkdocstrings modelscope-hub mypy nbclient openai playwright pytest pytest-xdist ruff trl types-pyyaml types-psutil
COPY . .
RUN make setup && chmod 666 "$VENV/.libraries" "$VENV/.ready"

FROM ${IMAGE}
LABEL org.opencontainers.image.title="Tuneline" \
      org.opencontainers.image.description="Fine-tuning on question-answer data as a verified DVC pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"
# A home that whoever runs the container may write to (docker run --user), whose name need not be known here.
ENV VENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    HOME=/home/tuneline \
    USER=tuneline \
    DVC_SITE_CACHE_DIR=/home/tuneline/.cache/tuneline/dvc \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && git config --system safe.directory '*' \
 && useradd --no-log-init --create-home --home-dir "$HOME" --uid 1000 tuneline \
 && chmod 777 "$HOME"
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment --chown=tuneline:tuneline /project /project
COPY .docker/entrypoint /usr/local/bin/entrypoint
WORKDIR /project
USER 1000:1000
# DVC versions beside git.
RUN git init --quiet --initial-branch=main \
 && git add --all \
 && git -c user.name=Tuneline -c user.email=tuneline@localhost commit --quiet --message="Tuneline"
ENTRYPOINT ["entrypoint"]
CMD ["make", "help"]
