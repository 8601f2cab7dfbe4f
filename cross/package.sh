#!/usr/bin/env bash
# Packs what an installer unpacks on a board: cross/package.sh BOARD [TARGET]   (build.sh first)
#   tar -C / --no-overwrite-dir -xzf weir-VERSION-BOARD.tar.gz
#   systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
#   cp /etc/weir/weir.toml.example /etc/weir/weir.toml   # edit it, then: weir check
#   systemctl enable --now weir
set -euo pipefail
. "$(dirname "$0")/settings.sh"
[ $# -ge 1 ] || die "usage: cross/package.sh BOARD [TARGET]"
board=$1
target=$(target_of "$board" "${2:-}")
binary=$(binary_of "$target")
[ -x "$binary" ] || die "no firmware at $binary; run cross/build.sh $board $target first"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
put() { install -D -m "$1" "$2" "$stage/$3"; }
put 755 "$binary" usr/bin/weir
put 644 "$root/systemd/weir.service" usr/lib/systemd/system/weir.service
put 644 "$root/systemd/weir.sysusers" usr/lib/sysusers.d/weir.conf
put 644 "$root/systemd/weir.tmpfiles" usr/lib/tmpfiles.d/weir.conf
put 644 "$root/systemd/clock.conf" usr/share/doc/weir/clock.conf
put 644 "$root/boards/$board.toml" "usr/share/doc/weir/boards/$board.toml"
put 644 "$root/LICENSE-MIT" usr/share/doc/weir/LICENSE-MIT
put 644 "$root/LICENSE-APACHE" usr/share/doc/weir/LICENSE-APACHE
sed "s/@BOARD@/$board/" "$root/cross/weir.toml" >"$stage/example"
put 644 "$stage/example" etc/weir/weir.toml.example
rm "$stage/example"

package=$root/dist/weir-$version-$board.tar.gz
mkdir -p "$root/dist"
# The same content gives the same file: names sorted, owners and times fixed by the last commit.
time=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)
find "$stage" -mindepth 1 -type d -exec chmod 755 {} +
(cd "$stage" && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" --use-compress-program='gzip -9n' -cf "$package" -- *)
printf '%s\n' "$package"
