# The image of the provisioner, which is also the command line: one static program and CA certificates.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/k8s-token-provisioner:2.0.0 --push .
#
# Requirements of Massdriver:
# - It runs `entrypoint.sh`, found on the PATH of the image, with the documents of the deployment in /massdriver. It need
#   not be a script: here it is the program.
# - It runs as uid 10001. The program needs no root, home directory, shell or entry in /etc/passwd.
# - The CA certificates are for Massdriver's own address. The cluster is verified with the CA of its connection.

FROM rust:1.95-alpine AS build
# musl headers and a C compiler for the cryptography (AWS-LC), which is C and assembly and needs neither CMake nor Go.
# Alpine's Rust links statically.
RUN apk add --no-cache build-base ca-certificates
WORKDIR /source
# The sources of the program. Its manifest names the testbed and other tests, so cargo requires their manifests too.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY massdriver.yaml schema-params.json schema-artifacts.json ./
COPY src src
COPY tests/testbed/Cargo.toml tests/testbed/Cargo.toml
COPY tests/consumers/Cargo.toml tests/consumers/Cargo.toml
RUN mkdir -p tests/testbed/src && touch tests/testbed/src/lib.rs \
 && cargo build --release --locked --package k8s-token --bin k8s-token
# The directories of the image. Copied from their parent, because copying a directory itself loses its mode.
RUN install -D -m 0755 target/release/k8s-token /image/usr/local/bin/entrypoint.sh \
 && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && mkdir -p /workdir/massdriver && chmod 0777 /workdir/massdriver

FROM scratch
COPY --from=build /image /
COPY --from=build --chown=10001:10001 /workdir /
# A scratch image has no PATH.
ENV PATH=/usr/local/bin
ENV MASSDRIVER_PROVISIONER=k8s-token
WORKDIR /massdriver
USER 10001
ENTRYPOINT ["entrypoint.sh"]
