#!/bin/sh
# Runs drive.py, with sushy from PyPI in a virtual environment of its own, against a simulated host.
#   lab/tests/peers/sushy.sh PATH-OF-VMETAL-LAB
# Says SKIPPED, and why, when sushy cannot be had. Leaves nothing behind.
set -eu
lab=$1
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
finish() {
    "$lab" down --state-dir "$dir/state" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
if ! python3 -m venv "$dir/venv" || ! "$dir/venv/bin/pip" install --quiet --disable-pip-version-check sushy==5.14.0; then
    echo "SKIPPED: sushy cannot be installed from PyPI (python3-venv and network access are needed)"
    exit 0
fi
cat >"$dir/lab.toml" <<EOF
[[hosts]]
name = "peer"
backend = "sim"
memory_mib = 4096
disks = [{ size_gib = 10, bus = "nvme" }]
bmc = { listen = "127.77.9.3:18448", password = "peer-password" }
EOF
"$lab" up --config "$dir/lab.toml" --state-dir "$dir/state" >/dev/null &
tries=0
until [ -e "$dir/state/lab.json" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { echo "the lab did not start"; exit 1; }
    sleep 0.1
done
"$dir/venv/bin/python" -W ignore "$here/drive.py" https://127.77.9.3:18448 admin peer-password
