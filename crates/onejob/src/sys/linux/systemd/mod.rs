//! Scopes of systemd, requested over D-Bus.

pub(crate) mod dbus;
pub(crate) mod scope;
