#!/usr/bin/env bash
# Deploys to a real kube-apiserver: create, update, conflict, forbidden, delete, each manifest; and
# every shape and option behind KServe's webhooks (test_rollouts.py).
# Usage: tests/deployment/cluster/real_apiserver.sh [DIR]
# DIR keeps the API server, which is built from Debian's source where it is not there: six minutes.
# PYTHON is an interpreter that has the package with its dev extra.
set -euo pipefail
cd "$(dirname "$0")/../.."
binaries=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mlserver-pyfunc-tests/kube-apiserver-1.20.2}
tests/deployment/cluster/build_apiserver.sh "$binaries"
python=${PYTHON:-python3}
"$python" -m tests.deployment.cluster.real_apiserver "$binaries"
KUBE_APISERVER=$binaries exec "$python" -m pytest -q tests/deployment/cluster/test_rollouts.py
