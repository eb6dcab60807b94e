#!/usr/bin/env bash
# Counts the instructions that a platform run executes before its first packet: a plan of an instance as the platform
# lays it out, up to its first connect(). Fails above the limit. Needs valgrind; takes what it takes to build a release.
#
#   examples/instructions.sh            builds target/release/k8s-token
#   examples/instructions.sh PROGRAM    counts one that is there
set -euo pipefail
cd "$(dirname "$0")/.."

LIMIT=12000000

program=${1:-}
if [ -z "$program" ]; then
    cargo build --release --locked --bin k8s-token
    program=${CARGO_TARGET_DIR:-target}/release/k8s-token
fi
program=$(realpath "$program")

instance=$(mktemp -d)
trap 'rm -rf "$instance"' EXIT
mkdir "$instance/bundle"
cp massdriver.yaml schema-artifacts.json schema-connections.json schema-params.json schema-ui.json "$instance/bundle"
ca=$(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=nobody -days 1 2>/dev/null | base64 -w0)
# Nobody listens at port 9: the run ends after what is counted.
cat >"$instance/dependencies.json" <<JSON
{"kubernetes_cluster": {
    "authentication": {
        "cluster": {"server": "https://127.0.0.1:9", "certificate-authority-data": "$ca"},
        "user": {"token": "a-token-of-nobody"}
    },
    "specs": {"kubernetes": {"cloud": "aws", "distribution": "eks", "version": "1.36"}}
}}
JSON
cat >"$instance/params.json" <<'JSON'
{
    "namespace": "team-a",
    "md_metadata": {"name_prefix": "shop-prod-app-0000", "default_tags": {"managed-by": "massdriver"}},
    "rules": [{"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list", "watch"]}]
}
JSON
echo '{"namespace": "team-a", "timeout_seconds": 1}' >"$instance/config.json"

cd "$instance"
# The program ends with 69, because nobody answers. What was executed before connect() is in the first part.
MASSDRIVER_DEPLOYMENT_ACTION=plan valgrind --tool=callgrind --dump-before=connect --callgrind-out-file=counted \
    "$program" >log 2>&1 || true
if [ ! -e counted.1 ] || ! grep -q connection-failed log; then
    cat log
    echo "the run did not get as far as connect()" >&2
    exit 1
fi
count=$(sed -n 's/^totals: //p' counted.1)
printf '%s instructions before the first packet, of at most %s\n' "$count" "$LIMIT"
[ "$count" -le "$LIMIT" ]
