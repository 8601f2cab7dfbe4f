//! An OpenlinkIQ front end: says its name when asked and gives what it hears, byte for byte as docs/radio.md says.

use crate::wire::openlinkiq_line::{Capture, Decoder, Event, Message, Payload, Time, encode};

/// A simulated front end.
#[derive(Debug)]
pub struct FrontEnd {
    name: String,
    asked: Decoder,
    /// Where the random bits come from.
    state: u64,
}

impl FrontEnd {
    /// One of this name; the same wrong bits and noise each time.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), asked: Decoder::new(), state: 0x9E37_79B9_7F4A_7C15 }
    }

    /// What it sends when it starts and once a minute.
    pub fn name(&self) -> Vec<u8> {
        bytes(&Message::Name(self.name.clone()))
    }

    /// What it answers to what it was sent: its name, as often as it was asked.
    pub fn answer(&mut self, sent: &[u8]) -> Vec<u8> {
        self.asked.push(sent);
        let mut out = Vec::new();
        while let Some(event) = self.asked.next() {
            if event == Event::Message(Message::Name(String::new())) {
                out.extend(self.name());
            }
        }
        out
    }

    /// What it sends when `frame` followed a sync word; after it there is noise up to 777 bytes when `noisy`.
    pub fn hears(&mut self, frame: &[u8], rssi: Option<i8>, time: Time, noisy: bool) -> Vec<u8> {
        let mut bits = frame.to_vec();
        while noisy && bits.len() < crate::wire::openlinkiq::LONGEST {
            bits.push(self.random().to_le_bytes()[0]);
        }
        bytes(&Message::Heard(Capture { payload: Payload::Bits(bits), rssi, time }))
    }

    /// What it sends for the same frame when it gives a ratio for each bit.
    pub fn hears_softly(&self, frame: &[u8], rssi: Option<i8>, time: Time) -> Vec<u8> {
        let bits = frame.iter().flat_map(|byte| (0..8).map(move |n| byte << n & 0x80 == 0));
        let ratios = bits.map(|zero| if zero { 40 } else { -40 }).collect();
        bytes(&Message::Heard(Capture { payload: Payload::Ratios(ratios), rssi, time }))
    }

    /// The frame with so many different wrong bits in the bytes of `part`.
    pub fn damaged(&mut self, frame: &[u8], part: std::ops::Range<usize>, wrong: usize) -> Vec<u8> {
        let mut heard = frame.to_vec();
        let mut left = wrong.min(8 * part.len());
        while left > 0 {
            let bit = 8 * part.start + (self.random() % (8 * part.len() as u64)) as usize;
            let mask = 0x80 >> (bit % 8);
            if let (Some(byte), Some(sent)) = (heard.get_mut(bit / 8), frame.get(bit / 8))
                && (*byte ^ sent) & mask == 0
            {
                *byte ^= mask;
                left -= 1;
            }
        }
        heard
    }

    /// Bytes that are no message.
    pub fn noise(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.random().to_le_bytes()[0]).collect()
    }

    const fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Fails for what is too long only, and leaves nothing then.
    let _ = encode(message, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_its_name_as_often_as_it_is_asked() {
        let mut front_end = FrontEnd::new("cc1200");
        let question = bytes(&Message::Name(String::new()));
        assert!(front_end.answer(&question[..9]).is_empty());
        assert_eq!(front_end.answer(&question[9..]), front_end.name());
        assert_eq!(front_end.answer(&[&b"noise"[..], &question, &question].concat()), front_end.name().repeat(2));
        assert!(front_end.answer(&front_end.name()).is_empty());
    }

    #[test]
    fn it_damages_as_many_bits_as_it_is_told_and_only_there() {
        let heard = FrontEnd::new("x").damaged(&[0; 100], 12..40, 30);
        let wrong = |part: &[u8]| part.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!((wrong(&heard[..12]), wrong(&heard[12..40]), wrong(&heard[40..])), (0, 30, 0));
    }
}
