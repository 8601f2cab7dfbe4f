//! What the machine tells of itself: its address, temperature, disk, and who reset it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use super::file::read_small;

/// The machine's own address on the way to `target`, or to the world; nothing is sent. `None` without a way.
pub fn own_address(target: Option<IpAddr>) -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): they are behind the default route, like the world.
    let world = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
    target.into_iter().chain(world).find_map(|target| {
        let any = match target {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(target, 9)).ok()?;
        let own = socket.local_addr().ok()?.ip();
        (!own.is_unspecified()).then_some(own)
    })
}

/// The processor's temperature in °C: the zone that says it is about the processor, else the first. `None` without a
/// sensor.
pub fn temperature() -> Option<i32> {
    temperature_in(Path::new("/sys/class/thermal"))
}

fn temperature_in(folder: &Path) -> Option<i32> {
    let word = |path: &Path| String::from_utf8(read_small(path, 64).ok()?).ok().map(|text| text.trim().to_lowercase());
    let mut zones: Vec<_> = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    zones.retain(|zone| zone.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thermal_zone")));
    zones.sort();
    let of_processor = |zone: &&std::path::PathBuf| {
        let kind = word(&zone.join("type")).unwrap_or_default();
        ["cpu", "soc", "pkg", "core"].iter().any(|name| kind.contains(name))
    };
    let mut best = zones.iter().filter(of_processor).chain(&zones);
    best.find_map(|zone| Some(word(&zone.join("temp"))?.parse::<i32>().ok()? / 1000))
}

/// The whole number in a file of the kernel, such as a converter's count.
///
/// # Errors
/// A sentence that names the file.
pub fn count_in(path: &Path) -> Result<i64, String> {
    let text = read_small(path, 64).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| format!("{} holds no whole number", path.display()))
}

/// What is free for weir, and the size of the file system at `path`, in bytes.
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let told = rustix::fs::statvfs(path).ok()?;
    Some((told.f_bavail.saturating_mul(told.f_frsize), told.f_blocks.saturating_mul(told.f_frsize)))
}

/// Why nothing can be written at `path`, as far as the system tells without a try.
pub fn refuses(path: &Path) -> Option<&'static str> {
    let told = rustix::fs::statvfs(path).ok()?;
    let read_only = told.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    refusal(read_only, told.f_bavail, told.f_blocks)
}

/// A file system without a size has no end of it either.
const fn refusal(read_only: bool, free: u64, all: u64) -> Option<&'static str> {
    match (read_only, free, all) {
        (true, ..) => Some("the file system is read-only"),
        (false, 0, 1..) => Some("the disk is full"),
        (false, ..) => None,
    }
}

/// Whether a hardware watchdog says that it started this boot (`WDIOF_CARDRESET`).
pub fn reset_by_watchdog() -> bool {
    const CARD_RESET: u32 = 0x20;
    let Ok(dogs) = fs::read_dir("/sys/class/watchdog") else { return false };
    dogs.flatten().any(|dog| {
        let told = read_small(&dog.path().join("bootstatus"), 64).ok().and_then(|text| String::from_utf8(text).ok());
        told.and_then(|text| text.trim().parse::<u32>().ok()).is_some_and(|bits| bits & CARD_RESET != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_neighbour_begins_at_an_own_address() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(own_address(Some(here)), Some(here));
    }

    #[test]
    fn a_count_is_a_whole_number_or_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in_voltage0_raw");
        assert!(count_in(&file).unwrap_err().contains("in_voltage0_raw can't be read"));
        for (text, count) in [("4095\n", Some(4095)), ("-12\n", Some(-12)), ("\n", None), ("1.5\n", None)] {
            fs::write(&file, text).unwrap();
            assert_eq!(count_in(&file).ok(), count, "{text:?}");
        }
    }

    #[test]
    fn the_processors_zone_is_preferred() {
        let folder = tempfile::tempdir().unwrap();
        for (zone, kind, temperature) in
            [("thermal_zone0", "battery", "21000"), ("thermal_zone1", "cpu-thermal", "48700")]
        {
            fs::create_dir(folder.path().join(zone)).unwrap();
            fs::write(folder.path().join(zone).join("type"), kind).unwrap();
            fs::write(folder.path().join(zone).join("temp"), temperature).unwrap();
        }
        assert_eq!(temperature_in(folder.path()), Some(48));
        fs::remove_dir_all(folder.path().join("thermal_zone1")).unwrap();
        assert_eq!(temperature_in(folder.path()), Some(21));
        assert_eq!(temperature_in(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_disk_has_a_size() {
        let (free, total) = disk(Path::new("/")).unwrap();
        assert!(free <= total && total > 0);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refuses(folder.path()), None);
        let told =
            [(true, 5, 9), (false, 0, 9), (false, 0, 0), (false, 1, 9)].map(|(ro, free, all)| refusal(ro, free, all));
        assert_eq!(told, [Some("the file system is read-only"), Some("the disk is full"), None, None]);
    }
}
