#!/bin/sh
# The tests beside other implementations: PyTorch, transformers, peft, llama.cpp, lm-eval, onnxruntime-genai; after
# ./setup.sh test. They go into .venv, which takes some minutes, since llama.cpp is compiled.
set -eu

cd "$(dirname "$0")/.."
packages="torch==2.13.0 transformers>=5 accelerate peft protobuf lm-eval>=0.4.9 llama-cpp-python>=0.3.16"
packages="$packages onnxruntime-genai>=0.9"
# shellcheck disable=SC2086
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check $packages; then
    echo "references.sh: these packages cannot be had here: $packages"
    exit 77
fi
PATH="$PWD/.venv/bin:$PATH" PYTHONSAFEPATH=1
export PATH PYTHONSAFEPATH
pytest --numprocesses 2 --dist loadfile -m "reference and not device" "$@"
