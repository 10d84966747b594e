#!/usr/bin/env bash
# Everything that only a GPU can show, in one call: tests on the device, throughput, and as much of the suite `mnist` as
# fits in the time; a suite that is cut short goes on at the next call.
#
#   benchmarks/on_gpu.sh OUT [SECONDS]     records, pictures, runs and logs go under OUT; SECONDS is for the suite (300)
#
# The Python that is first on the PATH must hold what pyproject.toml asks for; VAE_ZOO_CACHE the assets, where there is
# no network.
set -uo pipefail
out=${1:?usage: benchmarks/on_gpu.sh OUT [SECONDS]}
seconds=${2:-300}
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"
failed=0
step() { # NAME COMMAND...: run it with a log of its own, and say how it ended
    local name=$1; shift
    local started=$SECONDS
    "$@" >"$out/$name.log" 2>&1; local code=$?
    echo "$name: exit $code after $((SECONDS - started)) s"
    tail -n 12 "$out/$name.log"
    [ $code = 0 ] || failed=1
}
step doctor python3 -m benchmarks.cli doctor
step tests python3 -m pytest -q -p no:cacheprovider tests/test_cuda.py
step throughput python3 -m benchmarks.throughput --rows bare,seeds --variants vae,cvae --images 51200 --json
step scaling python3 -m benchmarks.scaling --plot "$out/scaling.png"
# Needs the package index once, for pythae's environment: asked for by PYTHAE=1.
[ -z "${PYTHAE:-}" ] || step pythae python3 -m benchmarks.throughput --rows mlp,conv --images 51200 --json
step suite timeout --signal=TERM "$seconds" python3 -m benchmarks.cli bench mnist \
    --board "$out/leaderboard" --runs "$out/runs" --device cuda --wandb disabled
exit $failed
