#!/usr/bin/env bash
# Builds the firmware of a board and holds it to the board's size budget:
#   cross/build.sh BOARD [TARGET]
# The standard library is built from source (Debian's rust-web-src), so that a target needs no
# ready-made one. The path of the binary is the last line printed.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
[ $# -ge 1 ] || die "usage: cross/build.sh BOARD [TARGET]"
board=$1
target=$(target_of "$board" "${2:-}")

"$root/cross/setup.sh" "$target"
cd "$root"

# Cargo accepts -Z build-std only from a nightly or with this; it asks for nothing else unstable.
export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
# The builder's own flags are for the builder's own machine.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTUP_TOOLCHAIN
# A library of panics for each way the profile may choose.
if sed -n '/^\[profile\.firmware\]/,/^\[/p' Cargo.toml | grep -q '^panic *= *"abort"'; then
    std=std,panic_abort
    # Nobody walks the stack of a firmware that aborts: a panic tells its place and ends. The tables for it are a sixth of the binary.
    flags="-C force-unwind-tables=no"
else
    std=std,panic_unwind
    flags=
fi
arguments=(--target "$target" -Z "build-std=$std" --profile firmware --no-default-features --locked --bin weir)

# cargo and the cc crate each read a target's tools from variables of its name.
with_gcc() {
    local small=${target//-/_}
    local large=${small^^}
    env "RUSTFLAGS=$flags" "CC_$small=$1-gcc" "AR_$small=$1-ar" "CARGO_TARGET_${large}_LINKER=$1-gcc" \
        /usr/bin/cargo build "${arguments[@]}"
}

started=$SECONDS
case $target in
    aarch64-*-gnu) with_gcc aarch64-linux-gnu ;;
    armv7-*-gnueabihf)
        # Thumb-2, as Debian's gcc for armv7 does: every ARMv7-A runs it, in three quarters of the size.
        flags+=" -C target-feature=+thumb-mode"
        with_gcc arm-linux-gnueabihf
        ;;
    *-musl*)
        # zig brings its own start files and C library; Debian's rustc has none of musl's.
        RUSTFLAGS="$flags -C link-self-contained=no -C target-feature=+crt-static" PATH="$cache/zig/bin:$PATH" \
            "$cache/zig/bin/cargo-zigbuild" zigbuild "${arguments[@]}"
        ;;
    *) die "no compiler is known for $target; add it to cross/setup.sh and cross/build.sh" ;;
esac

binary=$(binary_of "$target")
say "$board: built for $target in $((SECONDS - started)) s"
hold_to_budget "$board" "$binary"
printf '%s\n' "$binary"
