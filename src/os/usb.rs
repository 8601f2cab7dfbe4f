//! Takes a USB device off its bus and puts it back, as unplugging does: through sysfs, for the device that a serial port
//! belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Why a device was not reset.
#[derive(Debug, thiserror::Error)]
pub enum UsbError {
    /// The user or the unit may not write there.
    #[error(
        "weir may not write {}; let it (docs/radio.md, \"A receiver that falls silent\", has the udev rule and the drop-in)", .0.display()
    )]
    NotPermitted(PathBuf),
    /// The system refused otherwise.
    #[error("cannot write {}: {reason}; plug the device out and in by hand", file.display())]
    Failed {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// A device on a USB bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    folder: PathBuf,
}

/// How a device is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The kernel lets go of it and takes it again (`authorized`); its power stays.
    Authorized,
    /// The hub switches the power of its port (`port/disable`, Linux 6.0 and later), where the hub can; otherwise as
    /// [`Reset::Authorized`].
    Power,
}

/// Attempts to put a device back, one each time it was off: an error there must not leave it off.
const ATTEMPTS: u32 = 5;

impl Device {
    /// Finds the device behind a serial port such as `/dev/serial/by-id/usb-...`; `sys` is where sysfs is. `None` when
    /// the port is not there or on no USB bus.
    pub fn of(sys: &Path, port: &Path) -> Option<Self> {
        let port = fs::canonicalize(port).ok()?;
        let interface = fs::canonicalize(sys.join("class/tty").join(port.file_name()?).join("device")).ok()?;
        // A hub and a bus have these files too: the nearest that has them is the device itself.
        let folder =
            interface.ancestors().find(|folder| folder.join("idVendor").exists() && folder.join("authorized").exists());
        folder.map(|folder| Self { folder: folder.to_owned() })
    }

    /// Where it hangs, as the kernel names it: `1-1.4`.
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Takes it off for so long and puts it back; returns then. Blocks the thread that calls it.
    ///
    /// # Errors
    /// [`UsbError`]; a device that was taken off was put back, or that was tried again and again.
    pub fn reset(&self, how: Reset, off: Duration) -> Result<(), UsbError> {
        // The link is gone with the device, so it is followed before.
        let port = fs::canonicalize(self.folder.join("port")).ok().map(|port| port.join("disable"));
        match port.filter(|file| how == Reset::Power && file.exists()) {
            Some(file) => switch(&file, ("1", "0"), off),
            None => switch(&self.folder.join("authorized"), ("0", "1"), off),
        }
    }
}

fn switch(file: &Path, (off, on): (&str, &str), time: Duration) -> Result<(), UsbError> {
    write(file, off)?;
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        thread::sleep(time);
        result = write(file, on);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn write(file: &Path, text: &str) -> Result<(), UsbError> {
    // Never made: what is not there can't be switched.
    let written =
        fs::OpenOptions::new().write(true).open(file).and_then(|mut f| io::Write::write_all(&mut f, text.as_bytes()));
    written.map_err(|reason| match reason.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => UsbError::NotPermitted(file.to_owned()),
        _ => UsbError::Failed { file: file.to_owned(), reason },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const OFF: Duration = Duration::from_millis(1);

    /// A sysfs with one adapter at port 4 of a hub, and its device file.
    fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        let hub = sys.join("devices/pci/usb1/1-1");
        let device = hub.join("1-1.4");
        let tty = device.join("1-1.4:1.0/ttyUSB0");
        let port = hub.join("1-1:1.0/1-1-port4");
        for folder in [&tty, &port, &sys.join("class/tty/ttyUSB0"), &root.path().join("dev/by-id")] {
            fs::create_dir_all(folder).unwrap();
        }
        for folder in [&device, &hub] {
            fs::write(folder.join("idVendor"), "10c4\n").unwrap();
            fs::write(folder.join("authorized"), "1\n").unwrap();
        }
        symlink(&tty, sys.join("class/tty/ttyUSB0/device")).unwrap();
        symlink(&port, device.join("port")).unwrap();
        fs::write(root.path().join("dev/ttyUSB0"), "").unwrap();
        let name = root.path().join("dev/by-id/usb-stick");
        symlink(root.path().join("dev/ttyUSB0"), &name).unwrap();
        (root, sys, name)
    }

    #[test]
    fn the_device_behind_a_port_is_found_by_its_stable_name_and_not_its_hub() {
        let (root, sys, name) = tree();
        let device = Device::of(&sys, &name).unwrap();
        assert_eq!(device.name(), "1-1.4");
        assert_eq!(Device::of(&sys, &root.path().join("dev/ttyUSB1")), None);
        fs::write(root.path().join("dev/ttyS0"), "").unwrap();
        assert_eq!(Device::of(&sys, &root.path().join("dev/ttyS0")), None);
    }

    #[test]
    fn a_reset_ends_with_the_device_on_by_its_port_where_there_is_one() {
        let (_root, sys, name) = tree();
        let device = Device::of(&sys, &name).unwrap();
        let authorized = device.folder.join("authorized");
        fs::write(&authorized, "").unwrap();
        device.reset(Reset::Authorized, OFF).unwrap();
        assert_eq!(fs::read_to_string(&authorized).unwrap(), "1");
        // Without the port's switch power means the same.
        fs::write(&authorized, "").unwrap();
        device.reset(Reset::Power, OFF).unwrap();
        assert_eq!(fs::read_to_string(&authorized).unwrap(), "1");
        fs::write(&authorized, "").unwrap();
        let disable = device.folder.join("port/disable");
        fs::write(&disable, "").unwrap();
        device.reset(Reset::Power, OFF).unwrap();
        assert_eq!(
            (fs::read_to_string(&disable).unwrap().as_str(), fs::read_to_string(&authorized).unwrap().as_str()),
            ("0", "")
        );
    }

    #[test]
    fn a_refusal_names_the_file_and_what_to_do() {
        let (_root, sys, name) = tree();
        let device = Device::of(&sys, &name).unwrap();
        let authorized = device.folder.join("authorized");
        fs::remove_file(&authorized).unwrap();
        let error = device.reset(Reset::Authorized, OFF).unwrap_err();
        assert!(error.to_string().contains("authorized") && error.to_string().contains("by hand"), "{error}");
        assert!(!authorized.exists());
        let error = UsbError::NotPermitted(authorized).to_string();
        assert!(error.contains("docs/radio.md"), "{error}");
    }
}
