# Checks what the base image has, and installs uv: sh tools.sh PYTHON_VERSION UV_REQUIREMENT
set -eu
version=$1 requirement=$2

fail() {
    echo "mlserver-pyfunc: $*" >&2
    exit 1
}

found=
for name in "python$version" python3 python; do
    path=$(command -v "$name") || continue
    got=$("$path" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])') || continue
    if [ "$got" = "$version" ]; then
        found=$path
        break
    fi
    found=${found:-"$got at $path"}
done
case $found in
    /*) ;;
    '') fail "the base image has no Python: expected python$version on its PATH; choose another" \
        "base_image, or install it by build.instructions" ;;
    *) fail "the base image has Python $found, expected $version: set python_version in the" \
        "definition, or choose another base_image" ;;
esac

"$found" -I -c 'import ctypes, hashlib, lzma, sqlite3, ssl, zlib' ||
    fail "Python $version of the base image lacks a module of the standard library: install" \
        "the distribution's whole Python by build.instructions, or choose another base_image"

mkdir -p /build
echo "$found" > /build/python
if "$found" -m pip --version > /dev/null 2>&1; then
    "$found" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --target /build/uv "$requirement"
elif "$found" -c 'import ensurepip, venv' 2> /dev/null; then
    "$found" -m venv /build/uv
    /build/uv/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        "$requirement"
else
    fail "Python $version of the base image has neither pip nor venv with ensurepip: install" \
        "one by build.instructions, for example apt-get install -y python3-pip"
fi
