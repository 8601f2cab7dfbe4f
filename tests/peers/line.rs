//! The far end of a serial line: what hangs on it hears and says.

use rand::{RngExt, SeedableRng};
use tokio::time::timeout;
use weir::os::pty::Pty;

use super::broker::LIMIT;

/// Reads so many bytes.
pub async fn read(pty: &mut Pty, count: usize) -> Vec<u8> {
    until(pty, |bytes| bytes.len() >= count).await
}

/// Reads until it ends with `end`.
pub async fn heard(pty: &mut Pty, end: &str) -> String {
    String::from_utf8(until(pty, |bytes| bytes.ends_with(end.as_bytes())).await).unwrap()
}

async fn until(pty: &mut Pty, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let all = async {
        while !enough(&bytes) {
            let more = pty.receive(&mut buffer).await.unwrap();
            bytes.extend_from_slice(&buffer[..more]);
        }
    };
    let came = timeout(LIMIT, all).await;
    assert!(came.is_ok(), "the line brought only {:?}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Bytes that are the same in every run.
pub fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}
