//! Where log lines go: standard error, plain under the service manager.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at `level`; libraries stay at WARN unless more than DEBUG is asked for. Under
/// systemd the journal adds the time itself. Calling it twice keeps the first.
pub(super) fn start(level: LevelFilter) {
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_target("weir", level).with_default(libraries);
    let terminal = std::io::stderr().is_terminal();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if journal { registry.with(layer.without_time()).try_init() } else { registry.with(layer).try_init() };
}
