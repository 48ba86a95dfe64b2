# One image for the API, the Ray head, its workers and the migration step.
#
#   docker build -t secateur:cpu .
#   docker build -t secateur:cu130 --build-arg TORCH=cu130 .    # for GPUs of NVIDIA's
#
# What takes minutes comes first and changes seldom: a change of the code alone rebuilds the last, small layer.

FROM docker.io/library/python:3.11-slim-bookworm AS base
ENV PATH=/opt/secateur/bin:$PATH PYTHONUNBUFFERED=1

# torch comes first and alone, so that no other package's looser wish pulls in another build of it.
FROM base AS dependencies
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/secateur
COPY requirements.txt requirements-s3.txt ./
RUN pip install --extra-index-url "https://download.pytorch.org/whl/$TORCH" "$(grep '^torch==' requirements.txt)+$TORCH"
RUN pip install -r requirements.txt -r requirements-s3.txt
# A sixth of that is for who builds or tests these packages: test suites, headers, Ray's Java side. Ray wants the jars' folder.
RUN cd /opt/secateur/lib/python3.11/site-packages \
 && find . -depth \( -type d -name tests -o -name '*.jar' \) -exec rm -r {} \; \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && rm -r torch/include torch/test

FROM dependencies AS package
COPY LICENSE README.md pyproject.toml ./
COPY pruners pruners
COPY searchers searchers
COPY workers workers
COPY service service
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM base
# A process that waits for orphans, of which Ray leaves some, and passes signals on, wherever the image runs.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
# /data: uploads, checkpoints, networks of running jobs.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp secateur \
 && install -d -o secateur -g secateur -m 700 /data
COPY --from=dependencies /opt/secateur /opt/secateur
COPY --chmod=755 docker/answers.py /usr/local/bin/answers
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --no-deps --no-index /wheels/*.whl
ENV HOME=/tmp \
    SECATEUR_DATA_DIR=/data \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["tini", "-g", "--"]
CMD ["secateur", "serve", "--host", "0.0.0.0"]
