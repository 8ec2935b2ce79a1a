#!/usr/bin/env bash
# Deploys to a real kube-apiserver: create, update, conflict, forbidden, delete, and each manifest.
# Usage: tests/deployment/cluster/real_apiserver.sh [DIR]
# DIR keeps the API server, which is built from Debian's source where it is not there: six minutes.
# PYTHON is an interpreter that has the package with its dev extra.
set -euo pipefail
cd "$(dirname "$0")/../.."
binaries=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mlserver-pyfunc-tests/kube-apiserver-1.20.2}
tests/deployment/cluster/build_apiserver.sh "$binaries"
exec "${PYTHON:-python3}" -m tests.deployment.cluster.real_apiserver "$binaries"
