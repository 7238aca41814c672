#!/usr/bin/env bash
# Names what this machine lacks, and the one line that brings it. Exit 1 when something is missing.
set -euo pipefail
python=${PYTHON:-python3}
missing=()
lacks() { missing+=("$1"); packages+=("$2"); }
packages=()

if ! command -v "$python" >/dev/null || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    lacks "Python 3.11 or newer" "python3 python3-venv python3-dev"
else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || lacks "Python's venv" "python3-venv"
    "$python" - 2>/dev/null <<'PY' || lacks "Python's headers" "python3-dev"
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
PY
fi
command -v g++ >/dev/null || lacks "g++" "g++"
command -v setpriv >/dev/null || lacks "setpriv" "util-linux"
if ! command -v java >/dev/null; then
    lacks "a JDK 17 or newer" "openjdk-17-jdk-headless"
else
    # `java -version` says: openjdk version "17.0.15" 2025-04-15
    major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
    [ "${major:-0}" -ge 17 ] || lacks "a JDK 17 or newer (found ${major:-none})" "openjdk-17-jdk-headless"
fi
command -v mvn >/dev/null || lacks "Maven" "maven"

if [ ${#missing[@]} -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    printf 'install: apt-get install -y %s\n' "${packages[*]}" >&2
    exit 1
fi
