//! `ONEJOB_LOG=debug` or `trace`: the events of the library, a line each on the standard error.
//!
//! Without the variable no subscriber is installed, and an event costs one comparison.

use std::{env, fmt::Write as _, io::Write as _, sync::OnceLock, time::Instant};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

struct Lines;

static LEVEL: OnceLock<Level> = OnceLock::new();
static START: OnceLock<Instant> = OnceLock::new();

/// Installs the subscriber if the variable requests it.
pub(crate) fn init() {
    let level = match env::var("ONEJOB_LOG").as_deref() {
        Ok("debug") => Level::DEBUG,
        Ok("trace") => Level::TRACE,
        _ => return,
    };
    let _ = (LEVEL.set(level), START.set(Instant::now()));
    let _ = tracing::dispatcher::set_global_default(Dispatch::new(Lines));
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        LEVEL.get().is_some_and(|level| metadata.level() <= level)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        LEVEL.get().copied().map(LevelFilter::from_level)
    }

    fn event(&self, event: &Event<'_>) {
        let time = START.get().map_or(0.0, |start| start.elapsed().as_secs_f64());
        let mut line = Line(format!("onejob[{}] {time:.6}", std::process::id()));
        event.record(&mut line);
        line.0.push('\n');
        // One write: lines of several processes do not mix. A full or closed stream loses the line.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    // The library has no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, ": {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
