//! `weir at`: a command in AT style for the running agent, signed where that is wanted.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::RngExt;
use serde_json::{Value as Json, json};
use tracing::level_filters::LevelFilter;

use super::failure::{Failure, OTHER};
use super::log;
use crate::agent::local;
use crate::control::{Envelope, Signer};
use crate::os::clock::Clock;
use crate::os::file::read_small;
use crate::os::random;
use crate::{agent, board, config};

/// Give the running agent a command, as a platform would by MQTT or an authorised phone by SMS.
///
/// AT^WEIR=HELP lists the commands. The answer is printed as it would be sent; a command that was not carried out ends
/// with exit code 1. With --sign FILE --print it is signed for a gateway elsewhere and only printed, for mosquitto_pub.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The command, e.g. 'AT^WEIR=STATUS'.
    #[arg(required_unless_present = "new_key")]
    command: Option<String>,

    /// Sign it with the private key in this file (docs/control.md).
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,

    /// The name of the key in the gateway's keys_file; unset: what the key's file says.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,

    /// The gateway that a signed command is for: its id or IMEI, or * for every one. Unset: the one of the configuration.
    #[arg(long, value_name = "ID", requires = "sign")]
    device: Option<String>,

    /// The nonce of a signed command: for a gateway without time what AT^WEIR=CHALLENGE has answered. Unset: a random one.
    #[arg(long, value_name = "TEXT", requires = "sign")]
    nonce: Option<String>,

    /// An id that stands in the answer.
    #[arg(long, value_name = "TEXT", requires = "sign")]
    id: Option<String>,

    /// Print the signed command instead of giving it to the agent here.
    #[arg(long, requires = "sign")]
    print: bool,

    /// Make a new key in this file, readable by its owner only, and print the line for the gateway's keys_file.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["command", "sign"])]
    new_key: Option<PathBuf>,
}

impl At {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        if let Some(file) = &self.new_key {
            return self.make_key(file);
        }
        let text = match &self.sign {
            Some(file) => self.signed(file, &config)?,
            None => self.command.clone().unwrap_or_default(),
        };
        if self.print {
            let _ = writeln!(std::io::stdout().lock(), "{text}");
            return Ok(());
        }
        let settings = config::effective(&config)?.settings;
        let failed = |error: local::ClientError| Failure::other(error.to_string());
        let mut agent = local::Client::connect(&settings.store.path).map_err(failed)?;
        let told = agent.ask(&json!({ "ask": "at", "text": text })).map_err(failed)?;
        let reply = told.get("reply").and_then(Json::as_str).unwrap_or_default();
        let _ = writeln!(std::io::stdout().lock(), "{reply}");
        let refused = reply.contains(" ERROR: ") || reply.contains("\"ok\":false");
        if refused { Err(Failure::silent(OTHER)) } else { Ok(()) }
    }

    fn make_key(&self, file: &Path) -> Result<(), Failure> {
        let name = self.key.as_deref().unwrap_or_default();
        let text = Signer::generate(name).map_err(Failure::usage)?;
        let line = Signer::read(&text).map_err(Failure::other)?.public(name);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let written = written.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        // Never over one that is there: gateways may know it.
        written.map_err(|error| Failure::other(format!("{} can't be written: {error}", file.display())))?;
        let _ = writeln!(std::io::stdout().lock(), "{line}");
        let keep =
            "keep the file secret; the line above belongs into the keys_file of each gateway that it may command";
        let _ = writeln!(std::io::stderr(), "{keep}");
        Ok(())
    }

    /// The command as signed JSON.
    fn signed(&self, file: &Path, config: &Path) -> Result<String, Failure> {
        const LARGEST: u64 = 16 << 10;
        let unusable = |why: String| Failure::other(format!("{}: {why}", file.display()));
        let text = read_small(file, LARGEST).map_err(|error| unusable(error.to_string()))?;
        let signer = Signer::read(&String::from_utf8_lossy(&text)).map_err(unusable)?;
        let unnamed = || Failure::usage("the key's file tells no name: give it with --key NAME");
        let key = self.key.clone().or_else(|| signer.name().map(str::to_owned)).ok_or_else(unnamed)?;
        let device = match &self.device {
            Some(device) => device.clone(),
            None => this_gateway(config)?,
        };
        let nonce = self
            .nonce
            .clone()
            .unwrap_or_else(|| data_encoding::HEXLOWER.encode(&random::generator().random::<[u8; 16]>()));
        let mut envelope = Envelope {
            at: self.command.clone().unwrap_or_default(),
            id: self.id.clone(),
            device: Some(device),
            time: Some(Clock::system().now().to_string()),
            nonce: Some(nonce),
            key: Some(key),
            signature: None,
        };
        signer.sign(&mut envelope);
        serde_json::to_string(&envelope).map_err(|error| Failure::other(error.to_string()))
    }
}

/// What the gateway of the configuration is called.
fn this_gateway(config: &Path) -> Result<String, Failure> {
    let settings = config::effective(config)?.settings;
    let board = board::load(&settings.gateway.board).map_err(|error| Failure::config(error.to_string()))?;
    Ok(agent::identity(&settings, &board).id)
}
