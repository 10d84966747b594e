#!/usr/bin/env bash
# Everything that only a GPU can show, in one call of under ten minutes: tests on the device, speed, published recipes
# trained beside each other, and as much of a suite as fits; what is cut short goes on at the next call with the
# same OUT.
#
#   benchmarks/on_gpu.sh OUT [SECONDS]     records, pictures and logs go to OUT, runs to OUT/runs; SECONDS in all (570)
#
# The Python that is first on the PATH must hold what pyproject.toml asks for; VAE_ZOO_CACHE the assets, where there is
# no network. PYTHAE=1 adds the comparison with pythae, which the package index is needed for once (PIP_NO_INDEX and
# PIP_FIND_LINKS serve as well). RECIPES names what is reproduced, TESTS the tests (an expression of pytest's -k), SUITE
# the suite, with what belongs to it (SUITE="study_mini --datasets shapes --seeds 10").
set -uo pipefail
out=${1:?usage: benchmarks/on_gpu.sh OUT [SECONDS]}
end=$((SECONDS + ${2:-570}))
recipes=${RECIPES:-iwae_1l_k5_short iwae_1l_k50_short standard_2x300_short vamp_2x300_short}
[ "${out#/}" != "$out" ] || out=$PWD/$out
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$out"
failed=0
step() { # LIMIT NAME COMMAND...: run it for so many seconds at most, with a log of its own, and say how it ended
    local limit=$1 name=$2; shift 2
    local started=$SECONDS left=$((end - SECONDS))
    [ "$limit" -lt "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then echo "$name: no time was left"; failed=1; return; fi
    timeout --signal=TERM --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1; local code=$?
    echo "$name: exit $code after $((SECONDS - started)) s"
    tail -n 40 "$out/$name.log" | cut -c1-200
    [ $code = 0 ] || failed=1
}
zoo=(python3 -m benchmarks.cli)
places=(--board "$out/leaderboard" --runs "$out/runs" --device cuda --wandb disabled)
# Each test is named as it ends, so that a run that is cut short has said what failed.
pytest=(python3 -m pytest -o addopts= -v --tb=short -p no:cacheprovider tests/test_cuda.py)
step 20 doctor "${zoo[@]}" doctor
step 90 tests "${pytest[@]}" -n 6 -k "${TESTS:-capture or beside or seeds or same_weights or streamed}"
grep -a "FAILED\|^E  " "$out/tests.log" | head -n 30
[ -z "${PYTHAE:-}" ] || step 75 pythae python3 -m benchmarks.throughput --rows mlp,conv --images 12800 --repeats 5 --json
step 40 seeds python3 -m benchmarks.throughput --rows seeds --variants vae,beta_vae,cvae,flow_vae --json
step 45 bare python3 -m benchmarks.throughput --rows bare --variants vae,cvae --images 12800 --repeats 5 --json
# shellcheck disable=SC2086
step 300 recipes "${zoo[@]}" reproduce $recipes "${places[@]}"
# shellcheck disable=SC2086
step 600 suite "${zoo[@]}" bench ${SUITE:-mnist} "${places[@]}"
exit $failed
