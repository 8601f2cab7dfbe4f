#!/usr/bin/env bash
# Installs what the cross builds need on Debian 12: `cross/setup.sh [TARGET ...]`, all when none is
# named. Run again, it does nothing.
set -euo pipefail
. "$(dirname "$0")/settings.sh"

# Debian's Rust with its source: the standard library is built from it, since no other toolchain's
# can be fetched here. `rustc-web` is the newer one that Debian keeps for browsers.
packages=(rustc-web cargo-web rust-web-src gcc libc6-dev python3 python3-venv qemu-user-static)
musl=no
for target in "${@:-all}"; do
    case $target in
        aarch64-*-gnu) packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
        armv7-*-gnueabihf) packages+=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross) ;;
        *-musl*) musl=yes ;;
        all)
            packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross)
            musl=yes
            ;;
        *) die "no compiler is known for $target; add it to cross/setup.sh and cross/build.sh" ;;
    esac
done

"$root/tests/install" "${packages[@]}"

# zig is the C compiler and linker that knows musl; cargo-zigbuild puts it in cargo's hands.
if [ "$musl" = yes ] && ! [ -x "$cache/zig/bin/cargo-zigbuild" ]; then
    say "installing zig and cargo-zigbuild into $cache/zig"
    python3 -m venv "$cache/zig"
    "$cache/zig/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.0
fi
