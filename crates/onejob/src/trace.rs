//! Events for the crate `tracing`. Without the feature of that name, [`event!`] compiles to nothing.
//!
//! The events describe rare steps: a job or a guard is created or ends, a process is started, a round of a
//! kill. All have the target `onejob`.

/// `event!(debug, "message", field = value, …)`. The values are only formatted for a subscriber that
/// wants the event.
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!(
            target: "onejob", $($field = ::tracing::field::display(&$value),)* $message
        );
        #[cfg(not(feature = "tracing"))]
        if false {
            $(let _ = &$value;)*
        }
    }};
}

pub(crate) use event;
