#!/usr/bin/env bash
# Check of the CUDA kernels on a GPU, in under nine minutes; see benchmarks/cuda/check.py.
#
#   OUT=/tmp/figures benchmarks/cuda/check.sh                  all parts
#   OUT=/tmp/figures benchmarks/cuda/check.sh suite service    some of them
#   NUMBA_ENABLE_CUDASIM=1 benchmarks/cuda/check.sh            a rehearsal on Numba's simulator
#
# It needs Python 3.12 with NumPy, Numba, numba-cuda, PyTorch, Triton, pytest, hypothesis and
# ml-dtypes, and no network: the service's other packages are the wheels in .wheels/, which
# `make wheels` downloads. PYTHON names another interpreter.
set -u
cd "$(dirname "$0")/../.." || exit
python=${PYTHON:-python3}
export OUT="${OUT:-$PWD/build/cuda}"
mkdir -p "$OUT" || exit

site=$(mktemp -d) || exit
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
install() {
	# Parts that need none of these run even where they cannot be installed.
	"$python" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check \
		--target "$site" "$@" || echo "$# wheels could not be installed" >&2
}
compgen -G '.wheels/*.whl' >/dev/null && install .wheels/*.whl
"$python" - <<'END' || { compgen -G '.wheels/spare/*.whl' >/dev/null && install .wheels/spare/*.whl; }
# The bounds of pyproject.toml's extra "cuda".
from importlib.metadata import version
raise SystemExit(not (0, 30) <= tuple(map(int, version("numba-cuda").split(".")[:2])) < (0, 40))
END
"$python" -m benchmarks.cuda.check "$@"
