//! What is said to a modem before it is used.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::dialogue::{Broken, Dialogue};
use super::pin;
use super::{Modem, State, Status};
use crate::wire::modem::{Ending, Fault, Kind, Pin, iccid, imei, pin as read_pin, quoted_or_rest, room};

/// How the modem wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As PDUs.
    Pdu,
    /// As text in UCS-2, written in hex.
    TextUcs2,
    /// As text in ASCII.
    Text,
}

/// What was found out of a modem.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) form: Form,
    /// The storage that messages come to; `None` when it can't be chosen.
    pub(super) storage: Option<String>,
    /// `AT+CESQ` or `AT+QCSQ`, whichever tells RSRP.
    pub(super) strength: Option<&'static str>,
}

/// How a start ended.
pub(super) enum Start {
    Ready(Found),
    /// The SIM is missing or wants something; the sentence says what.
    Locked(String),
}

/// How long a SIM may take to get ready after it was given its PIN, or after the modem started.
const SIM_READY: Duration = Duration::from_secs(30);

/// Brings the modem into the state that everything else expects.
pub(super) async fn start(modem: &Modem, dialogue: &mut Dialogue, status: &mut Status) -> Result<Start, Broken> {
    dialogue.meet().await?;
    // What it said before is over; that it starts anew from now on is news.
    dialogue.forget();
    for command in ["ATE0", "ATV1", "AT+CMEE=1"] {
        dialogue.ask(command).await?;
    }
    identify(dialogue, status).await?;
    // Most modems tell it before the PIN too: then it is known which SIM refused which.
    status.iccid = sim_number(dialogue).await?;
    let busy = std::mem::take(&mut dialogue.busy);
    if let Err(why) = unlock(modem, dialogue, status).await? {
        dialogue.busy += if dialogue.busy > 0 { busy } else { 0 };
        return Ok(Start::Locked(why));
    }
    if status.iccid.is_none() {
        status.iccid = sim_number(dialogue).await?;
    }
    if let Err(error) = pin::ready(&modem.folder, status.iccid.as_deref()).await {
        warn!(%error, "what is remembered of refused PINs can't be cleared");
    }
    for command in ["AT+CREG=2", "AT+CEREG=2", "AT+COPS=3,0"] {
        dialogue.ask(command).await?;
    }
    let form = form(dialogue).await?;
    let storage = if modem.only_watches { None } else { storage(dialogue, status).await? };
    if !modem.only_watches {
        announce(dialogue).await?;
        dialogue.ask("AT+CLIP=1").await?;
    }
    let mut strength = None;
    for command in ["AT+CESQ", "AT+QCSQ"] {
        if dialogue.ask(command).await?.is_ok() {
            strength = Some(command);
            break;
        }
    }
    Ok(Start::Ready(Found { form, storage, strength }))
}

async fn sim_number(dialogue: &mut Dialogue) -> Result<Option<String>, Broken> {
    for command in ["AT+CCID", "AT+ICCID", "AT+QCCID", "AT^ICCID?"] {
        let told = dialogue.ask(command).await?.find(iccid);
        if told.is_some() {
            return Ok(told);
        }
    }
    Ok(None)
}

async fn identify(dialogue: &mut Dialogue, status: &mut Status) -> Result<(), Broken> {
    let plain = |line: &str| {
        let text: String = quoted_or_rest(line).chars().filter(|c| !c.is_control()).take(60).collect();
        (!text.is_empty()).then_some(text)
    };
    status.maker = dialogue.ask("AT+CGMI").await?.find(plain);
    status.model = dialogue.ask("AT+CGMM").await?.find(plain);
    status.firmware = dialogue.ask("AT+CGMR").await?.find(plain);
    status.imei = dialogue.ask("AT+CGSN").await?.find(imei);
    Ok(())
}

/// Waits for the SIM and shows it the PIN if it wants one.
async fn unlock(modem: &Modem, dialogue: &mut Dialogue, status: &mut Status) -> Result<Result<(), String>, Broken> {
    let deadline = Instant::now() + SIM_READY;
    let mut shown = false;
    loop {
        let answer = dialogue.ask("AT+CPIN?").await?;
        let wants = answer.find(read_pin);
        status.sim = Some(match (&wants, answer.fault()) {
            (Some(Pin::Ready), _) => "ready".to_owned(),
            (Some(Pin::Pin), _) => "pin".to_owned(),
            (Some(Pin::Puk), _) => "puk".to_owned(),
            (Some(Pin::Other(words)), _) => words.to_ascii_lowercase(),
            (None, Some(fault)) => fault.meaning().map_or_else(|| fault.to_string(), str::to_owned),
            (None, None) => "unknown".to_owned(),
        });
        let may_pass = answer.fault().is_some_and(Fault::may_pass) || answer.fault().is_none() && wants.is_none();
        match wants {
            Some(Pin::Ready) => return Ok(Ok(())),
            Some(Pin::Pin) if !shown => {
                shown = true;
                if let Err(why) = show(modem, dialogue, status.iccid.as_deref()).await? {
                    return Ok(Err(why));
                }
            }
            Some(Pin::Puk) => {
                return Ok(Err("the SIM is blocked and wants its PUK; unblock it in a telephone".to_owned()));
            }
            Some(Pin::Other(words)) => return Ok(Err(format!("the SIM or the modem wants \"{words}\""))),
            // It was given its PIN and is not ready yet, or is busy.
            Some(Pin::Pin) => {}
            None if may_pass => {}
            None => {
                let why = answer.fault().map_or_else(String::new, ToString::to_string);
                return Ok(Err(format!("the SIM can't be used: {why}")));
            }
        }
        if Instant::now() >= deadline {
            return Ok(Err("the SIM does not get ready".to_owned()));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn show(modem: &Modem, dialogue: &mut Dialogue, sim: Option<&str>) -> Result<Result<(), String>, Broken> {
    let Some(file) = &modem.settings.pin_file else {
        return Ok(Err("the SIM wants its PIN; write it into a file and name that as pin_file in [modem]".to_owned()));
    };
    let trial = match pin::trial(file.path(), &modem.folder, sim).await {
        Ok(trial) => trial,
        Err(why) => return Ok(Err(why)),
    };
    // What can't be remembered must not be tried.
    if let Err(error) = trial.begin().await {
        return Ok(Err(format!("it can't be remembered that the PIN is tried, so it is not: {error}")));
    }
    let answer = dialogue.ask_within(&format!("AT+CPIN=\"{}\"", trial.pin()), SIM_READY).await?;
    let mut verdict = Verdict::of(&answer.end);
    if verdict == Verdict::Unclear && dialogue.ask("AT+CPIN?").await?.find(read_pin) == Some(Pin::Ready) {
        verdict = Verdict::Taken;
    }
    let remembered = match verdict {
        Verdict::Taken => {
            info!("the SIM took its PIN");
            trial.taken().await
        }
        Verdict::Unseen => trial.unseen().await,
        Verdict::Refused => {
            error!("the SIM refused the PIN of pin_file; it is not tried again");
            trial.refused().await
        }
        // What was written down before says so.
        Verdict::Unclear => {
            error!("the SIM gave no clear answer to the PIN of pin_file, and may have counted it as wrong");
            Ok(())
        }
    };
    if let Err(error) = remembered {
        error!(%error, "what became of the PIN can't be remembered");
    }
    let fault = answer.fault().map(ToString::to_string).unwrap_or_default();
    dialogue.busy = u32::from(verdict == Verdict::Unseen);
    Ok(match verdict {
        Verdict::Taken => Ok(()),
        Verdict::Unseen => Err(format!(
            "the SIM was busy or away and did not look at the PIN ({fault}); it is tried again after growing pauses"
        )),
        Verdict::Refused => Err(format!("the SIM refused the PIN ({fault}); write the right one into pin_file")),
        Verdict::Unclear => Err(format!(
            "the SIM gave no clear answer to the PIN ({fault}), and may have counted it as wrong; it is not tried again: unlock the SIM once in a telephone, or write another PIN into pin_file"
        )),
    })
}

/// What a SIM made of its PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    Refused,
    /// It was away or busy: it did not look at it.
    Unseen,
    /// It may have counted it as wrong.
    Unclear,
}

impl Verdict {
    /// By 3GPP TS 27.007, 9.2.
    const fn of(end: &Ending) -> Self {
        match end {
            Ending::Ok => Self::Taken,
            Ending::Refused(Fault { kind: Kind::Equipment, code: Some(10 | 14), .. }) => Self::Unseen,
            // A SIM failure, a wrong SIM, or no answer at all.
            Ending::Refused(Fault { kind: Kind::Equipment, code: Some(13 | 15) | None, .. }) => Self::Unclear,
            Ending::Refused(_) => Self::Refused,
        }
    }
}

async fn form(dialogue: &mut Dialogue) -> Result<Form, Broken> {
    if dialogue.ask("AT+CMGF=0").await?.is_ok() {
        return Ok(Form::Pdu);
    }
    dialogue.ask("AT+CMGF=1").await?;
    if dialogue.ask("AT+CSCS=\"UCS2\"").await?.is_ok() {
        // Data coding scheme 8: UCS-2.
        dialogue.ask("AT+CSMP=17,167,0,8").await?;
        return Ok(Form::TextUcs2);
    }
    dialogue.ask("AT+CSCS=\"IRA\"").await?;
    Ok(Form::Text)
}

/// Chooses the storage that messages come to: the SIM's, else the modem's.
async fn storage(dialogue: &mut Dialogue, status: &mut Status) -> Result<Option<String>, Broken> {
    for name in ["SM", "ME"] {
        let answer = dialogue.ask(&format!("AT+CPMS=\"{name}\",\"{name}\",\"{name}\"")).await?;
        if answer.is_ok() {
            status.storage = answer.find(room).map(|room| (room.used, room.total));
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Has messages stored and announced. A modem that refuses all forms is polled.
async fn announce(dialogue: &mut Dialogue) -> Result<(), Broken> {
    for command in ["AT+CNMI=2,1,0,0,0", "AT+CNMI=1,1,0,0,0", "AT+CNMI=3,1,0,0,0", "AT+CNMI=2,1"] {
        if dialogue.ask(command).await?.is_ok() {
            return Ok(());
        }
    }
    info!("the modem does not announce messages; its storage is looked through regularly");
    Ok(())
}

impl Start {
    /// The state that this is.
    pub(super) const fn state(&self) -> State {
        match self {
            Self::Ready(_) => State::Ready,
            Self::Locked(_) => State::Locked,
        }
    }
}
