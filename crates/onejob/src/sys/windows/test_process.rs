//! A process for the unit tests.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A hang detector.
pub(super) const LONG: Duration = Duration::from_secs(180);

/// A process that runs until its standard input ends.
pub(super) fn reader() -> Child {
    let mut cmd = Command::new("cmd");
    cmd.args(["/d", "/c", "set /p x="]).stdin(Stdio::piped()).stdout(Stdio::null());
    cmd.spawn().unwrap()
}
