//! That a member is in its odd state, seen by its handle or said by itself.

use testkit::{Helper, Sandbox, proc};

pub(crate) const MECHANISMS: &[&str] = &["job-object"];

/// What comes closest to a session is a console.
#[track_caller]
pub(crate) fn left_the_session(helper: &Helper) {
    assert!(has_left_the_session(helper), "{helper:?} has a console");
}

pub(crate) fn has_left_the_session(helper: &Helper) -> bool {
    helper.place.contains("console=0")
}

/// Nothing shows it here.
pub(crate) fn leads_a_group(_: &Helper) {}

/// The kernel never names a new parent: the old one is gone.
#[track_caller]
pub(crate) fn is_orphaned(helper: &Helper) {
    assert!(!proc::is_alive(helper.parent()), "{helper:?} still has its parent");
}

#[track_caller]
pub(crate) fn holds_the_pipe_of(helper: &Helper, main: &Helper) {
    for helper in [helper, main] {
        assert!(helper.place.contains("stdout=pipe"), "{helper:?}");
    }
}

/// The kernel needs none.
pub(crate) fn guards(_: &Sandbox, _: i32) -> Vec<i32> {
    Vec::new()
}
