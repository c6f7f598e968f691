# One image for server, runner and sandbox: they are one binary. Needs BuildKit (DOCKER_BUILDKIT=1).
#
#   docker build -t roadstead .
#   docker build -t roadstead --build-arg BINARY=prebuilt .      takes dist/roadstead instead of compiling
#
# Other bases may stand in. For compiling: cargo, a C compiler, pkg-config, OpenSSL's headers. For
# running without apt-get: a shell, libssl3, zlib, CA certificates and wget. A sandbox from this image
# stands in front of a registry that runs elsewhere (--registry-upstream).
ARG BASE_BUILD=rust:1.95-bookworm
ARG BASE_RUNTIME=debian:bookworm-slim
ARG BINARY=compiled

FROM ${BASE_BUILD} AS compiled
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release --package roadstead-cli \
    && install -D target/release/roadstead /out/roadstead

FROM scratch AS prebuilt
COPY dist/roadstead /out/roadstead

FROM ${BINARY} AS binary

FROM ${BASE_RUNTIME}
RUN set -eu; \
    if command -v apt-get >/dev/null; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
            ca-certificates libssl3 wget zlib1g; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    mkdir -p /etc/roadstead /var/lib/roadstead; \
    # Repositories that are mounted belong to somebody of the machine, which git would refuse.
    printf '[safe]\n\tdirectory = *\n' >/etc/gitconfig; \
    echo '# Projects go here; ROADSTEAD__SECTION__KEY is laid over this file.' >/etc/roadstead/roadstead.toml; \
    chown 10001:10001 /var/lib/roadstead; \
    chmod 0750 /var/lib/roadstead
COPY --from=binary /out/roadstead /usr/local/bin/roadstead
# A number: it needs no entry in the base's list of users.
USER 10001:10001
WORKDIR /var/lib/roadstead
ENV HOME=/var/lib/roadstead \
    ROADSTEAD__DATA=/var/lib/roadstead \
    ROADSTEAD__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
VOLUME /var/lib/roadstead
ENTRYPOINT ["roadstead"]
CMD ["server", "--config", "/etc/roadstead/roadstead.toml"]
