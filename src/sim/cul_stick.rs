//! A nanoCUL with culfw, whose buffer may be too short for a telegram.

use super::stick::{Radio, Stick};
use crate::wire::cul::encode;
use crate::wire::wmbus::format::FrameFormat;

/// The stick. It writes nothing into its memory; what it was told is gone when it starts again.
#[derive(Debug, Clone)]
pub struct CulStick {
    /// What it answers to `V`.
    pub version: String,
    /// Whether its firmware has mode C.
    pub has_c: bool,
    /// The most bytes of a frame that its buffer takes: 110 in old firmware, 148 in r571 with a big buffer.
    pub limit: Option<usize>,
    /// A telegram that is cut loses half a byte more.
    pub cuts_odd: bool,
    /// The layout of the frames it hears.
    pub format: FrameFormat,
    /// The mode it was told: s, t or c.
    pub mode: Option<char>,
    /// What it was told to report.
    pub report: u8,
    /// It says its version when it starts.
    pub greets: bool,
    /// Telegrams that it hears just before it answers each of the next lines.
    pub meanwhile: std::collections::VecDeque<(Vec<u8>, u8)>,
    line: Vec<u8>,
}

/// The link quality that it tells.
const QUALITY: u8 = 0x2F;
const REPORTS: u8 = 0x01;
const STRENGTH: u8 = 0x20;

impl CulStick {
    /// A stick with firmware of r571 and no limit.
    pub fn new() -> Self {
        Self {
            version: "V 1.67 nanoCUL868".to_owned(),
            has_c: true,
            limit: None,
            cuts_odd: false,
            format: FrameFormat::A,
            mode: None,
            report: 0,
            greets: false,
            meanwhile: std::collections::VecDeque::new(),
            line: Vec::new(),
        }
    }

    fn answer(&mut self, line: &str) -> String {
        match line {
            "V" => format!("{}\r\n", self.version),
            "brs" | "brt" => {
                self.mode = line.chars().last();
                format!("{}MODE\r\n", if line == "brs" { 'S' } else { 'T' })
            }
            "brc" if self.has_c => {
                self.mode = Some('c');
                "CMODE\r\n".to_owned()
            }
            _ if line.starts_with("br") => {
                self.mode = None;
                "OFF\r\n".to_owned()
            }
            _ => match line.strip_prefix('X').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(report) => {
                    self.report = report;
                    String::new()
                }
                None => format!("? ({line} is unknown) Use one of B b C F i A Z G M K U Y R T V W X e f l t x\r\n"),
            },
        }
    }
}

impl Default for CulStick {
    fn default() -> Self {
        Self::new()
    }
}

impl Stick for CulStick {
    fn baud(&self) -> u32 {
        38_400
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        for &byte in bytes {
            if !matches!(byte, b'\r' | b'\n') {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            if !line.is_empty() {
                if let Some((telegram, raw)) = self.meanwhile.pop_front() {
                    said.extend(self.hears(&telegram, raw));
                }
                said.extend(self.answer(&line).into_bytes());
            }
        }
        said
    }
}

impl Radio for CulStick {
    type Strength = u8;

    fn hears(&mut self, telegram: &[u8], raw: u8) -> Vec<u8> {
        let mut said = Vec::new();
        if self.mode.is_none() || self.report & REPORTS == 0 {
            return said;
        }
        let quality = (self.report & STRENGTH != 0).then_some((QUALITY, raw));
        if encode(self.format, telegram, quality, &mut said).is_err() {
            return Vec::new();
        }
        let start = if self.format == FrameFormat::B { 2 } else { 1 };
        if let Some(limit) = self.limit.filter(|limit| said.len() - start - 2 > 2 * limit) {
            said.truncate(start + 2 * limit - usize::from(self.cuts_odd));
            said.extend(b"\r\n");
        }
        said
    }

    fn restart(&mut self) -> Vec<u8> {
        (self.mode, self.report) = (None, 0);
        self.line.clear();
        if self.greets { format!("{}\r\n", self.version).into_bytes() } else { Vec::new() }
    }
}
