//! Agrees with a meter who this client is (IEC 62056-5-3, clause 6), and ciphers what is said then.
//!
//! Invariants: an invocation counter is stored before it is used and never used twice ([`counters`]); a
//! password or key that the meter refused is not sent again until it changes or a day has passed ([`trial`]); an answer is
//! believed only with the protection that the settings ask for; the meter's proof is looked at like ours.

use rand::RngExt;
use tracing::{debug, info};

use super::dlms;
use super::link::Link;
use super::settings::{DlmsCiphering, DlmsSettings};
use crate::meter::{Kept, MeterError, MeterSettings};
use crate::os::line::Line;
use crate::os::random;
use crate::wire::dlms::protect::SystemTitle;
use crate::wire::dlms::secret::Secret;
use crate::wire::dlms::{
    Aare, Apdu, ApplicationContext, AssociationResult, AuthMechanism, Conformance, ExceptionResponse, LogicalName,
    ReleaseReason, Rlrq, ServiceError, decode, encode,
};
use cover::{Cover, off_nothing};
use material::{Mark, Material, unasked};
use memory::Memory;
use transfer::{Parcel, exchange};

mod counters;
mod cover;
mod greeting;
mod material;
mod memory;
mod proof;
mod resync;
pub(super) mod short;
mod transfer;
mod trial;
mod words;

pub(super) use material::{check, new_key};

/// The client that every meter lets in without a password (IEC 62056-5-3, annex).
const PUBLIC: u16 = 16;
/// How often an association is tried with another invocation counter.
const JUMPS: u32 = 3;
/// How many pushes may come before an answer.
const PUSHES: u32 = 8;
/// The bytes of our challenge.
const CHALLENGE: usize = 32;

/// An association with one logical device.
pub(super) struct Association {
    settings: MeterSettings,
    dlms: DlmsSettings,
    client: u16,
    title: Option<SystemTitle>,
    counter: Option<LogicalName>,
    link: Link,
    memory: Memory,
    agreed: Option<Agreed>,
    /// The meter's short names, once they were read.
    names: Option<short::ShortNames>,
    /// The password or key that will be shown; none once it was, in this opening.
    showing: Option<Mark>,
    /// Opening it again at once would show it once more for the same cause.
    held: bool,
}

/// What was agreed upon when it was opened.
struct Agreed {
    granted: Conformance,
    /// The longest APDU that the meter takes; 0 when it does not say.
    longest: usize,
    /// Keys, where something is ciphered or proven by them.
    cover: Option<Cover>,
    context: ApplicationContext,
}

/// Why an association did not come about.
enum Stumble {
    /// For good, this time.
    Final(MeterError),
    /// The invocation counter is stale, and this is the one that is expected, if the meter says so.
    Counter(Option<u32>),
    /// The meter could not decipher: a wrong key, or with older ones a stale counter; or it gives no reason.
    Undeciphered { why: String, clear: bool },
    /// The meter refused what this client showed; sending it again may lock it out.
    Secret(String),
    /// What came of showing it may be such a refusal, or a fault of the line.
    Unclear(MeterError),
}

/// What a request needs besides being sent.
#[derive(Debug, Clone, Copy)]
struct Care {
    /// It holds a password or key.
    secret: bool,
    /// It shows who this client is: never repeated over a new link.
    once: bool,
}

impl From<MeterError> for Stumble {
    fn from(error: MeterError) -> Self {
        Self::Final(error)
    }
}

impl Association {
    /// Prepares it; files are read when it is opened.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings.
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        let dlms = dlms(settings)?;
        let title = dlms.system_title.as_ref().map(|title| {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(title.as_bytes()).ok();
            bytes.and_then(|b| b.try_into().ok()).ok_or("dlms.system_title must be 16 hexadecimal digits")
        });
        let counter = dlms.counter.as_ref().map(|name| {
            LogicalName::parse(name).map_err(|_| "dlms.counter must be a logical name such as \"0-0:43.1.0*255\"")
        });
        if greeting::mechanism(dlms.authentication) == AuthMechanism::HighEcdsa {
            return Err("authentication by ecdsa is not supported: no meter was found to prove it with".to_owned());
        }
        Ok(Self {
            link: Link::new(settings)?,
            client: u16::try_from(dlms.client.value()).unwrap_or(PUBLIC),
            title: title.transpose()?,
            counter: counter.transpose()?,
            memory: Memory::new(&settings.name),
            settings: settings.clone(),
            dlms,
            agreed: None,
            names: None,
            showing: None,
            held: false,
        })
    }

    /// Keeps counters and refusals over a restart.
    pub(super) fn keep_in(&mut self, kept: Kept) {
        self.memory.keep_in(kept);
    }

    /// Opens it once.
    async fn attempt(
        &mut self,
        line: &mut Line,
        material: Material,
        title: SystemTitle,
        mark: Mark,
    ) -> Result<Agreed, Stumble> {
        let context = greeting::context(&self.dlms);
        let mechanism = greeting::mechanism(self.dlms.authentication);
        let Material { secret, keys, .. } = material;
        let mut cover = keys.map(|keys| Cover::new(keys, &self.dlms, title, mark));
        let dedicated = (self.dlms.ciphering == DlmsCiphering::Dedicated && context.is_ciphered())
            .then(|| Secret::new(random_bytes(cover.as_ref().map_or(16, |c| c.keys.suite().key_length()))));
        let challenge = random_bytes(CHALLENGE);
        let value = if mechanism == AuthMechanism::Low { secret.bytes() } else { &challenge };
        let proposed = greeting::proposal(context, self.dlms.general_blocks);
        self.link.open(line, self.client).await?;
        let max_pdu = self.link.fitting(u16::try_from(self.dlms.max_pdu.value()).unwrap_or(u16::MAX));
        let mut information = greeting::initiate(proposed, max_pdu, dedicated.as_ref())?;
        let ciphered = cover.as_ref().filter(|cover| cover.ciphered());
        if let Some(cover) = ciphered {
            information = cover.initiate(&information, &mut self.memory).await?;
        }
        let request = greeting::aarq(context, mechanism, title, value, &information)?;
        let parcel = Parcel { apdu: &request, blocks: None, secret: mechanism == AuthMechanism::Low, once: true };
        if parcel.secret || ciphered.is_some() {
            self.show().await?;
        }
        let answer = exchange(&mut self.link, line, &parcel).await.map_err(|error| self.suspect(error.into()))?;
        if !matches!(answer.first(), Some(0x61)) {
            judge(&answer).map_err(|stumble| self.suspect(stumble))?;
            return Err(self.suspect(unexpected("the answer to an association's request is none").into()));
        }
        let answer = decode::<Aare<'_>>(&answer).map_err(|error| self.suspect(damaged(error).into()));
        let (answer, _) = answer?;
        if !answer.is_accepted() {
            return Err(self.declined(&answer, cover.as_mut(), mechanism));
        }
        if answer.mechanism_name.is_some_and(|theirs| mechanism.is_high_level() && theirs != mechanism) {
            return Err(unexpected("the meter answered with another authentication than it was asked for").into());
        }
        if let (Some(cover), Some(title)) = (&mut cover, answer.responding_ap_title.and_then(|t| t.try_into().ok())) {
            cover.meet(title)?;
        }
        let (granted, longest) = terms(&answer, cover.as_mut(), proposed)?;
        let mut agreed = Agreed { granted, longest, cover, context };
        if mechanism.is_high_level() {
            let theirs = answer.responding_authentication_value.unwrap_or_default().to_vec();
            let server = answer.responding_ap_title.and_then(|title| title.try_into().ok());
            let proof = proof::Proof { mechanism, secret, client: title, server, ours: challenge, theirs };
            self.prove(line, &mut agreed, &proof).await?;
        }
        if let Some(cover) = &mut agreed.cover {
            let general = granted.contains(Conformance::GENERAL_PROTECTION);
            cover.settle(self.dlms.ciphering, general, dedicated.as_ref())?;
        }
        Ok(agreed)
    }

    /// What a refused association means.
    fn declined(&self, answer: &Aare<'_>, cover: Option<&mut Cover>, mechanism: AuthMechanism) -> Stumble {
        use crate::wire::dlms::{Diagnostic, UserDiagnostic};
        // What is wrong with the initiate-request stands inside, often ciphered or with bytes missing.
        let inside = answer.user_information.map(<[u8]>::to_vec).unwrap_or_default();
        let inside = match cover {
            Some(cover) => cover.off(inside).unwrap_or_default(),
            None => inside,
        };
        if let Err(stumble @ (Stumble::Counter(_) | Stumble::Undeciphered { .. })) = judge(&inside) {
            return stumble;
        }
        let why = words::refusal(answer);
        let shown = mechanism != AuthMechanism::None;
        let failed = matches!(answer.diagnostic, Diagnostic::User(UserDiagnostic::AuthenticationFailure));
        // For now only: another client may be at work. Nothing is wrong with what this one showed.
        if answer.result == AssociationResult::RejectedTransient && !failed {
            return Stumble::Final(MeterError::Refused(why));
        }
        let vague = matches!(answer.diagnostic, Diagnostic::User(UserDiagnostic::NoReasonGiven | UserDiagnostic::Null));
        // So some refuse a ciphered request that they can't decipher, or whose counter is stale.
        if greeting::context(&self.dlms).is_ciphered() && (failed || vague) {
            return Stumble::Undeciphered { why, clear: failed };
        }
        match shown {
            true if failed => Stumble::Secret(why),
            // Many meters give no reason for a wrong password, and not for that only.
            true if vague => Stumble::Unclear(MeterError::Refused(why)),
            _ => Stumble::Final(MeterError::Refused(why)),
        }
    }

    /// Says one request and gives its answer, both plain; an answer is one APDU, whatever carried it.
    ///
    /// # Errors
    /// When the line fails, what comes can't be believed, or the meter refuses the service as a whole.
    pub(super) async fn call(&mut self, line: &mut Line, request: &[u8]) -> Result<Vec<u8>, MeterError> {
        self.call_with(line, request, false).await
    }

    /// As [`Self::call`], for a request that holds a password or key: no trace shows it.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) async fn call_secret(&mut self, line: &mut Line, request: &[u8]) -> Result<Vec<u8>, MeterError> {
        self.call_with(line, request, true).await
    }

    async fn call_with(&mut self, line: &mut Line, request: &[u8], secret: bool) -> Result<Vec<u8>, MeterError> {
        let Some(mut agreed) = self.agreed.take() else {
            return Err(unasked("there is no association".to_owned()));
        };
        let care = Care { secret, once: false };
        let mut outcome = self.say(line, &mut agreed, request, care).await;
        if let (Err(Stumble::Counter(expected)), Some(cover)) = (&outcome, &agreed.cover) {
            // It was not carried out, so that it may be said again.
            if cover.jump(&mut self.memory, *expected) {
                info!(meter = %*self.settings.name, "the invocation counter was stale; went on with the expected one");
                outcome = self.say(line, &mut agreed, request, care).await;
            }
        }
        self.agreed = Some(agreed);
        outcome.map_err(|stumble| match stumble {
            Stumble::Final(error) | Stumble::Unclear(error) => error,
            Stumble::Counter(_) => MeterError::Refused("the invocation counter is stale".to_owned()),
            Stumble::Undeciphered { why, .. } | Stumble::Secret(why) => MeterError::Refused(why),
        })
    }

    async fn say(
        &mut self,
        line: &mut Line,
        agreed: &mut Agreed,
        request: &[u8],
        care: Care,
    ) -> Result<Vec<u8>, Stumble> {
        let apdu = match &agreed.cover {
            Some(cover) => cover.over(request, &mut self.memory).await?,
            None => request.to_vec(),
        };
        let blocks = agreed.granted.contains(Conformance::GENERAL_BLOCK_TRANSFER) && agreed.longest > 0;
        let Care { secret, once } = care;
        let parcel = Parcel { apdu: &apdu, blocks: blocks.then_some(agreed.longest), secret, once };
        let mut answer = exchange(&mut self.link, line, &parcel).await?;
        for _ in 0..PUSHES {
            let plain = match &mut agreed.cover {
                Some(cover) => cover.off(answer)?,
                None => off_nothing(answer)?,
            };
            if !matches!(plain.first(), Some(&(0x0F | 0xC2 | 0x18))) {
                judge(&plain)?;
                return Ok(plain);
            }
            debug!("the meter sent something by itself before its answer; it is left out");
            answer = transfer::receive(&mut self.link, line).await?;
        }
        Err(unexpected("the meter sends without end instead of answering").into())
    }

    /// What the meter grants.
    pub(super) fn granted(&self) -> Conformance {
        self.agreed.as_ref().map(|agreed| agreed.granted).unwrap_or_default()
    }

    /// The longest plain request that it takes in one piece, in bytes; 65,535 when it does not say.
    pub(super) fn longest_request(&self) -> usize {
        let Some(agreed) = self.agreed.as_ref().filter(|agreed| agreed.longest > 0) else { return 0xFFFF };
        // Tag, length, title, security control, counter and the cipher's tag.
        let ciphered = agreed.cover.as_ref().is_some_and(Cover::ciphered);
        agreed.longest.saturating_sub(if ciphered { 1 + 9 + 3 + 5 + 12 } else { 0 })
    }

    /// Whether the last error came because the meter gave the link up: all may be well with a new one.
    /// Not so when a password or key would be shown once more for the same cause.
    pub(super) fn was_dropped(&self) -> bool {
        self.link.was_dropped() && !self.held
    }

    /// Forgets an association whose connection is ended without a word.
    pub(super) fn abandon(&mut self) {
        self.agreed = None;
    }

    /// Releases association and link as far as the meter still listens.
    pub(super) async fn close(&mut self, line: &mut Line) {
        if let Some(agreed) = self.agreed.take() {
            self.release(line, &agreed).await;
        }
        self.link.close(line).await;
    }

    /// Closes the link without a release, which the meter would not understand any more.
    pub(super) async fn forget(&mut self, line: &mut Line) {
        self.agreed = None;
        self.link.close(line).await;
    }

    async fn release(&mut self, line: &mut Line, agreed: &Agreed) {
        let mut information = None;
        if let Some(cover) = agreed.cover.as_ref().filter(|cover| cover.ciphered()) {
            // Without it a ciphered association could be ended by anybody, so that meters ask for it.
            let proposed = greeting::proposal(agreed.context, self.dlms.general_blocks);
            let Ok(initiate) = greeting::initiate(proposed, 0xFFFF, None) else { return };
            let Ok(initiate) = cover.initiate(&initiate, &mut self.memory).await else { return };
            information = Some(initiate);
        }
        let release = Rlrq { reason: Some(ReleaseReason::Normal), user_information: information.as_deref() };
        if let Ok(request) = encode(&release) {
            let parcel = Parcel { apdu: &request, blocks: None, secret: false, once: false };
            if let Err(error) = exchange(&mut self.link, line, &parcel).await {
                debug!(%error, "the meter did not confirm the end of the association");
            }
        }
    }
}

/// What is granted, and the longest APDU that the meter takes.
fn terms(answer: &Aare<'_>, cover: Option<&mut Cover>, proposed: Conformance) -> Result<(Conformance, usize), Stumble> {
    let Some(information) = answer.user_information else { return Ok((proposed, 0)) };
    let information = match cover {
        Some(cover) => cover.off(information.to_vec())?,
        None => off_nothing(information.to_vec())?,
    };
    judge(&information)?;
    match decode::<Apdu<'_>>(&information).map_err(damaged)?.0 {
        Apdu::InitiateResponse(response) => {
            Ok((response.negotiated_conformance, usize::from(response.server_max_receive_pdu_size)))
        }
        _ => Err(unexpected("the association's answer tells nothing of what is granted").into()),
    }
}

/// Finds a refusal of the service as a whole.
fn judge(plain: &[u8]) -> Result<(), Stumble> {
    match plain.split_first() {
        Some((0xD8, rest)) => {
            let (exception, _) = decode::<ExceptionResponse>(rest).map_err(damaged)?;
            let why = words::exception(&exception);
            Err(match exception.service_error {
                ServiceError::InvocationCounterError => Stumble::Counter(exception.expected_invocation_counter),
                ServiceError::DecipheringError => Stumble::Undeciphered { why, clear: true },
                _ => Stumble::Final(MeterError::Refused(why)),
            })
        }
        Some((0x0E, rest)) => {
            let (error, _) = decode(rest).map_err(damaged)?;
            let why = words::service_error(error);
            // Class 0, application reference: deciphering error.
            let deciphering = error.error_class == 0 && error.error_code == 6;
            Err(match deciphering {
                true => Stumble::Undeciphered { why, clear: true },
                false => Stumble::Final(MeterError::Refused(why)),
            })
        }
        _ => Ok(()),
    }
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut generator = random::generator();
    (0..count).map(|_| generator.random()).collect()
}

/// What came is not what it should be.
pub(super) fn damaged(error: crate::wire::DecodeError) -> MeterError {
    MeterError::Damaged(error.to_string())
}

fn unexpected(what: &str) -> MeterError {
    MeterError::Damaged(what.to_owned())
}
