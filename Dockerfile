# One image for the dashboard, the workers and the migration; docker-compose.yml says which is which.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1

RUN useradd --uid 10001 --create-home slimboard \
    && install --directory --owner=slimboard --group=slimboard /var/lib/slimboard

WORKDIR /srv/slimboard

# Seldom changed things first: a change of our own code reuses these layers. The default PyTorch runs on CPU and
# NVIDIA GPUs; --build-arg TORCH_INDEX=<address> takes another build, such as the much smaller one for CPUs alone.
COPY requirements.lock .
ARG TORCH_INDEX=
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.lock)"
RUN pip install -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY worker worker
COPY core core
COPY app app
RUN pip install --no-deps --no-build-isolation --editable .

USER slimboard
ENV SLIMBOARD_HOME=/var/lib/slimboard
EXPOSE 8501
ENTRYPOINT ["slimboard"]
CMD ["--help"]
