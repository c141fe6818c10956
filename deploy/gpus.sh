#!/usr/bin/env bash
# Which GPUs an executor or a worker has, as Spark asks for it (spark.*.resource.gpu.discoveryScript).
set -euo pipefail

found=$(nvidia-smi --query-gpu=index --format=csv,noheader)
echo "{\"name\": \"gpu\", \"addresses\": [$(sed 's/.*/"&"/' <<<"$found" | paste -sd,)]}"
