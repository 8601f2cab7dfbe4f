#!/usr/bin/env bash
# Packs what an installer unpacks on a board: cross/package.sh BOARD [TARGET]   (build.sh first)
#   tar -C / --no-overwrite-dir -xzf weir-VERSION-BOARD.tar.gz
#   systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && sysctl --system
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
put 755 "$root/systemd/helper" usr/lib/weir/helper
for unit in weir-request.path weir-request.service weir-trial.service; do
    put 644 "$root/systemd/$unit" "usr/lib/systemd/system/$unit"
done
put 644 "$root/systemd/weir-helper.tmpfiles" usr/lib/tmpfiles.d/weir-helper.conf
put 644 "$root/systemd/weir-ping.sysctl" usr/lib/sysctl.d/60-weir-ping.conf
for drop_in in clock hardware-watchdog gpio; do
    put 644 "$root/systemd/$drop_in.conf" "usr/share/doc/weir/$drop_in.conf"
done
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
