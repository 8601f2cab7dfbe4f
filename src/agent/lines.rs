//! Commands that what hangs on a port gives inside tags, and the way of their answers back onto the line.

use tokio::sync::mpsc;

use super::commands::{Reply, Told};
use crate::control::{ControlSettings, Origin};
use crate::tunnel::{TAGGED_WAITING, Tags};

/// The doors for the commands of a port, where they are allowed; whoever brings them to the commands is started.
pub(super) fn tags(control: &ControlSettings, port: &str, door: &mpsc::Sender<Told>) -> Option<Tags> {
    control.line_ports.iter().any(|allowed| allowed == port).then_some(())?;
    let (commands, mut heard) = mpsc::channel::<String>(TAGGED_WAITING);
    let (give, answers) = mpsc::channel(TAGGED_WAITING);
    let (origin, door) = (Origin::Line(port.to_owned()), door.clone());
    // It ends with the tunnel, which holds the other end.
    tokio::spawn(async move {
        while let Some(text) = heard.recv().await {
            let told = Told { text: text.into_bytes(), origin: origin.clone(), reply: Reply::Line(give.clone()) };
            if door.send(told).await.is_err() {
                return;
            }
        }
    });
    Some(Tags { name: control.line_tag.to_string(), commands, answers })
}
