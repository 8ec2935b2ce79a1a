#!/usr/bin/env bash
# Build Debian 12's kube-apiserver (1.20.2) and unpack its etcd into DIR, touching no system file.
# Usage: build_apiserver.sh DIR   (DIR is a cache: a second run has nothing to do)
# Needs apt, dpkg-dev, make, openssl, 4 GB of disk, and five to ten minutes.
set -euo pipefail

target=$(mkdir -p "${1:?usage: build_apiserver.sh DIR}" && cd "$1" && pwd)
[[ -x $target/kube-apiserver && -x $target/etcd ]] && exit 0

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
work=$target/build
mkdir -p "$work"/apt/{lists/partial,archives/partial} "$work"/{debs,root,source}
cat >"$work/apt/sources.list" <<EOF
deb $mirror bookworm main
deb-src $mirror bookworm main
EOF
# Lists and archives of its own: the machine's package state stays as it is.
apt=(-qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt"
  -o APT::Sandbox::User=root -o Acquire::Languages=none)

apt-get "${apt[@]}" update
(cd "$work/debs" && apt-get "${apt[@]}" download \
  golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev etcd-server \
  rsync libpopt0 libxxhash0)
for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
cp "$work/root/usr/bin/etcd" "$target/etcd"

(cd "$work/source" && apt-get "${apt[@]}" source --download-only kubernetes)
rm -rf "$work/kubernetes"
dpkg-source --no-check -x "$work"/source/kubernetes_*.dsc "$work/kubernetes" >/dev/null

# The reflect2 of 2021 crashes under Go 1.18 and later.
vendored=$work/kubernetes/vendor/github.com/modern-go/reflect2
rm -rf "$vendored"
cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$vendored"

export GOROOT=$work/root/usr/lib/go-1.19 GOTOOLCHAIN=local CGO_ENABLED=0
export PATH=$GOROOT/bin:$work/root/usr/bin:$PATH
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
export KUBE_GIT_VERSION_FILE=$work/version
cat >"$KUBE_GIT_VERSION_FILE" <<EOF
KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean
KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
EOF
cd "$work/kubernetes"
# Upstream's own steps, in GOPATH mode: newer Go finds its go.mod wanting.
nice -n 10 make gen_openapi >/dev/null
nice -n 10 hack/make-rules/build.sh cmd/kube-apiserver
cp _output/local/bin/linux/*/kube-apiserver "$target/kube-apiserver"
chmod -R u+w "$work"
rm -rf "$work"
