//! Fetches a file by HTTPS, through the one TLS door.
//!
//! A plain GET of HTTP/1.1 (RFC 9112) with what a firmware needs: the length must be told, redirects are refused (the platform
//! names the file it means), nothing is kept in memory but a piece.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::door::secured;
use super::tally::Tally;
use super::{TlsFiles, Traffic};
use crate::os::clock::Clock;

/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// A server that sends less in [`SILENCE`] is given up, too: nobody would wait for the end.
const LEAST: u64 = 16 << 10;
/// A file takes at most so long: 24 MiB at some 60 kbit/s.
const LONGEST: Duration = Duration::from_hours(1);
/// The head of an answer is never longer.
const LARGEST_HEAD: usize = 16 << 10;
const PIECE: usize = 16 << 10;

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads `https://host[:port]/path`.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "write the address as https://host/path".to_owned();
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        if text.len() > 2000 || !text.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['@', '#', '\\']) {
            return Err(wrong());
        }
        let (place, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(443), |port| port.parse().ok().filter(|port| *port > 0)).ok_or_else(wrong)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host: host.to_owned(), port, path }) }
    }

    fn request(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let host = if self.port == 443 { host } else { format!("{host}:{}", self.port) };
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weir/{version}\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n",
            self.path
        )
    }
}

/// Fetches a file of at most `limit` bytes, and gives it piece by piece to `give`; returns its length. It counts as traffic.
///
/// # Errors
/// One sentence; also when nobody takes the pieces any more.
pub async fn fetch(
    url: &Url,
    (files, clock, traffic): (&TlsFiles, &Clock, &Traffic),
    limit: u64,
    give: mpsc::Sender<Vec<u8>>,
) -> Result<u64, String> {
    let tally = traffic.tally();
    let whole = async {
        let connected = timeout(SILENCE, TcpStream::connect((url.host.as_str(), url.port))).await;
        let unreachable = |why: String| format!("{} can't be reached: {why}", url.host);
        let stream = connected
            .map_err(|_| unreachable("no answer in 60 s".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let mut stream = timeout(SILENCE, secured(stream, &url.host, (files, clock)))
            .await
            .map_err(|_| unreachable("TLS took longer than 60 s".into()))??;
        let request = url.request();
        tally.asked(request.len());
        stream.write_all(request.as_bytes()).await.map_err(|error| unreachable(error.to_string()))?;
        receive((&mut stream, &tally), limit, &give).await
    };
    timeout(LONGEST, whole).await.unwrap_or_else(|_| Err("it took longer than an hour and was given up".to_owned()))
}

/// Receives an answer: its head, then as many bytes as it tells.
async fn receive(
    (stream, tally): (&mut (impl AsyncRead + Unpin), &Tally),
    limit: u64,
    out: &mpsc::Sender<Vec<u8>>,
) -> Result<u64, String> {
    let mut buffer = vec![0; PIECE];
    let begun = timeout(SILENCE, head((stream, tally), &mut buffer)).await;
    let (length, early) = begun.map_err(|_| "the server did not answer in 60 s".to_owned())??;
    if length > limit {
        return Err(format!("the file has {length} bytes, more than the {limit} that this board has room for"));
    }
    let mut left = length;
    give(&early, &mut left, out).await?;
    let mut minute = (Instant::now(), left);
    while left > 0 {
        if minute.0.elapsed() >= SILENCE {
            if minute.1 - left < LEAST {
                return Err(format!("the server sent less than 16 KiB in a minute; {left} of {length} bytes are left"));
            }
            minute = (Instant::now(), left);
        }
        let piece = piece((stream, tally), &mut buffer).await?;
        if piece.is_empty() {
            return Err(format!("the server hung up with {left} of {length} bytes left"));
        }
        give(piece, &mut left, out).await?;
    }
    Ok(length)
}

/// The length that the answer's head tells, and what came behind it.
async fn head(
    (stream, tally): (&mut (impl AsyncRead + Unpin), &Tally),
    buffer: &mut [u8],
) -> Result<(u64, Vec<u8>), String> {
    let mut head = Vec::new();
    loop {
        if let Some(found) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let (head, early) = head.split_at(found + 4);
            return Ok((length(head)?, early.to_vec()));
        }
        if head.len() > LARGEST_HEAD {
            return Err("the server's answer has no end of its head in 16 KiB".to_owned());
        }
        let piece = piece((stream, tally), buffer).await?;
        if piece.is_empty() {
            return Err("the server hung up before it answered".to_owned());
        }
        head.extend_from_slice(piece);
    }
}

/// What stands behind the told length is not part of the file.
async fn give(piece: &[u8], left: &mut u64, out: &mpsc::Sender<Vec<u8>>) -> Result<(), String> {
    let wanted = piece.get(..usize::try_from(*left).unwrap_or(usize::MAX)).unwrap_or(piece);
    *left -= wanted.len() as u64;
    out.send(wanted.to_vec()).await.map_err(|_| "the file could not be kept".to_owned())
}

async fn piece<'b>(
    (stream, tally): (&mut (impl AsyncRead + Unpin), &Tally),
    buffer: &'b mut [u8],
) -> Result<&'b [u8], String> {
    let count = timeout(SILENCE, stream.read(buffer)).await.map_err(|_| "the server was silent for 60 s".to_owned())?;
    let count = match count {
        Ok(count) => count,
        // A server that closes without TLS' farewell: the length tells whether something is missing.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(format!("the connection broke: {error}")),
    };
    tally.heard(count);
    Ok(buffer.get(..count).unwrap_or_default())
}

/// The length that the head of a good answer tells.
fn length(head: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(head).map_err(|_| "the server's answer is no HTTP".to_owned())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
    match code {
        "200" => {}
        "301" | "302" | "303" | "307" | "308" => {
            return Err("the server sends weir elsewhere; name the file's own address".to_owned());
        }
        "" => return Err("the server's answer is no HTTP/1.1".to_owned()),
        code => return Err(format!("the server answered {code}")),
    }
    let mut told = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-encoding") && value != "identity"
        {
            return Err(
                "the server does not send the file as it is; it must tell its length and not encode it".to_owned()
            );
        }
        if name.eq_ignore_ascii_case("content-length") {
            let length =
                Some(value).filter(|v| v.bytes().all(|b| b.is_ascii_digit())).and_then(|v| v.parse::<u64>().ok());
            if length.is_none() || told.is_some_and(|told| Some(told) != length) {
                return Err("the server tells no length that can be read".to_owned());
            }
            told = length;
        }
    }
    told.filter(|length| *length > 0).ok_or_else(|| "the server does not tell the file's length".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_and_the_request_names_them() {
        let url = Url::parse("https://fw.example.org:8443/weir?v=2").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("fw.example.org", 8443, "/weir?v=2"));
        assert!(url.request().starts_with("GET /weir?v=2 HTTP/1.1\r\nHost: fw.example.org:8443\r\n"));
        assert_eq!(Url::parse("https://[::1]:9/a").unwrap().host, "::1");
        assert_eq!(Url::parse("https://h").unwrap().path, "/");
        for wrong in ["http://h/a", "https://", "https://h:0/", "https://u@h/", "https://h/a b", "https://h/a\r\nX: y"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    async fn answered(answer: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        let mut stream = answer;
        let (give, mut pieces) = mpsc::channel::<Vec<u8>>(4);
        let take = async {
            let mut got = Vec::new();
            while let Some(piece) = pieces.recv().await {
                got.extend_from_slice(&piece);
            }
            got
        };
        let tally = Tally::default();
        let receive = async { receive((&mut stream, &tally), limit, &{ give }).await };
        let (length, got) = tokio::join!(receive, take);
        assert_eq!(length?, got.len() as u64);
        assert!(tally.take().received >= got.len() as u64, "what came is counted");
        Ok(got)
    }

    #[tokio::test]
    async fn a_file_comes_whole_or_not_at_all() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello, and more";
        assert_eq!(answered(good, 5).await.unwrap(), b"hello");
        assert!(answered(good, 4).await.unwrap_err().contains("more than the 4"));
        for (answer, told) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "4 of 9 bytes left"),
            ("HTTP/1.1 302 Found\r\nLocation: https://x/\r\n\r\n", "elsewhere"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "answered 404"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "not encode it"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "no length"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "does not tell"),
            ("SSH-2.0-x\r\n\r\n", "no HTTP"),
            ("", "hung up"),
        ] {
            let error = answered(answer.as_bytes(), 100).await.unwrap_err();
            assert!(error.contains(told), "{answer}: {error}");
        }
    }

    /// What becomes of an answer that comes in pieces of so many bytes, one each so often.
    async fn dripped(head: &[u8], piece: usize, every: Duration) -> Result<u64, String> {
        use tokio::io::AsyncWriteExt;
        let (mut server, mut stream) = tokio::io::duplex(PIECE);
        let (give, mut pieces) = mpsc::channel::<Vec<u8>>(4);
        let drip = async {
            let _ = server.write_all(head).await;
            loop {
                tokio::time::sleep(every).await;
                if server.write_all(&vec![b'x'; piece]).await.is_err() {
                    break;
                }
            }
        };
        let tally = Tally::default();
        tokio::select! {
            told = receive((&mut stream, &tally), 1 << 20, &give) => told,
            () = drip => Err("the server ended".to_owned()),
            () = async { while pieces.recv().await.is_some() {} } => Err("nobody gives".to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_only_drips_is_given_up_and_a_slow_one_is_not() {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
        let begun = Instant::now();
        let told = dripped(HEAD, 1000, Duration::from_secs(5)).await;
        assert!(told.as_ref().is_err_and(|why| why.contains("less than 16 KiB in a minute")), "{told:?}");
        assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
        assert_eq!(dripped(HEAD, 2000, Duration::from_secs(5)).await, Ok(100_000));
        let begun = Instant::now();
        let told = dripped(b"HTTP/1.1 200 ", 1, Duration::from_secs(5)).await;
        assert!(told.as_ref().is_err_and(|why| why.contains("did not answer in 60 s")), "{told:?}");
        assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", begun.elapsed());
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_without_a_panic_and_never_more_than_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), head in any::<bool>(), length in 0u64..300,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut answer = if head { format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes() } else { Vec::new() };
            answer.extend_from_slice(&bytes);
            if let Ok(got) = runtime.block_on(answered(&answer, 200)) {
                prop_assert!(got.len() <= 200);
            }
        }
    }
}
