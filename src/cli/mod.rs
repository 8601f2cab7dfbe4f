//! The commands a person types: one file each.
//!
//! Invariants: what a person asked for goes to standard output, everything else to standard
//! error; `--json` prints machine-readable lines only; a failure is one sentence that says what
//! to do, and an exit code as in sysexits.h. Start with [`main`].

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

mod at;
mod boards;
mod check;
mod config;
mod decode;
#[cfg(feature = "demo")]
mod demo;
mod dlms;
mod failure;
mod firmware;
mod import_mtx;
mod log;
mod meters;
mod modem;
mod patience;
mod ports;
mod radio;
mod read;
mod report;
mod run;
mod scan;
mod store;
mod table;
mod trace;
mod traffic;
mod tunnel;

use failure::Failure;

/// The edge concentrator: reads meters over wire and radio, keeps every frame until the broker
/// has acknowledged it, and publishes over TLS MQTT.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  weir demo                       see it work, with nothing connected
  weir scan PORT                  which meters are on this line? proposes the configuration
  weir check                      is /etc/weir/weir.toml right?
  weir config                     change a setting, on trial; history, diff, rollback
  weir import-mtx CONFIG.TXT      a config.txt of an MTX modem becomes a weir.toml
  weir read METER                 one reading now, as a table
  weir dlms METER OBJECT          one object of a DLMS meter, explained
  weir report                     everything tried once: the sheet to hand over
  weir meters                     how every meter has been doing
  weir ports                      who has each serial port now
  weir radio                      who is heard by radio, how well and how often
  weir at AT^WEIR=HELP            commands for the running agent, as by MQTT and SMS
  weir modem status               the cellular modem: signal, network, SIM
  weir trace PORT                 the bytes on a port, and what they mean
  weir run                        run the agent (systemd does this)"
)]
struct Arguments {
    /// The configuration file: weir.toml, or a config.txt of an MTX modem.
    #[arg(long, short, global = true, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,

    /// How much to log to standard error: off, error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<LevelFilter>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    Run(run::Run),
    Check(check::Check),
    Config(config::ConfigCommand),
    ImportMtx(import_mtx::ImportMtx),
    Scan(scan::Scan),
    Read(read::Read),
    Dlms(dlms::Dlms),
    Report(report::Report),
    Meters(meters::Meters),
    Ports(ports::Ports),
    Radio(radio::Radio),
    At(at::At),
    Modem(modem::ModemCommand),
    Trace(trace::Trace),
    Store(store::StoreCommand),
    Traffic(traffic::Traffic),
    Tunnel(tunnel::Tunnel),
    Decode(decode::Decode),
    Boards(boards::Boards),
    #[command(hide = true)]
    FirmwareSignature(firmware::FirmwareSignature),
    /// Print the completion script of a shell, e.g. `weir completions bash > /etc/bash_completion.d/weir`.
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        shell: clap_complete::Shell,
    },
}

/// One thread for everything that waits: see ARCHITECTURE.md.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::other(format!("the runtime cannot start: {e}")))
}

/// Runs the command line and returns the exit code: 0, 1, 64 (usage) or 78 (configuration).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return if usage { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let result = dispatch(arguments);
    result.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { config, log, command } = arguments;
    match command {
        #[cfg(feature = "demo")]
        Command::Demo(command) => command.run(log),
        Command::Run(command) => command.run(config, log),
        Command::Check(command) => command.run(config),
        Command::Config(command) => command.run(config),
        Command::ImportMtx(command) => command.run(),
        Command::Scan(command) => command.run(&config, log),
        Command::Read(command) => command.run(config, log),
        Command::Dlms(command) => command.run(config, log),
        Command::Report(command) => command.run(config, log),
        Command::Meters(command) => command.run(config),
        Command::Ports(command) => command.run(config),
        Command::Radio(command) => command.run(config, log),
        Command::At(command) => command.run(config, log),
        Command::Modem(command) => command.run(config, log),
        Command::Trace(command) => command.run(config, log),
        Command::Store(command) => command.run(config),
        Command::Traffic(command) => command.run(config),
        Command::Tunnel(command) => command.run(config, log),
        Command::Decode(command) => command.run(),
        Command::Boards(command) => command.run(),
        Command::FirmwareSignature(command) => command.run(),
        Command::Completions { shell } => {
            // Into memory first: the generator panics when a pipe is closed early.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut script);
            let _ = std::io::stdout().write_all(&script);
            Ok(())
        }
    }
}
