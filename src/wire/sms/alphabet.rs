//! The GSM 7 bit default alphabet with its extension table (3GPP TS 23.038, 6.2.1), and septets in octets (6.1.2).

/// The default alphabet; ESC (27) stands for itself, it is never a character.
const DEFAULT: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å', 'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω',
    'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1b}', 'Æ', 'æ', 'ß', 'É', ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+',
    ',', '-', '.', '/', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?', '¡', 'A', 'B',
    'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y',
    'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§', '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p',
    'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];

/// The septet in front of one of the extension table.
pub const ESCAPE: u8 = 0x1B;

/// The extension table (6.2.1.1).
const EXTENSION: [(u8, char); 10] = [
    (0x0A, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// The septets of a character, one or two; `None` when the alphabet does not have it.
pub fn septets(character: char) -> Option<(Option<u8>, u8)> {
    if let Some((code, _)) = EXTENSION.iter().find(|(_, known)| *known == character) {
        return Some((Some(ESCAPE), *code));
    }
    let at = DEFAULT.iter().position(|known| *known == character && character != '\u{1b}')?;
    u8::try_from(at).ok().map(|code| (None, code))
}

/// The septets of a text; `None` when the alphabet lacks one of its characters.
pub fn encode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        let (escape, code) = septets(character)?;
        out.extend(escape);
        out.push(code);
    }
    Some(out)
}

/// The text of septets. An extension that nobody defined shows the character of the default alphabet, as 6.2.1.1
/// wants it; an escape at the end, or one after another, is a space.
pub fn decode(septets: &[u8]) -> String {
    let mut text = String::with_capacity(septets.len());
    let plain = |code: u8| DEFAULT.get(usize::from(code & 0x7F)).copied().unwrap_or(' ');
    let mut rest = septets.iter().copied();
    while let Some(code) = rest.next() {
        if code != ESCAPE {
            text.push(plain(code));
            continue;
        }
        text.push(match rest.next() {
            None | Some(ESCAPE) => ' ',
            Some(code) => EXTENSION.iter().find(|(known, _)| *known == code).map_or_else(|| plain(code), |(_, c)| *c),
        });
    }
    text
}

/// Packs septets into octets behind `fill` bits of zero.
pub fn pack(septets: &[u8], fill: usize, out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u32, fill);
    for septet in septets {
        held |= u32::from(septet & 0x7F) << bits;
        bits += 7;
        while bits >= 8 {
            out.push((held & 0xFF) as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push((held & 0xFF) as u8);
    }
}

/// Takes up to `count` septets out of octets, behind `fill` bits; fewer when there are fewer.
pub fn unpack(octets: &[u8], fill: usize, count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count.min(octets.len() * 8 / 7 + 1));
    let (mut held, mut bits, mut skip) = (0u32, 0usize, fill);
    for octet in octets {
        held |= u32::from(*octet) << bits;
        bits += 8;
        if skip > 0 {
            let now = skip.min(bits);
            held >>= now;
            bits -= now;
            skip -= now;
        }
        while bits >= 7 && out.len() < count {
            out.push((held & 0x7F) as u8);
            held >>= 7;
            bits -= 7;
        }
        if out.len() == count {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_word_every_description_packs_gives_the_octets_every_description_shows() {
        let mut out = Vec::new();
        pack(&encode("hellohello").unwrap(), 0, &mut out);
        assert_eq!(out, [0xE8, 0x32, 0x9B, 0xFD, 0x46, 0x97, 0xD9, 0xEC, 0x37]);
        assert_eq!(decode(&unpack(&out, 0, 10)), "hellohello");
    }

    #[test]
    fn extensions_take_two_septets_and_unknown_ones_show_the_plain_character() {
        assert_eq!(encode("€[").unwrap(), [0x1B, 0x65, 0x1B, 0x3C]);
        assert_eq!(decode(&[0x1B, 0x41]), "A");
        assert_eq!(decode(&[0x41, 0x1B]), "A ");
        assert_eq!(encode("ł"), None);
        assert_eq!(encode("\u{1b}"), None);
    }

    proptest! {
        #[test]
        fn septets_survive_packing_with_any_fill(septets in proptest::collection::vec(0u8..128, 0..160), fill in 0usize..7) {
            let mut out = Vec::new();
            pack(&septets, fill, &mut out);
            prop_assert_eq!(out.len(), (septets.len() * 7 + fill).div_ceil(8));
            prop_assert_eq!(unpack(&out, fill, septets.len()), septets);
        }

        #[test]
        fn a_text_of_the_alphabet_survives(codes in proptest::collection::vec(0usize..137, 0..200)) {
            let all: Vec<char> = DEFAULT.iter().copied().filter(|c| *c != '\u{1b}').chain(EXTENSION.iter().map(|(_, c)| *c)).collect();
            let text: String = codes.iter().map(|c| all[*c]).collect();
            prop_assert_eq!(decode(&encode(&text).unwrap()), text);
        }

        #[test]
        fn any_octets_give_some_text(octets in proptest::collection::vec(any::<u8>(), 0..200), fill in 0usize..9, count in 0usize..300) {
            decode(&unpack(&octets, fill, count));
            decode(&octets);
        }
    }
}
