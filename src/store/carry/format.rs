//! The export file: frames of one gateway, each part guarded by a CRC, the whole by a signature.
//! docs/tools.md has it byte by byte. Written and read as a stream.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::model::{Frame, Lane, Sequence};
use crate::store::block::{self, MAX_FRAME};
use crate::store::key::{self, Key, Public};

/// How every export begins; the last byte is the version.
const MAGIC: [u8; 8] = *b"wEXPORT1";
/// What stands before the digest in what is signed.
const DOMAIN: &[u8] = b"weir export 1\n";
const HEADER: u8 = 1;
const FRAMES: u8 = 2;
const END: u8 = 3;
const SIGNATURE: u8 = 4;
/// A record of frames is written when it has this many bytes.
const FULL: usize = 32 * 1024;
/// The longest record: one largest frame with its numbers.
const MAX_RECORD: usize = MAX_FRAME + 64 * 1024;

/// What stands at the beginning of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The id of the gateway that wrote it.
    pub gateway: String,
    /// When it was written, RFC 3339.
    pub time: String,
    /// Whether the frames were taken out of the gateway's store afterwards.
    pub taken: bool,
}

/// What stands at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many frames it holds.
    pub frames: u64,
    /// Those of them with priority.
    pub priority: u64,
    /// The bytes of the encoded frames.
    pub bytes: u64,
}

/// Frames of one lane, ascending, each with the length of its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lane: Lane,
    pub(super) frames: Vec<(Sequence, usize, Frame)>,
}

/// A record of frames: 0 priority, 1 ordinary; the frames by number.
#[derive(Serialize, Deserialize)]
struct Frames<'a>(u8, #[serde(borrow)] Vec<(Sequence, &'a [u8])>);

/// Why a file is no export that can be taken.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The system refuses to read it.
    #[error("it can't be read ({0})")]
    Read(io::Error),
    /// It begins otherwise.
    #[error("it is no export of weir")]
    Stranger,
    /// It is of a later version.
    #[error("it was written by a newer weir: take that version here, too")]
    Version,
    /// It ends too early.
    #[error("it ends in the middle, at byte {0}: copy it again from where it was written")]
    Cut(u64),
    /// A part of it is not as it was written.
    #[error("it is damaged at byte {0}: copy it again from where it was written")]
    Damaged(u64),
    /// Something stands behind its end.
    #[error("something stands behind its end, at byte {0}: it is not as it was written")]
    Longer(u64),
    /// A frame is not in order or can't be decoded.
    #[error("frame {0} in it is of a version this weir does not know, or impossible: take a newer weir")]
    Frame(Sequence),
    /// Its parts and its end disagree.
    #[error("it holds other frames than its end says: it was changed")]
    Totals,
    /// The signature is wrong.
    #[error("its signature is wrong: it was changed after it was written")]
    Forged,
}

/// Writes an export.
pub(super) struct Writer<W> {
    out: W,
    hash: Context,
    lane: Lane,
    waiting: Vec<(Sequence, Vec<u8>)>,
    bytes: usize,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    pub(super) fn begin(out: W, header: &Header) -> io::Result<Self> {
        let hash = Context::new(&SHA256);
        let (lane, waiting) = (Lane::Priority, Vec::new());
        let mut writer = Self { out, hash, lane, waiting, bytes: 0, totals: Totals::default() };
        writer.put(&MAGIC)?;
        writer.record(HEADER, &serde_json::to_vec(header)?)?;
        Ok(writer)
    }

    /// Adds a frame: priority frames first, ascending within a lane.
    pub(super) fn push(&mut self, lane: Lane, sequence: Sequence, frame: &[u8]) -> io::Result<()> {
        if lane != self.lane || self.bytes + frame.len() > FULL {
            self.flush()?;
            self.lane = lane;
        }
        self.bytes += frame.len() + 8;
        self.waiting.push((sequence, frame.to_vec()));
        self.totals.frames += 1;
        self.totals.priority += u64::from(lane == Lane::Priority);
        self.totals.bytes += frame.len() as u64;
        Ok(())
    }

    /// How many frames it holds.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Ends and signs the file; what it was written to comes back.
    pub(super) fn finish(mut self, key: &Key) -> io::Result<(W, Totals)> {
        self.flush()?;
        let totals = postcard::to_stdvec(&self.totals).map_err(io::Error::other)?;
        self.record(END, &totals)?;
        let digest = self.hash.clone().finish();
        let signature = key.sign(&[DOMAIN, digest.as_ref()].concat());
        self.record(SIGNATURE, &[&key.public()[..], &signature].concat())?;
        self.out.flush()?;
        Ok((self.out, self.totals))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let lane = u8::from(self.lane == Lane::Ordinary);
        let frames = Frames(lane, waiting.iter().map(|(s, bytes)| (*s, bytes.as_slice())).collect());
        let payload = postcard::to_stdvec(&frames).map_err(io::Error::other)?;
        self.record(FRAMES, &payload)
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
        let crc = block::checksum(&[&[kind], &length, payload]).to_le_bytes();
        self.put(&[&[kind][..], &length, &crc, payload].concat())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads an export and believes nothing until its end.
pub(super) struct Reader<R> {
    input: R,
    hash: Context,
    at: u64,
    header: Header,
    lane: Lane,
    last: Sequence,
    totals: Totals,
    signer: Option<Public>,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub(super) fn begin(mut input: R) -> Result<Self, FormatError> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::Stranger,
            _ => FormatError::Read(e),
        })?;
        if magic != MAGIC {
            let same_kind = magic.first_chunk::<7>() == MAGIC.first_chunk::<7>();
            return Err(if same_kind { FormatError::Version } else { FormatError::Stranger });
        }
        let mut hash = Context::new(&SHA256);
        hash.update(&magic);
        let header = Header { gateway: String::new(), time: String::new(), taken: false };
        let (lane, totals) = (Lane::Priority, Totals::default());
        let mut reader = Self { input, hash, at: MAGIC.len() as u64, header, lane, last: 0, totals, signer: None };
        let at = reader.at;
        let (kind, payload) = reader.record()?;
        let header = serde_json::from_slice(&payload).ok().filter(|_| kind == HEADER);
        reader.header = header.ok_or(FormatError::Damaged(at))?;
        Ok(reader)
    }

    /// Its beginning.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Its totals and its signer, once [`Reader::next`] has returned `None`.
    pub(super) fn verified(&self) -> Option<(Totals, Public)> {
        self.signer.map(|signer| (self.totals, signer))
    }

    /// Returns the next frames; `None` when the end is reached and the whole is verified.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, FormatError> {
        if self.signer.is_some() {
            return Ok(None);
        }
        let at = self.at;
        let (kind, payload) = self.record()?;
        match kind {
            FRAMES => self.frames(at, &payload).map(Some),
            END => {
                let totals: Totals = postcard::from_bytes(&payload).map_err(|_| FormatError::Damaged(at))?;
                if totals != self.totals {
                    return Err(FormatError::Totals);
                }
                self.signature()?;
                Ok(None)
            }
            _ => Err(FormatError::Damaged(at)),
        }
    }

    fn frames(&mut self, at: u64, payload: &[u8]) -> Result<Batch, FormatError> {
        let Frames(lane, frames) = postcard::from_bytes(payload).map_err(|_| FormatError::Damaged(at))?;
        let lane = match lane {
            0 => Lane::Priority,
            1 => Lane::Ordinary,
            _ => return Err(FormatError::Damaged(at)),
        };
        if lane != self.lane {
            self.last = 0;
        }
        if frames.is_empty() || (self.lane == Lane::Ordinary && lane == Lane::Priority) {
            return Err(FormatError::Damaged(at));
        }
        self.lane = lane;
        let mut batch = Batch { lane, frames: Vec::with_capacity(frames.len()) };
        for (sequence, bytes) in frames {
            let good = sequence > self.last && bytes.len() <= MAX_FRAME;
            let frame = block::decode_frame(bytes).filter(|frame| good && frame.lane == lane);
            let frame = frame.ok_or(FormatError::Frame(sequence))?;
            self.last = sequence;
            self.totals.frames += 1;
            self.totals.priority += u64::from(lane == Lane::Priority);
            self.totals.bytes += bytes.len() as u64;
            batch.frames.push((sequence, bytes.len(), frame));
        }
        Ok(batch)
    }

    fn signature(&mut self) -> Result<(), FormatError> {
        let digest = self.hash.clone().finish();
        let at = self.at;
        let (kind, payload) = self.record()?;
        let split = payload.split_first_chunk::<32>().filter(|_| kind == SIGNATURE);
        let (public, signature) = split.ok_or(FormatError::Damaged(at))?;
        let signature = signature.try_into().map_err(|_| FormatError::Damaged(at))?;
        if !key::verify(public, &[DOMAIN, digest.as_ref()].concat(), signature) {
            return Err(FormatError::Forged);
        }
        let mut more = [0; 1];
        match self.input.read(&mut more).map_err(FormatError::Read)? {
            0 => {
                self.signer = Some(*public);
                Ok(())
            }
            _ => Err(FormatError::Longer(self.at)),
        }
    }

    fn record(&mut self) -> Result<(u8, Vec<u8>), FormatError> {
        let at = self.at;
        let head = self.read(9)?;
        let parts = head.split_first().and_then(|(kind, rest)| Some((*kind, rest.split_first_chunk::<4>()?)));
        let (kind, (length, crc)) = parts.ok_or(FormatError::Damaged(at))?;
        let size = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if size > MAX_RECORD {
            return Err(FormatError::Damaged(at));
        }
        let payload = self.read(size)?;
        if block::checksum(&[&[kind], length, &payload]).to_le_bytes() != crc {
            return Err(FormatError::Damaged(at));
        }
        Ok((kind, payload))
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, FormatError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(length as u64).read_to_end(&mut bytes).map_err(FormatError::Read)?;
        self.at += bytes.len() as u64;
        if bytes.len() < length {
            return Err(FormatError::Cut(self.at));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
