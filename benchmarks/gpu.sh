#!/bin/bash
# Run a preset on a GPU machine that nothing can be fetched from, in pieces: parts of 55 MiB go there, finished artifacts come back.
#
#   here    benchmarks/gpu.sh packages FOLDER    fetches what the GPU machine lacks, the weights among it
#   here    benchmarks/gpu.sh pack FOLDER ROOT   writes .gpu/part-*: those packages and the artifacts that ROOT has
#   there   benchmarks/gpu.sh receive            takes .gpu/part-* to $PLAYPEN_GPU; once for each part, in any order
#   there   benchmarks/gpu.sh unpack             puts the parts together, installs, says what it found
#   there   benchmarks/gpu.sh start PRESET ...   three processes share the plan, in the background; more words go to each
#   there   benchmarks/gpu.sh wait SECONDS       shows how far they are; comes back when they have ended
#   there   benchmarks/gpu.sh send FOLDER N      writes pieces of 15 MiB of what is finished into FOLDER: N 1 cuts them and gives four, N 2 the next
#   here    benchmarks/gpu.sh merge ROOT PIECE...  adds the artifacts of the pieces to ROOT
#
# The GPU machine brings its own torch. PACKAGES_THERE names a file with its packages, one a line, as `pip list --format=freeze`
# prints them; whatever of ours is not in it travels. A killed run goes on where it was, there or here.
set -euo pipefail
HOME_THERE=${PLAYPEN_GPU:-$HOME/playpen-gpu}

packages() { # FOLDER
    "${PYTHON:-.venv/bin/python}" benchmarks/gpu_packages.py "${PACKAGES_THERE:?names a file with the packages of the GPU machine}" "$1"
    du -sh "$1"/*
}

pack() { # FOLDER ROOT
    local stage artifact
    stage=$(mktemp -d)
    mkdir -p .gpu "$stage/run"
    rm -f .gpu/part-*
    cp -r "$1"/* "$stage/"
    for artifact in "$2"/*/manifest.json; do
        case $(basename "$(dirname "$artifact")") in
            base-*) ;; # made there from the weights' package: 1 GB as float32
            *) cp -r "$(dirname "$artifact")" "$stage/run/" ;;
        esac
    done
    tar -C "$stage" -c . | split -b 55M - .gpu/part-
    rm -r "$stage"
    ls -l .gpu
}

receive() {
    mkdir -p "$HOME_THERE/parts"
    mv .gpu/part-* "$HOME_THERE/parts/"
    ls "$HOME_THERE/parts"
}

environment() {
    export PYTHONPATH=$PWD/src:$HOME_THERE/site HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
    export JAX_PLATFORMS=cpu # bm25s imports JAX where it is there, which else takes three quarters of the memory of the GPU
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-5}
}

unpack() {
    cat "$HOME_THERE"/parts/part-* | tar -C "$HOME_THERE" -x
    rm -r "$HOME_THERE/parts"
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$HOME_THERE/site" "$HOME_THERE"/wheels/*.whl
    cp -r "$HOME_THERE"/copied/* "$HOME_THERE/site/"
    environment
    python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())'
    ls "$HOME_THERE/run"
}

start() { # PRESET ...
    environment
    for worker in 1 2 3; do
        setsid nohup python3 -m playpen run "$@" --root "$HOME_THERE/run" >"$HOME_THERE/log-$worker" 2>&1 &
        echo $! >"$HOME_THERE/pid-$worker"
    done
}

running() { # is at least one process
    local file
    for file in "$HOME_THERE"/pid-*; do
        kill -0 "$(cat "$file")" 2>/dev/null && return 0
    done
    return 1
}

wait_for() { # SECONDS
    local until=$((SECONDS + $1))
    while ((SECONDS < until)) && running; do sleep 1; done
    for log in "$HOME_THERE"/log-*; do
        echo "== $log"
        tail -n "${LINES_SHOWN:-12}" "$log" | cut -c1-300
    done
    running && echo "still running" || echo "all have ended"
}

send() { # FOLDER N
    local folder=$1 pieces
    if [[ $2 == 1 ]]; then # cut anew, of what is finished by now
        rm -rf "$HOME_THERE/pieces"
        mkdir "$HOME_THERE/pieces"
        (cd "$HOME_THERE/run" && tar -c manifest.json $(for done in */manifest.json; do dirname "$done"; done | grep -Ev '^(base|data)-')) |
            split -b 15M - "$HOME_THERE/pieces/piece-"
    fi
    pieces=("$HOME_THERE"/pieces/*)
    echo "${#pieces[@]} pieces"
    cp "${pieces[@]:$((($2 - 1) * 4)):4}" "$folder/"
}

merge() { # ROOT PIECE...
    local root=$1
    mkdir -p "$root"
    cat "${@:2}" | tar -C "$root" -x
    ls "$root"
}

case ${1:-} in
    packages | pack | receive | unpack | start | send | merge) "$@" ;;
    wait) wait_for "$2" ;;
    *)
        sed -n '2,15s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
