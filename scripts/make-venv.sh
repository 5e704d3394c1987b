#!/bin/sh
# A virtual environment with pip, on machines whose Python came without the venv module's parts (Debian) too.
set -eu
python=$1 venv=$2
command -v "$python" >/dev/null 2>&1 || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "stemtomo needs Python 3.11 or later; name one with 'make PYTHON=/path/to/python3.11 …'" >&2
    exit 2
}
rm -rf "$venv"
"$python" -m venv "$venv" >/dev/null 2>&1 && exit 0
rm -rf "$venv"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    exec "$python" -m venv "$venv"
fi
echo "this Python cannot make virtual environments; install its venv package (Debian: sudo apt-get install python3-venv)" >&2
exit 2
