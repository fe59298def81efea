#!/usr/bin/env bash
# The suite with each OpenBLAS kernel that this processor can run, with one and with two BLAS threads: one line a run.
#
#     tests/anywhere.sh                                  # all of tests/ but interop and examples
#     tests/anywhere.sh tests/layers tests/losses        # these paths only
#     KERNELS=Prescott THREADS=2 tests/anywhere.sh       # some of the runs; PYTHON and PROCESSES (2) as well
#
# With an older kernel NumPy leaves out the vector instructions that a processor with that kernel would lack, too.
# The exit status is 1 if a run fails; its output is then printed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
unset OPENBLAS_L2_SIZE
python=${PYTHON:-python}
paths=("$@")
[ $# -gt 0 ] || paths=(tests --ignore tests/interop --ignore tests/examples)
kernels=Prescott
grep -qsw avx2 /proc/cpuinfo && kernels+=" Haswell"
grep -qsw avx512vl /proc/cpuinfo && kernels+=" SkylakeX"

# NumPy's dispatched features that this processor has, oldest first: SSE42 AVX2 AVX512F ..., or X86_V3 X86_V4 ...
features=$("$python" -c '
from numpy._core import _multiarray_umath as core
print(*[name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]])')
status=0
for kernel in ${KERNELS:-$kernels}; do
    case $kernel in
        Prescott) disabled=$features ;;
        Haswell) disabled=$(tr ' ' '\n' <<<"$features" | grep -E 'AVX512|X86_V4' | xargs) ;;
        *) disabled= ;;
    esac
    for threads in ${THREADS:-1 2}; do
        output=$(mktemp)
        OPENBLAS_CORETYPE=$kernel NPY_DISABLE_CPU_FEATURES=$disabled OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads \
            "$python" -m pytest -n "${PROCESSES:-2}" -p no:cacheprovider "${paths[@]}" >"$output" 2>&1
        code=$?
        printf '%-10s %s thread(s): %s\n' "$kernel" "$threads" "$(tail -n 1 "$output")"
        [ $code = 0 ] || { status=1; cat "$output"; }
        rm -f "$output"
    done
done
exit $status
