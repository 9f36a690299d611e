//! That a member is in its odd state, seen by its handle or said by itself.

use testkit::{Helper, Sandbox, proc};

pub(crate) const MECHANISMS: &[&str] = &["job-object"];

/// What comes closest to a session is a console.
#[track_caller]
pub(crate) fn left_the_session(player: &Helper) {
    assert!(has_left_the_session(player), "{player:?} has a console");
}

pub(crate) fn has_left_the_session(player: &Helper) -> bool {
    player.place.contains("console=0")
}

/// Nothing shows it here.
pub(crate) fn leads_a_group(_: &Helper) {}

/// The kernel never names a new parent: the old one is gone.
#[track_caller]
pub(crate) fn is_orphaned(player: &Helper) {
    assert!(!proc::is_alive(player.parent()), "{player:?} still has its parent");
}

#[track_caller]
pub(crate) fn holds_the_pipe_of(player: &Helper, main: &Helper) {
    for player in [player, main] {
        assert!(player.place.contains("stdout=pipe"), "{player:?}");
    }
}

/// The kernel needs none.
pub(crate) fn guards(_: &Sandbox, _: i32) -> Vec<i32> {
    Vec::new()
}
