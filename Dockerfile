# Two stages: build with the Rust toolchain, run on a slim Debian as a user without rights.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY benches ./benches
COPY tests ./tests
RUN cargo build --release --locked --bin pgherd

# pg_dump, of postgresql-client, makes the twins: of the servers' major version or later.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pgherd
COPY --from=build /src/target/release/pgherd /usr/local/bin/pgherd
USER pgherd
EXPOSE 6432 9632
STOPSIGNAL SIGTERM
# The config's `http` address answers; the image holds no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["pgherd", "health", "-c", "/etc/pgherd/pgherd.yaml"]
ENTRYPOINT ["pgherd"]
CMD ["run", "-c", "/etc/pgherd/pgherd.yaml"]
