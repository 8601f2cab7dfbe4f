//! Waits for a device that is not there, by its name, with inotify: no busy loop.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Watches the deepest folder on the way to a device that exists, for the next name on that way.
#[derive(Debug)]
pub struct Arrival {
    watch: AsyncFd<OwnedFd>,
    name: Vec<u8>,
}

impl Arrival {
    /// Watches for `path`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error, for instance when there are no more watches.
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let mut missing = path;
        let folder = loop {
            let parent = missing.parent().ok_or(io::ErrorKind::NotFound)?;
            if parent.is_dir() {
                break parent;
            }
            missing = parent;
        };
        let name = missing.file_name().ok_or(io::ErrorKind::InvalidInput)?.as_bytes().to_vec();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let came = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&watch, folder, came | inotify::WatchFlags::DELETE_SELF)?;
        #[expect(deprecated, reason = "only a type whose descriptor changes makes it unsound; an OwnedFd's does not")]
        let watch = AsyncFd::new(watch)?;
        Ok(Self { watch, name })
    }

    /// Waits until something on the way to the device came or changed its rights, or the folder
    /// went; also returns when the kernel can't tell any more. May be dropped at any moment.
    pub async fn come(&mut self) {
        loop {
            let Ok(mut ready) = self.watch.readable().await else { return };
            match ready.try_io(|watch| self.name_is_among(watch)) {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true) | Err(_)) => return,
            }
        }
    }

    fn name_is_among(&self, watch: &AsyncFd<OwnedFd>) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(watch.get_ref(), &mut buffer);
        loop {
            let event = events.next()?;
            if event.file_name().is_none_or(|name| name.to_bytes() == self.name) {
                return Ok(true);
            }
            if events.is_buffer_empty() {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_device_is_waited_for_folder_by_folder() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("serial/by-id/usb-adapter");
        let mut arrival = Arrival::of(&link).unwrap();
        std::fs::write(root.path().join("other"), "").unwrap();
        timeout(Duration::from_millis(50), arrival.come()).await.expect_err("another device came");
        std::fs::create_dir_all(root.path().join("serial/by-id")).unwrap();
        timeout(Duration::from_secs(60), arrival.come()).await.expect("its folder came");
        let mut arrival = Arrival::of(&link).unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        timeout(Duration::from_secs(60), arrival.come()).await.expect("it came");
        let mut arrival = Arrival::of(&link).unwrap();
        std::fs::remove_dir_all(root.path().join("serial/by-id")).unwrap();
        timeout(Duration::from_secs(60), arrival.come()).await.expect("its folder went");
    }
}
