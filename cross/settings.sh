# Sourced by the scripts beside it: where things are, and what a board's file says.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export CARGO_TARGET_DIR=${WEIR_CROSS_TARGET:-$root/target-cross}
# What is downloaded once for all checkouts: zig, the kernel of the boot test.
# shellcheck disable=SC2034 # the scripts use it
cache=${WEIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir}

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# board_says BOARD KEY: a value of boards/BOARD.toml; lists come one element a line, sizes in bytes.
board_says() {
    local file=$root/boards/$1.toml
    [ -f "$file" ] || die "there is no board '$1'; known are: $(cd "$root/boards" && echo *.toml | sed 's/\.toml//g')"
    python3 - "$file" "$2" <<'PYTHON'
import re, sys, tomllib
value = tomllib.load(open(sys.argv[1], "rb")).get(sys.argv[2], "")
units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "kB": 1000, "MB": 1000000}
if sys.argv[2] == "size_budget":
    number, unit = re.fullmatch(r"(\d+) ?(\w+)", value or "6MiB").groups()
    value = int(number) * units[unit]
print("\n".join(value) if isinstance(value, list) else value)
PYTHON
}

# target_of BOARD [TARGET]: the target to build, the board's first unless another of its own is named.
target_of() {
    local targets
    targets=$(board_says "$1" targets) || exit 1
    if [ -z "${2:-}" ]; then
        head -n 1 <<<"$targets"
    elif grep -qxF -- "$2" <<<"$targets"; then
        printf '%s\n' "$2"
    else
        die "board $1 does not run $2; its targets are: $(tr '\n' ' ' <<<"$targets")"
    fi
}

# binary_of TARGET: where build.sh leaves the firmware.
binary_of() { printf '%s\n' "$CARGO_TARGET_DIR/$1/firmware/weir"; }

# hold_to_budget BOARD BINARY: fails when the binary is larger than the board's size_budget.
hold_to_budget() {
    local budget size
    budget=$(board_says "$1" size_budget) || exit 1
    size=$(stat --format %s "$2") || exit 1
    [ "$size" -le "$budget" ] || die "the firmware is $((size - budget)) bytes above the size_budget of boards/$1.toml"
    say "$1: $size bytes of $budget"
}

# emulator_of TARGET: runs a binary of that target here.
emulator_of() {
    case $1 in
        aarch64-*) echo qemu-aarch64-static ;;
        arm*) echo qemu-arm-static ;;
        *) die "no emulator is known for $1; add it to cross/settings.sh" ;;
    esac
}

# sysroot_of TARGET: where qemu finds the C library of a binary that is not static.
sysroot_of() {
    case $1 in
        aarch64-*-gnu) echo /usr/aarch64-linux-gnu ;;
        armv7-*-gnueabihf) echo /usr/arm-linux-gnueabihf ;;
        *-musl*) echo / ;;
        *) die "no C library is known for $1; add it to cross/settings.sh" ;;
    esac
}
