//! Ciphers and deciphers APDUs (IEC 62056-5-3, clauses 5.3 and 5.7): `glo-` and `ded-` services, and the
//! general-glo-, general-ded- and general-ciphering APDUs, with the security suites 0, 1 and 2.
//!
//! Invariants: nothing of an authenticated APDU is given out before its tag was found right; what is inside
//! a ciphered service is that service; an unknown suite, compression and a missing key are refused by name.
//! That counters rise is [`Receiver`]'s work, that none is used twice is up to who counts.

use super::secret::Secret;
use super::wrap::KeyEncryptionKey;
use super::{
    ApduTag, CipheredService, Encode, GeneralCiphering, GeneralGloCiphering, KeyInfo, Protection, SecurityControl,
    decode,
};
use crate::wire::DecodeError;
use crate::wire::aes::equal;
use crate::wire::gcm::{Key, NONCE, TAG};

/// Who sent an APDU: eight bytes, the first three are the manufacturer's letters.
pub type SystemTitle = [u8; 8];

/// What ciphers an APDU as general-ciphering (the crate's [`ApduTag`] knows it too).
const GENERAL_CIPHERING: u8 = 0xDD;
const GENERAL_GLO: u8 = 0xDB;
const GENERAL_DED: u8 = 0xDC;

/// Why an APDU can't be ciphered or deciphered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes are no ciphered APDU.
    #[error("a ciphered APDU is cut or malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The tag does not fit.
    #[error("the tag of a ciphered APDU is wrong: another key or system title, or it was changed on its way")]
    WrongTag,
    /// Nothing ciphers it though it must be.
    #[error("an APDU came with less protection than the settings ask for; it is not believed")]
    Unprotected,
    /// Bit 7 of the security control.
    #[error("a compressed APDU came; compression is not supported, switch it off in the meter's security setup")]
    Compressed,
    /// Another suite than that of the keys.
    #[error("an APDU of security suite {0} came; the settings say another suite")]
    Suite(u8),
    /// No such key is known.
    #[error("an APDU is ciphered with {0}, which the settings do not name")]
    NoKey(&'static str),
    /// A key is of the wrong length.
    #[error("{0} has the wrong length: suites 0 and 1 take 16 bytes, suite 2 takes 32")]
    KeyLength(&'static str),
    /// General-ciphering under a key that two sides agree upon.
    #[error("an APDU is ciphered with a key by agreement (ECDH), which is not supported")]
    Agreement,
    /// The sender is not known.
    #[error("a ciphered APDU came from a meter that did not tell its system title")]
    NoTitle,
    /// The sender is another one.
    #[error("a ciphered APDU came from another system title than the meter's")]
    OtherTitle,
    /// Both sides have the same title, and so would use the same key stream.
    #[error("the meter has the system title of this client; set another system_title")]
    OwnTitle,
    /// A tag says one service, its content is another.
    #[error("a ciphered APDU holds another service than its tag says")]
    OtherService,
    /// Its counter did not rise.
    #[error("the invocation counter of a ciphered APDU did not rise: it was sent before and is replayed")]
    Replay,
    /// There is no ciphered form of it.
    #[error("this APDU has no ciphered form")]
    NoForm,
    /// Longer than the mode takes.
    #[error("an APDU is too long for its cipher")]
    TooLong,
}

/// A security suite (clause 5.3.7); ECDH and ECDSA of suites 1 and 2 are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite(u8);

impl Suite {
    /// Suite 0, 1 or 2.
    pub fn new(number: u8) -> Option<Self> {
        (number <= 2).then_some(Self(number))
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The bytes of its keys.
    pub const fn key_length(self) -> usize {
        if self.0 == 2 { 32 } else { 16 }
    }
}

/// Which key ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyName {
    /// The global unicast key.
    Global,
    /// The global broadcast key.
    Broadcast,
    /// The key of one association.
    Dedicated,
    /// One that came wrapped within the APDU itself.
    Wrapped,
}

/// How a ciphered APDU is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each service has its own tag.
    Service,
    /// One tag for all, with the sender's title.
    General,
}

/// The keys of one meter.
#[derive(Debug)]
pub struct Keys {
    suite: Suite,
    global: Key,
    broadcast: Option<Key>,
    dedicated: Option<Key>,
    authentication: Option<Secret>,
    master: Option<KeyEncryptionKey>,
}

impl Keys {
    /// The global unicast key, and the authentication key where tags are wanted.
    ///
    /// # Errors
    /// A key whose length is not the suite's.
    pub fn new(suite: Suite, global: &Secret, authentication: Option<Secret>) -> Result<Self, Fault> {
        if authentication.as_ref().is_some_and(|key| key.bytes().len() != suite.key_length()) {
            return Err(Fault::KeyLength("the authentication key"));
        }
        let global = ready(suite, global, "the encryption key")?;
        Ok(Self { suite, global, broadcast: None, dedicated: None, authentication, master: None })
    }

    /// With the global broadcast key.
    ///
    /// # Errors
    /// Another length than the suite's.
    pub fn set_broadcast(&mut self, key: &Secret) -> Result<(), Fault> {
        self.broadcast = Some(ready(self.suite, key, "the broadcast key")?);
        Ok(())
    }

    /// With the key of this association, or without one.
    ///
    /// # Errors
    /// Another length than the suite's.
    pub fn set_dedicated(&mut self, key: Option<&Secret>) -> Result<(), Fault> {
        self.dedicated = key.map(|key| ready(self.suite, key, "the dedicated key")).transpose()?;
        Ok(())
    }

    /// With the key that wraps other keys.
    pub fn set_master(&mut self, key: KeyEncryptionKey) {
        self.master = Some(key);
    }

    /// Their suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    fn key(&self, name: KeyName) -> Result<&Key, Fault> {
        match name {
            KeyName::Global => Ok(&self.global),
            KeyName::Broadcast => self.broadcast.as_ref().ok_or(Fault::NoKey("the broadcast key")),
            KeyName::Dedicated => self.dedicated.as_ref().ok_or(Fault::NoKey("a dedicated key")),
            KeyName::Wrapped => Err(Fault::NoKey("a wrapped key")),
        }
    }

    /// What the tag vouches for besides a ciphertext: security control, authentication key, and more.
    fn associated(&self, control: SecurityControl, more: &[&[u8]]) -> Result<Secret, Fault> {
        let key = self.authentication.as_ref().ok_or(Fault::NoKey("an authentication key"))?;
        let mut bytes = Vec::with_capacity(1 + key.bytes().len() + more.iter().map(|part| part.len()).sum::<usize>());
        bytes.push(control.0);
        bytes.extend_from_slice(key.bytes());
        more.iter().for_each(|part| bytes.extend_from_slice(part));
        Ok(Secret::new(bytes))
    }

    /// The tag over `text` alone (GMAC), under the global key.
    ///
    /// # Errors
    /// Without an authentication key.
    pub fn gmac(
        &self,
        control: SecurityControl,
        title: &[u8; 8],
        counter: u32,
        text: &[u8],
    ) -> Result<[u8; TAG], Fault> {
        let associated = self.associated(control, &[text])?;
        self.global.seal(nonce(title, counter), associated.bytes(), &mut []).ok_or(Fault::TooLong)
    }

    /// Ciphers one APDU as `control` says under the key called `name`; `counter` must never have been used with
    /// this key and `title`.
    ///
    /// # Errors
    /// A key that is missing, or an APDU that has no ciphered form.
    pub fn protect(&self, plain: &[u8], how: &How, counter: u32) -> Result<Vec<u8>, Fault> {
        let How { form, name, control, title } = *how;
        let key = self.key(name)?;
        let payload = self.seal(key, control, nonce(&title, counter), plain)?;
        let body = CipheredService { security_control: control, invocation_counter: counter, payload: &payload };
        let dedicated = name == KeyName::Dedicated;
        let mut bytes = Vec::with_capacity(payload.len() + 24);
        match form {
            Form::Service => {
                let tag = plain.first().and_then(|tag| ApduTag::from_u8(*tag)).ok_or(Fault::NoForm)?;
                let protection = if dedicated { Protection::Dedicated } else { Protection::Global };
                bytes.push(tag.protected_as(protection).ok_or(Fault::NoForm)?.as_u8());
                body.encode(&mut bytes)
            }
            Form::General => {
                bytes.push(if dedicated { GENERAL_DED } else { GENERAL_GLO });
                GeneralGloCiphering { system_title: &title, ciphered: body }.encode(&mut bytes)
            }
        }
        .map_err(|error| super::fault(&error))?;
        Ok(bytes)
    }

    fn seal(&self, key: &Key, control: SecurityControl, nonce: [u8; NONCE], plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut payload = plain.to_vec();
        match (control.authenticated(), control.encrypted()) {
            (false, false) => {}
            (false, true) => {
                key.seal(nonce, &[], &mut payload).ok_or(Fault::TooLong)?;
            }
            (true, true) => {
                let associated = self.associated(control, &[])?;
                let tag = key.seal(nonce, associated.bytes(), &mut payload).ok_or(Fault::TooLong)?;
                payload.extend_from_slice(&tag);
            }
            (true, false) => {
                let associated = self.associated(control, &[plain])?;
                let tag = key.seal(nonce, associated.bytes(), &mut []).ok_or(Fault::TooLong)?;
                payload.extend_from_slice(&tag);
            }
        }
        Ok(payload)
    }

    /// Deciphers one APDU, and tells how it was protected; `peer` is the sender where the APDU itself does not say.
    ///
    /// # Errors
    /// Why it can't be believed.
    pub fn unprotect(&self, apdu: &[u8], peer: Option<SystemTitle>) -> Result<Opened, Fault> {
        let (&tag, rest) = apdu.split_first().ok_or(Fault::Unprotected)?;
        if tag == GENERAL_CIPHERING {
            return self.general(decode::<GeneralCiphering<'_>>(rest)?.0, rest);
        }
        let known = ApduTag::from_u8(tag);
        if tag == GENERAL_GLO || tag == GENERAL_DED {
            let (body, _) = decode::<GeneralGloCiphering<'_>>(rest)?;
            let title = title(body.system_title)?.or(peer).ok_or(Fault::NoTitle)?;
            let name = if tag == GENERAL_DED { KeyName::Dedicated } else { KeyName::Global };
            return self.open(&body.ciphered, name, title, &[]);
        }
        let (protection, service) = known.and_then(ApduTag::unprotect).ok_or(Fault::Unprotected)?;
        let (body, _) = decode::<CipheredService<'_>>(rest)?;
        let name = if protection == Protection::Dedicated { KeyName::Dedicated } else { KeyName::Global };
        let opened = self.open(&body, name, peer.ok_or(Fault::NoTitle)?, &[])?;
        if opened.plain.first() != Some(&service.as_u8()) {
            return Err(Fault::OtherService);
        }
        Ok(opened)
    }

    /// General-ciphering names its sender and its key, and the tag vouches for both (clause 5.7.2).
    fn general(&self, body: GeneralCiphering<'_>, bytes: &[u8]) -> Result<Opened, Fault> {
        let sender = title(body.originator_system_title)?.ok_or(Fault::NoTitle)?;
        let head = [
            body.transaction_id,
            body.originator_system_title,
            body.recipient_system_title,
            body.date_time,
            body.other_information,
        ];
        // The five fields go into the tag as they stand in the APDU, each with its length.
        let length = head.iter().map(|field| field.len() + length_bytes(field.len())).sum();
        let head: &[u8] = bytes.get(..length).unwrap_or_default();
        match body.key_info {
            None | Some(KeyInfo::Identified { key_id: 0 }) => self.open(&body.ciphered, KeyName::Global, sender, head),
            Some(KeyInfo::Identified { .. }) => self.open(&body.ciphered, KeyName::Broadcast, sender, head),
            Some(KeyInfo::Wrapped { ciphered_key, .. }) => {
                let master = self.master.as_ref().ok_or(Fault::NoKey("a key under the master key"))?;
                let key = ready(self.suite, &master.unwrap(ciphered_key).ok_or(Fault::WrongTag)?, "a wrapped key")?;
                self.open_with(&key, &body.ciphered, KeyName::Wrapped, sender, head)
            }
            Some(KeyInfo::Agreed { .. }) => Err(Fault::Agreement),
        }
    }

    fn open(&self, body: &CipheredService<'_>, name: KeyName, title: [u8; 8], head: &[u8]) -> Result<Opened, Fault> {
        let name = if body.security_control.broadcast_key() { KeyName::Broadcast } else { name };
        self.open_with(self.key(name)?, body, name, title, head)
    }

    fn open_with(
        &self,
        key: &Key,
        body: &CipheredService<'_>,
        name: KeyName,
        title: SystemTitle,
        head: &[u8],
    ) -> Result<Opened, Fault> {
        let (control, counter) = (body.security_control, body.invocation_counter);
        if control.compressed() {
            return Err(Fault::Compressed);
        }
        if control.suite() != self.suite.number() {
            return Err(Fault::Suite(control.suite()));
        }
        let nonce = nonce(&title, counter);
        let plain = if control.authenticated() {
            let (text, tag) = body.payload.split_last_chunk::<TAG>().ok_or(Fault::WrongTag)?;
            if control.encrypted() {
                key.open(nonce, self.associated(control, &[head])?.bytes(), text, tag).ok_or(Fault::WrongTag)?
            } else {
                let associated = self.associated(control, &[head, text])?;
                let expected = key.seal(nonce, associated.bytes(), &mut []).ok_or(Fault::TooLong)?;
                if !equal(&expected, tag) {
                    return Err(Fault::WrongTag);
                }
                text.to_vec()
            }
        } else if control.encrypted() {
            key.uncover(nonce, body.payload).ok_or(Fault::TooLong)?
        } else {
            body.payload.to_vec()
        };
        Ok(Opened { plain, control, counter, title, name })
    }
}

/// How an APDU is to be ciphered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// Its form.
    pub form: Form,
    /// Its key.
    pub name: KeyName,
    /// Tag, ciphertext or both, and the suite.
    pub control: SecurityControl,
    /// The sender's title.
    pub title: SystemTitle,
}

/// An APDU that was deciphered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The APDU.
    pub plain: Vec<u8>,
    /// How it was protected.
    pub control: SecurityControl,
    /// Its invocation counter.
    pub counter: u32,
    /// Who sent it.
    pub title: SystemTitle,
    /// Which key opened it.
    pub name: KeyName,
}

/// Takes each APDU of one sender once, and only with the protection that is asked for.
#[derive(Debug, Clone)]
pub struct Receiver {
    least: SecurityControl,
    own: SystemTitle,
    peer: Option<SystemTitle>,
    newest: [Option<u32>; 3],
}

impl Receiver {
    /// Asks for at least the protection of `least`; `own` is this side's title.
    pub const fn new(least: SecurityControl, own: SystemTitle) -> Self {
        Self { least, own, peer: None, newest: [None; 3] }
    }

    /// Whom it hears, once that is known.
    pub const fn peer(&self) -> Option<SystemTitle> {
        self.peer
    }

    /// Learns the sender's title.
    ///
    /// # Errors
    /// When it is this side's own.
    pub fn meet(&mut self, title: SystemTitle) -> Result<(), Fault> {
        if title == self.own {
            return Err(Fault::OwnTitle);
        }
        self.peer = Some(title);
        Ok(())
    }

    /// Gives the plain APDU when it may be believed.
    ///
    /// # Errors
    /// Why not; the next one is judged as if this one had not come.
    pub fn take(&mut self, opened: Opened) -> Result<Vec<u8>, Fault> {
        let Opened { plain, control, counter, title, name } = opened;
        if (self.least.authenticated() && !control.authenticated()) || (self.least.encrypted() && !control.encrypted())
        {
            return Err(Fault::Unprotected);
        }
        match self.peer {
            Some(peer) if peer != title => return Err(Fault::OtherTitle),
            Some(_) => {}
            None => self.meet(title)?,
        }
        let place = match name {
            KeyName::Global => 0,
            KeyName::Broadcast => 1,
            KeyName::Dedicated => 2,
            // Its key came with it, so that there is no row of counters.
            KeyName::Wrapped => return Ok(plain),
        };
        let newest = self.newest.get_mut(place).ok_or(Fault::Replay)?;
        if newest.is_some_and(|newest| counter <= newest) {
            return Err(Fault::Replay);
        }
        *newest = Some(counter);
        Ok(plain)
    }
}

/// Whether an APDU is ciphered, by its tag.
pub fn is_ciphered(apdu: &[u8]) -> bool {
    apdu.first().is_some_and(|&tag| {
        matches!(tag, GENERAL_GLO | GENERAL_DED | GENERAL_CIPHERING)
            || ApduTag::from_u8(tag).is_some_and(|tag| tag.unprotect().is_some())
    })
}

fn ready(suite: Suite, key: &Secret, name: &'static str) -> Result<Key, Fault> {
    if key.bytes().len() != suite.key_length() {
        return Err(Fault::KeyLength(name));
    }
    Key::of(key.bytes()).ok_or(Fault::KeyLength(name))
}

/// A title of eight bytes; none where an APDU leaves it empty.
fn title(bytes: &[u8]) -> Result<Option<SystemTitle>, Fault> {
    if bytes.is_empty() { Ok(None) } else { bytes.try_into().map(Some).map_err(|_| Fault::NoTitle) }
}

/// The bytes of a length field of A-XDR, as short as it can be.
const fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x100 => 2,
        _ => 3,
    }
}

fn nonce(title: &SystemTitle, counter: u32) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    let bytes = title.iter().copied().chain(counter.to_be_bytes());
    nonce.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    nonce
}

#[cfg(test)]
mod tests;
