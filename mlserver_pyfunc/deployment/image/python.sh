# Makes an interpreter run that was copied from another image: sh python.sh FOLDER VERSION IMAGE
# Files that the image needs besides the folder go into /build/etc.
set -eu
folder=$1 version=$2 image=$3

runs() {
    "$folder/bin/python$version" -I -c 'import ctypes, lzma, sqlite3, ssl, zlib'
}

# A server needs neither installers nor graphical programs.
rm -rf "$folder/share" "$folder/include" "$folder/lib/python$version/config-"* \
    "$folder/lib/python$version/site-packages/"* \
    "$folder/lib/python$version/ensurepip" "$folder/lib/python$version/idlelib" \
    "$folder/lib/python$version/test" "$folder/lib/python$version/turtledemo"

mkdir -p /build/etc
if ! runs 2> /dev/null; then
    # The interpreter of the official image finds libpython by the cache of the dynamic linker, not
    # beside itself. The cache of the copy's image has to know the folder.
    rm -f "$folder/lib/libpython3.so"
    mkdir -p /etc/ld.so.conf.d /build/etc/ld.so.conf.d
    echo "$folder/lib" > /etc/ld.so.conf.d/mlserver.conf
    ldconfig
    cp /etc/ld.so.conf.d/mlserver.conf /build/etc/ld.so.conf.d/
    cp /etc/ld.so.cache /build/etc/
fi
runs || {
    echo "mlserver-pyfunc: Python $version of $image, which the server gets, does not run on the" \
        "base image: choose another by --server-image" >&2
    exit 1
}
