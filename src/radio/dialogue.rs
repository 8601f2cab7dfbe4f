//! Asking a receiver something while it goes on telling what it hears.
//!
//! Invariants: every wait has an end, however much comes; what comes while an answer is awaited goes to
//! whoever reads the stream, never to the floor.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::source::Open;
use crate::os::line::{LineError, Speed};

/// When nothing came for so long, whoever reads is told: what is incomplete then will hardly be completed.
const GAP: Duration = Duration::from_millis(200);
/// No receiver says more than this while it is asked something; a babbler must not fill the memory.
const MOST: usize = 64 * 1024;

/// Sends `request`, then gives what comes to `feed` until it returns something or `patience` is over. After a
/// gap in what comes, or when patience is over, `feed` gets an empty slice once: what is incomplete is given up.
/// With an empty request it only listens. `None`: nothing was returned.
///
/// # Errors
/// One sentence when the line is gone, or when the source is a program, which can't be told anything.
pub(super) async fn ask<T>(
    open: &mut Open,
    request: &[u8],
    patience: Duration,
    mut feed: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Option<T>, String> {
    tell(open, request).await?;
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 1024];
    let (mut came, mut fed_gap) = (0, true);
    while came < MOST && Instant::now() < deadline {
        let until = if fed_gap { deadline } else { deadline.min(Instant::now() + GAP) };
        let found = match timeout_at(until, open.read(&mut buffer)).await {
            Err(_elapsed) if fed_gap => return Ok(None),
            Err(_elapsed) => {
                fed_gap = true;
                feed(&[])
            }
            Ok(Err(error)) => return Err(format!("reading failed: {error}")),
            Ok(Ok(0)) => return Err("the other side closed the line".to_owned()),
            Ok(Ok(count)) => {
                fed_gap = false;
                came += count;
                feed(buffer.get(..count).unwrap_or_default())
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(if fed_gap { None } else { feed(&[]) })
}

/// Sends `bytes` and waits until they left; nothing is sent when there are none.
///
/// # Errors
/// One sentence when the line is gone or takes nothing, or when the source is a program.
pub(super) async fn tell(open: &mut Open, bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let line = open.line().ok_or(
        "this kind of receiver must be told what to do, which a program can't be; set device instead of command",
    )?;
    line.send(bytes).await.map_err(|error| match error {
        LineError::Silent(_) => "the line takes no bytes; unplug the receiver and plug it in again".to_owned(),
        error => error.to_string(),
    })
}

/// Changes the speed of a serial line; `false` when it has none that weir can change (TCP, a program) or refuses.
pub(super) fn set_baud(open: &mut Open, baud: u32) -> bool {
    open.line().is_some_and(|line| {
        let speed = Speed { baud, ..line.speed() };
        !line.is_tcp() && line.set_speed(speed).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::os::child::Child;
    use crate::os::line::{Direction, Endpoint, Framing, Line};

    async fn pair() -> (Open, tokio::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("tcp://{}", listener.local_addr().unwrap()));
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        let line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
        (Open::Line(line), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn the_answer_is_found_among_what_else_comes_and_nothing_of_it_is_lost() {
        let (mut open, mut peer) = pair().await;
        let receiver = tokio::spawn(async move {
            let mut request = [0; 3];
            peer.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"who");
            peer.write_all(b"heardme").await.unwrap();
            peer
        });
        let mut all = Vec::new();
        let answer = ask(&mut open, b"who", Duration::from_secs(20), |bytes| {
            all.extend_from_slice(bytes);
            all.ends_with(b"me").then_some(7)
        });
        assert_eq!(answer.await, Ok(Some(7)));
        assert_eq!(all, b"heardme");
        drop(receiver.await.unwrap());
        let gone = ask(&mut open, b"", Duration::from_secs(20), |_| None::<()>).await;
        assert!(gone.unwrap_err().contains("closed"));
    }

    #[tokio::test]
    async fn a_gap_and_the_end_of_patience_are_told_once_each_burst() {
        let (mut open, mut peer) = pair().await;
        peer.write_all(b"half").await.unwrap();
        let mut told = Vec::new();
        let answer = ask(&mut open, b"", Duration::from_millis(600), |bytes| {
            told.push(bytes.len());
            None::<()>
        });
        assert_eq!(answer.await, Ok(None));
        assert_eq!(told, [4, 0]);
    }

    #[tokio::test]
    async fn a_babbler_ends_the_wait_and_a_program_is_refused() {
        let (mut open, mut peer) = pair().await;
        let babble = tokio::spawn(async move { while peer.write_all(&[0xA5; 4096]).await.is_ok() {} });
        let mut came = 0;
        let answer = ask(&mut open, b"x", Duration::from_secs(3600), |bytes| {
            came += bytes.len();
            None::<()>
        });
        assert_eq!(answer.await, Ok(None));
        assert!((MOST..MOST + 1024).contains(&came), "{came}");
        drop(open);
        babble.await.unwrap();
        let mut open = Open::Child(Child::spawn(&["cat".to_owned()]).unwrap());
        assert!(tell(&mut open, b"x").await.unwrap_err().contains("set device"));
        assert!(!set_baud(&mut open, 9600));
    }
}
