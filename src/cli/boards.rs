//! `weir boards`: the hardware weir knows.

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::failure::Failure;
use super::table;
use crate::board::{self, Board};

/// List the boards weir knows, and the ports each one has.
///
/// Boards are data: a file in /etc/weir/boards adds one (see boards/README.md).
#[derive(Debug, Args)]
pub(super) struct Boards {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Boards {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (boards, broken) = board::survey(Path::new(board::DIRECTORY));
        let mut out = std::io::stdout().lock();
        if self.json {
            for board in &boards {
                let _ = writeln!(out, "{}", object(board));
            }
        } else {
            let _ = out.write_all(table::render(&["board", "what it is", "ports"], &rows(&boards)).as_bytes());
        }
        match broken.first() {
            Some(problem) => Err(Failure::config(problem.to_string())),
            None => Ok(()),
        }
    }
}

fn rows(boards: &[Board]) -> Vec<Vec<String>> {
    let ports = |board: &Board| {
        let listed = board.description.port.iter().map(|p| format!("{}={}", p.name, p.device.display()));
        listed.collect::<Vec<_>>().join(" ")
    };
    boards.iter().map(|b| vec![b.name.clone(), b.description.title.clone(), ports(b)]).collect()
}

fn object(board: &Board) -> serde_json::Value {
    let ports = board.description.port.iter().map(
        |p| serde_json::json!({ "name": p.name, "device": p.device, "direction": p.direction.word(), "about": p.about }),
    );
    serde_json::json!({
        "name": board.name, "title": board.description.title, "targets": board.description.targets,
        "file": board.file, "size_budget": board.description.size_budget.bytes(),
        "ports": ports.collect::<Vec<_>>(),
    })
}
