//! Checks that a member is in its special state, by its handle or its report.

use testkit::{Helper, Sandbox, proc};

pub(crate) const MECHANISMS: &[&str] = &["job-object"];

/// Windows has no sessions in this sense: checks that the member has no console.
#[track_caller]
pub(crate) fn left_the_session(helper: &Helper) {
    assert!(has_left_the_session(helper), "{helper:?} has a console");
}

pub(crate) fn has_left_the_session(helper: &Helper) -> bool {
    helper.place.contains("console=0")
}

/// Cannot be checked on Windows.
pub(crate) fn leads_a_group(_: &Helper) {}

/// Windows does not change the parent of an orphan: checks that the parent has ended.
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

/// A Job Object has no guards.
pub(crate) fn guards(_: &Sandbox, _: i32) -> Vec<i32> {
    Vec::new()
}
