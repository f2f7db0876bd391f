#!/usr/bin/env bash
# Starts one Ray node in the foreground, or runs any other command of the image.
#
#   entrypoint.sh head [options of ray start]
#   entrypoint.sh worker HEAD:PORT [options of ray start]
#   entrypoint.sh health                  whether the node of this container is well
#   entrypoint.sh study run ...
#
# RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH and its file, or ~/.ray/auth_token: the cluster's token
# STUDY_WITHOUT_TOKEN=1                   a node without a token, for networks where everyone may run code
# STUDY_HEAD_WAIT_S                       how long a worker waits for its head; 120 s when left out
set -euo pipefail

# Below 10002, where the ports of Ray's workers begin, and the same on every node, so that a firewall can name them.
GCS_PORT=6379
NODE_MANAGER_PORT=6380
OBJECT_MANAGER_PORT=6381
RUNTIME_ENV_PORT=6382
AGENT_GRPC_PORT=6383
METRICS_PORT=8080
DASHBOARD_PORT=8265
AGENT_PORT=8266
CLIENT_PORT=9999

node_ports=(
    --node-manager-port "$NODE_MANAGER_PORT"
    --object-manager-port "$OBJECT_MANAGER_PORT"
    --runtime-env-agent-port "$RUNTIME_ENV_PORT"
    --dashboard-agent-grpc-port "$AGENT_GRPC_PORT"
    --dashboard-agent-listen-port "$AGENT_PORT"
    --metrics-export-port "$METRICS_PORT"
)

die() {
    echo "entrypoint.sh: $1" >&2
    exit 2
}

# Anyone who reaches a head can run code on it: a node starts with a token, or if the user says so.
require_token() {
    if [[ -n "$has_token" ]]; then
        return
    elif [[ "${STUDY_WITHOUT_TOKEN:-}" == 1 ]]; then
        export RAY_AUTH_MODE=disabled
    else
        die "no token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it; or STUDY_WITHOUT_TOKEN=1"
    fi
}

token_file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
has_token=
if [[ -n "${RAY_AUTH_TOKEN:-}" || -s "$token_file" ]]; then
    [[ -n "${RAY_AUTH_TOKEN:-}" || -r "$token_file" ]] || die "$token_file: user $(id -u) may not read it"
    has_token=1
    export RAY_AUTH_MODE=token
fi

# Prints what was wrong the last time if the head does not come up.
wait_for() {
    local deadline=$((SECONDS + ${STUDY_HEAD_WAIT_S:-120})) answer
    until answer=$(ray health-check --address "$1" 2>&1); do
        if ((SECONDS >= deadline)); then
            die "no head at $1 after ${STUDY_HEAD_WAIT_S:-120} s: $(tail -n 1 <<<"$answer")"
        fi
        sleep 1
    done
}

case "${1:-}" in
head)
    shift
    require_token
    # The dashboard listens on all interfaces of the container; which of them the world sees is up to who publishes it.
    exec ray start --head --block --port "$GCS_PORT" --ray-client-server-port "$CLIENT_PORT" \
        --dashboard-host 0.0.0.0 --dashboard-port "$DASHBOARD_PORT" "${node_ports[@]}" "$@"
    ;;
worker)
    [[ $# -ge 2 ]] || die "worker needs its head's address: worker HEAD:$GCS_PORT"
    address=$2
    shift 2
    require_token
    wait_for "$address"
    exec ray start --address "$address" --block "${node_ports[@]}" "$@"
    ;;
health)
    url=http://127.0.0.1:$AGENT_PORT/api/healthz
    python -c "from urllib.request import urlopen; urlopen('$url', timeout=4)" 2>/dev/null || exit 1
    ;;
"") die "what to run? head, worker HEAD:$GCS_PORT, health, or a command such as study --help" ;;
*) exec "$@" ;;
esac
