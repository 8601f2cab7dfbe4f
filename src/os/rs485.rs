//! RS485 direction by the kernel: the TIOCSRS485 request of `linux/serial.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct serial_rs485`, 32 bytes.
#[repr(C)]
struct SerialRs485 {
    flags: u32,
    delay_rts_before_send: u32,
    delay_rts_after_send: u32,
    padding: [u32; 5],
}

const TIOCSRS485: rustix::ioctl::Opcode = 0x542F;
const ENABLED: u32 = 1;
const RTS_ON_SEND: u32 = 1 << 1;

/// Asks the kernel to drive the direction line: RTS on while sending, off after.
///
/// # Errors
/// The system's error; `ENOTTY` or `EINVAL` when the driver can't do it.
#[expect(unsafe_code, reason = "no safe crate offers TIOCSRS485; the kernel only reads the 32 bytes given to it")]
pub(super) fn enable(device: &impl AsRawFd) -> io::Result<()> {
    let request = SerialRs485 {
        flags: ENABLED | RTS_ON_SEND,
        delay_rts_before_send: 0,
        delay_rts_after_send: 0,
        padding: [0; 5],
    };
    // SAFETY: `device` keeps its descriptor open for the call. TIOCSRS485 copies one `struct
    // serial_rs485` from the pointer, which `Setter` keeps alive; the layout is the kernel's.
    unsafe {
        let device = BorrowedFd::borrow_raw(device.as_raw_fd());
        let setter = rustix::ioctl::Setter::<TIOCSRS485, SerialRs485>::new(request);
        rustix::ioctl::ioctl(device, setter)?;
    }
    Ok(())
}
