#!/usr/bin/env bash
# Counts instructions, which do not depend on what else the machine does. Fails above a limit. Needs valgrind; takes what
# it takes to build a release, and for the second count its tests' dependencies.
#
# - What a platform run executes before its first packet: a plan of an instance as the platform lays it out, up to its
#   first connect().
# - What it takes to judge 1,000 rules (dead rules and risks): realistic ones, and as many misspelt names. The limit is 10
#   ms at 4 instructions in a nanosecond, which a core of 3 GHz exceeds with 1.4 in a cycle; one that executes 3 in a
#   cycle needs less than half of that time.
#
#   examples/instructions.sh                       builds target/release/k8s-token and target/release/examples/judging
#   examples/instructions.sh PROGRAM [JUDGING]     counts those that are there
set -euo pipefail
cd "$(dirname "$0")/.."

LIMIT=12000000
JUDGING_LIMIT=40000000

program=${1:-}
if [ -z "$program" ]; then
    cargo build --release --locked --bin k8s-token
    program=${CARGO_TARGET_DIR:-target}/release/k8s-token
fi
program=$(realpath "$program")
judging=${2:-}
if [ -z "$judging" ]; then
    cargo build --release --locked --example judging
    judging=${CARGO_TARGET_DIR:-target}/release/examples/judging
fi
judging=$(realpath "$judging")

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
status=0
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
[ "$count" -le "$LIMIT" ] || status=1

# Params with 1,000 rules. Each realistic one has one of 8 combinations of group and resources, one of 7 of verbs, and one
# of 40 namespaces; every fifth is for a single object.
realistic() {
    awk 'BEGIN {
        what[0] = "\"\"|\"pods\", \"pods/log\""
        what[1] = "\"\"|\"services\", \"configmaps\""
        what[2] = "\"\"|\"secrets\""
        what[3] = "\"apps\"|\"deployments\", \"statefulsets\", \"deployments/scale\""
        what[4] = "\"batch\"|\"jobs\", \"cronjobs\""
        what[5] = "\"networking.k8s.io\"|\"ingresses\""
        what[6] = "\"rbac.authorization.k8s.io\"|\"roles\", \"rolebindings\""
        what[7] = "\"example.com\"|\"widgets\""
        split("get|get list|get list watch|create|update patch|delete|get list watch create update patch delete", verbs, "|")
        printf "{\"namespace\": \"team-a\", \"rules\": ["
        for (i = 0; i < 1000; i++) {
            split(what[i % 8], part, "|")
            of = verbs[int(i / 8) % 7 + 1]
            gsub(" ", "\", \"", of)
            names = i % 5 ? "" : sprintf(", \"resourceNames\": [\"object-%d\"]", i)
            rule = "{\"apiGroups\": [%s], \"resources\": [%s], \"verbs\": [\"%s\"], \"namespaces\": [\"team-%d\"]%s}"
            printf "%s" rule, i ? ", " : "", part[1], part[2], of, i % 40, names
        }
        print "]}"
    }'
}
# 1,000 names with one letter too many.
misspelt() {
    awk 'BEGIN {
        split("deployments statefulsets daemonsets replicasets", plurals, " ")
        printf "{\"namespace\": \"team-a\", \"rules\": ["
        for (candidate = 0; count < 1000; candidate++) {
            at = int(candidate / 4) % 10 + 1
            letter = substr("abcdefghijklmnopqrstuvwxyz0123456789", int(candidate / 40) + 1, 1)
            word = plurals[candidate % 4 + 1]
            word = substr(word, 1, at) letter substr(word, at + 1)
            if (known[word]++)
                continue
            rule = "{\"apiGroups\": [\"apps\"], \"resources\": [\"%s\"], \"verbs\": [\"get\", \"list\"]}"
            printf "%s" rule, count++ ? ", " : "", word
        }
        print "]}"
    }'
}
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=judged "$judging" "$1" "$2" >/dev/null 2>log || { cat log >&2; exit 1; }
    sed -n 's/^totals: //p' judged
}
for kind in realistic misspelt; do
    "$kind" >"$kind.json"
    # The difference to no judgement at all: parsing does not count, the parsing of the embedded table does.
    count=$(($(instructions "$kind.json" 1) - $(instructions "$kind.json" 0)))
    printf '%s instructions to judge 1,000 rules (%s), of at most %s\n' "$count" "$kind" "$JUDGING_LIMIT"
    [ "$count" -le "$JUDGING_LIMIT" ] || status=1
done
exit "$status"
