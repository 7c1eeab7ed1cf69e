FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app

FROM base AS builder
# Without pip: it fills the environment from outside, and has no business in the image. With
# bytecode: without, each start would compile every library anew and take three times as long.
RUN python -m venv --without-pip /opt/venv
COPY requirements/agent.txt /tmp/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r /tmp/agent.txt

FROM builder AS test
COPY requirements/agent-test.txt /tmp/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --require-hashes -r /tmp/agent-test.txt
COPY pyproject.toml alembic.ini ./
COPY migrations migrations
COPY server_agent server_agent
COPY sandbox sandbox
COPY tests tests
CMD ["pytest", "tests/unit", "tests/integration"]

FROM base AS runtime
RUN groupadd --gid 10001 agent \
    && useradd --uid 10001 --gid agent --no-create-home --home-dir /app --shell /usr/sbin/nologin agent \
    && install -d -o agent -g agent /app/data
COPY --from=builder /opt/venv /opt/venv
COPY alembic.ini ./
COPY migrations migrations
COPY server_agent server_agent
USER agent
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "server_agent.healthcheck"]
ARG BUILD_DATE=unknown
ARG VCS_REF=unknown
ARG VERSION=unknown
ENV BUILD_DATE=$BUILD_DATE VCS_REF=$VCS_REF VERSION=$VERSION
LABEL org.opencontainers.image.title="Server Agent vNext" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.created=$BUILD_DATE \
      org.opencontainers.image.revision=$VCS_REF \
      org.opencontainers.image.version=$VERSION
CMD ["python", "-m", "server_agent"]
