//! What the kernel says about its wall clock: the state that `adjtimex` reads.

use std::io;
use std::mem::MaybeUninit;

/// Tells whether an NTP client keeps the kernel's clock synchronised: neither `TIME_ERROR` nor
/// `STA_UNSYNC` (adjtimex(2)). The kernel itself forgets it when the clock is set by hand, and
/// when no client has corrected it for some hours.
///
/// # Errors
/// The system's error: a sandbox may refuse the call.
#[expect(
    unsafe_code,
    reason = "no safe crate reads the kernel's NTP state; the call only fills the struct given to it"
)]
pub(super) fn is_synchronised() -> io::Result<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the pointer is valid and writable for one `struct timex`, of which all zeros is a
    // value; its `modes` of 0 ask to change nothing. The kernel writes plain numbers into it.
    let (answer, state) = unsafe { (libc::adjtimex(state.as_mut_ptr()), state.assume_init()) };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        libc::TIME_ERROR => Ok(false),
        _ => Ok(state.status & libc::STA_UNSYNC == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_one_way_or_the_other() {
        // The same as the machine's own tool would say; which of the two is the machine's affair.
        assert!(is_synchronised().is_ok());
    }
}
