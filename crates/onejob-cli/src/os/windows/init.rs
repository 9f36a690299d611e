//! What there is no such thing as.

use std::io;

use onejob::{Child, Signal};

/// What happens to stand in for others has no name for it here.
pub(crate) fn called_as() -> Option<&'static str> {
    None
}

/// Why there is no init here.
pub(crate) fn why_no_init() -> Option<&'static str> {
    Some("there is no init on Windows, where nobody becomes an orphan (onejob run does the rest)")
}

pub(crate) fn is_first() -> bool {
    false
}

pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

pub(crate) fn reap_orphans(_: u32, _: impl FnMut(u32)) {}

pub(crate) fn die_with_parent(_: Signal) -> io::Result<()> {
    Ok(())
}

pub(crate) fn lead_group() {}

pub(crate) fn leave_terminal() -> Vec<Signal> {
    Vec::new()
}

pub(crate) fn suspend() {}

pub(crate) fn signal_own_group(_: Signal) {}

pub(crate) fn signal_if_elsewhere(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal(signal)
}

pub(crate) fn signal_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal(signal)
}

/// A status is a number and nothing more.
pub(crate) fn end_killed() {}

/// Nothing can be watched here without reading from it.
#[derive(Debug)]
pub(crate) enum Lifeline {}

impl Lifeline {
    pub(crate) fn hold(_: i32) -> Result<Lifeline, String> {
        Err("there are no lifelines on Windows yet (the tree ends with onejob itself)".to_owned())
    }

    pub(crate) fn is_cut(&self) -> bool {
        match *self {}
    }
}
