//! Where log lines go: standard error, plain under the service manager; the newest are kept for the command LOG.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::os::log_tail;

/// Starts logging at `level`; libraries stay at WARN unless more than DEBUG is asked for. Under
/// systemd the journal adds the time itself. Calling it twice keeps the first.
pub(super) fn start(level: LevelFilter) {
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_target("weir", level).with_default(libraries);
    let terminal = std::io::stderr().is_terminal();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    let kept = tracing_subscriber::fmt::layer().with_writer(|| log_tail::Writer).with_ansi(false).with_target(false);
    // Below INFO there may be bytes of meters and platforms.
    let registry = tracing_subscriber::registry().with(filter).with(kept.with_filter(LevelFilter::INFO));
    let _ = if journal { registry.with(layer.without_time()).try_init() } else { registry.with(layer).try_init() };
}
