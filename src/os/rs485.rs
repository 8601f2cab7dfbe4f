//! RS485 direction by the kernel: the TIOCSRS485 request of `linux/serial.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::line::Turnaround;

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
const RTS_AFTER_SEND: u32 = 1 << 2;

/// What the kernel is told. The two levels of RTS always differ: it puts its own in place of equal ones.
fn request(turnaround: Turnaround) -> SerialRs485 {
    let millis = |delay: Duration| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
    SerialRs485 {
        flags: ENABLED | if turnaround.high_on_send { RTS_ON_SEND } else { RTS_AFTER_SEND },
        delay_rts_before_send: millis(turnaround.before),
        delay_rts_after_send: millis(turnaround.after),
        padding: [0; 5],
    }
}

/// Asks the kernel to drive the direction line.
///
/// # Errors
/// The system's error; `ENOTTY` or `EINVAL` when the driver can't do it.
#[expect(unsafe_code, reason = "no safe crate offers TIOCSRS485; the kernel only reads the 32 bytes given to it")]
pub(super) fn enable(device: &impl AsRawFd, turnaround: Turnaround) -> io::Result<()> {
    let request = request(turnaround);
    // SAFETY: `device` keeps its descriptor open for the call. TIOCSRS485 copies one `struct
    // serial_rs485` from the pointer, which `Setter` keeps alive; the layout is the kernel's.
    unsafe {
        let device = BorrowedFd::borrow_raw(device.as_raw_fd());
        let setter = rustix::ioctl::Setter::<TIOCSRS485, SerialRs485>::new(request);
        rustix::ioctl::ioctl(device, setter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_the_levels_and_delays_of_the_direction_wire() {
        let low =
            Turnaround { high_on_send: false, before: Duration::from_millis(2), after: Duration::from_micros(3900) };
        let told = request(low);
        assert_eq!((told.flags, told.delay_rts_before_send, told.delay_rts_after_send), (0b101, 2, 3));
        assert_eq!(request(Turnaround::default()).flags, 0b011);
        assert_eq!(size_of::<SerialRs485>(), 32);
    }
}
