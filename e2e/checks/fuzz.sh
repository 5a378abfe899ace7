#!/usr/bin/env bash
# fuzz.sh [SECONDS]: every fuzz target for that long (default 60), with the
# project's own compiler: coverage is the code generator's pass, the fuzzer is
# libFuzzer. What it finds is in target/fuzz/<target>/.
#
#   fuzz.sh locks: only whether the lock files of the targets are those of the crates
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
crates="node-agent/ipvs node-agent"
if [ "${1:-}" = locks ]; then
    for crate in $crates; do cargo metadata --format-version 1 --locked --manifest-path "$crate/fuzz/Cargo.toml" >/dev/null; done
    exit
fi
seconds="${1:-60}"
target=x86_64-unknown-linux-gnu
command -v c++ >/dev/null || { echo "fuzz: c++ is missing (builds libFuzzer): apt-get install g++" >&2 && exit 3; }
coverage="-Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing"
for argument in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=" -Cllvm-args=-sanitizer-coverage-$argument"
done
for crate in $crates; do
    echo "fuzz: building the targets of $crate (1 min cold)"
    CARGO_TARGET_DIR=target/fuzz RUSTFLAGS="$coverage" cargo build --quiet --release --locked --target "$target" --manifest-path "$crate/fuzz/Cargo.toml"
    for source in "$crate"/fuzz/fuzz_targets/*.rs; do
        name="$(basename "$source" .rs)"
        mkdir -p "target/fuzz/$name/corpus"
        echo "fuzz: $name for $seconds s"
        "target/fuzz/$target/release/$name" -max_total_time="$seconds" -artifact_prefix="target/fuzz/$name/" -print_final_stats=1 \
            "target/fuzz/$name/corpus" >"target/fuzz/$name/log" 2>&1 || { tail -n 20 "target/fuzz/$name/log" && exit 1; }
        grep -E 'number_of_executed_units|new_units_added' "target/fuzz/$name/log"
    done
done
