//! What both sides of a connection agree on (IEC 62056-46, clause 6.4.4.4.3.2).

/// The sizes of one side of a connection, as it tells them in SNRM or UA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// The most bytes of information in a frame that it sends.
    pub transmit: u16,
    /// The most bytes of information in a frame that it takes.
    pub receive: u16,
    /// The most frames that it sends before an acknowledgement, 1 to 7.
    pub window_transmit: u8,
    /// The most frames that it takes before it acknowledges, 1 to 7.
    pub window_receive: u8,
}

impl Default for Parameters {
    /// What holds when nothing is said: 128 bytes, one frame.
    fn default() -> Self {
        Self { transmit: 128, receive: 128, window_transmit: 1, window_receive: 1 }
    }
}

impl Parameters {
    /// The information of an SNRM or UA.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0x81, 0x80, 0];
        for (id, size) in [(5, self.transmit), (6, self.receive)] {
            match u8::try_from(size) {
                Ok(size) => bytes.extend([id, 1, size]),
                Err(_) => bytes.extend([[id, 2], size.to_be_bytes()].concat()),
            }
        }
        for (id, window) in [(7, self.window_transmit), (8, self.window_receive)] {
            bytes.extend([id, 4, 0, 0, 0, window]);
        }
        let length = u8::try_from(bytes.len() - 3).unwrap_or(0);
        if let Some(place) = bytes.get_mut(2) {
            *place = length;
        }
        bytes
    }

    /// Reads the information of an SNRM or UA; what is not there, or makes no sense, is the default.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let [0x81, 0x80, length, rest @ ..] = bytes else { return found };
        let mut rest = rest.get(..usize::from(*length)).unwrap_or(rest);
        while let [id, size, more @ ..] = rest {
            let Some((number, after)) = more.split_at_checked(usize::from(*size)) else { return found };
            rest = after;
            let number = number.iter().fold(0u32, |all, byte| (all << 8) | u32::from(*byte));
            if number == 0 {
                continue;
            }
            let size = u16::try_from(number).unwrap_or(u16::MAX);
            let window = u8::try_from(number.min(7)).unwrap_or(7);
            match id {
                5 => found.transmit = size,
                6 => found.receive = size,
                7 => found.window_transmit = window,
                8 => found.window_receive = window,
                _ => {}
            }
        }
        found
    }
}
