//! Spawns of one thread, and stops of the members by another.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Signal;

/// A child that is frozen or stopped before it has executed its program would suspend the thread that starts
/// it until it is continued. So each spawn holds this lock shared, and each operation that stops members holds
/// it alone while it stops them.
#[derive(Default)]
pub(super) struct SpawnLock(RwLock<()>);

impl SpawnLock {
    /// For a spawn.
    pub(super) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an operation that stops members.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a signal to the members. A child blocks all other signals that stop it until it executes its program.
    pub(super) fn for_signal(&self, signal: Signal) -> Option<RwLockWriteGuard<'_, ()>> {
        (signal == Signal::STOP).then(|| self.alone())
    }
}
