//! A scope of systemd: a delegated cgroup with controllers, for hosts where the cgroup of this process is
//! not delegated or has no controllers.
//!
//! An owner has at most one scope, made when it is first needed: its guards are moved into a leaf of it,
//! and its jobs are made beside that leaf. The owner stays where it is, so the guards start the members.
//! No other process is moved. The scope goes when the last process in it has ended, which the guards
//! ensure.

use std::{
    env,
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    process::geteuid,
};

use super::dbus;
use crate::{
    Error, Result,
    sys::linux::cgroup::{delegation::ParentCgroup, location},
    trace::event,
};

/// The longest time for all messages to and from the service manager.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The cgroup of the guards in the scope.
const LEAF: &str = "guards";

/// The socket of the bus of the service manager: the system bus for root, else the bus of the user.
pub(crate) fn bus() -> Result<PathBuf> {
    let place = if geteuid().is_root() { system_bus() } else { user_bus() };
    match place {
        Some(path) if path.exists() => Ok(path),
        Some(path) => Err(lacking(format!("there is no bus at {}", path.display()))),
        None => Err(lacking("the address of its bus is not a path".to_owned())),
    }
}

fn system_bus() -> Option<PathBuf> {
    match env::var_os("DBUS_SYSTEM_BUS_ADDRESS") {
        Some(address) => path_in(&address),
        None => Some("/run/dbus/system_bus_socket".into()),
    }
}

fn user_bus() -> Option<PathBuf> {
    if let Some(address) = env::var_os("DBUS_SESSION_BUS_ADDRESS") {
        return path_in(&address);
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = || PathBuf::from(format!("/run/user/{}", geteuid().as_raw()));
    Some(runtime.unwrap_or_else(usual).join("bus"))
}

/// The path in a list of addresses like `unix:path=/run/user/1000/bus,guid=…;…`.
fn path_in(address: &OsStr) -> Option<PathBuf> {
    let addresses = address.as_bytes().split(|byte| *byte == b';');
    let unix = addresses.filter_map(|address| address.strip_prefix(b"unix:"));
    let mut keys = unix.flat_map(|address| address.split(|byte| *byte == b','));
    let path = keys.find_map(|key| key.strip_prefix(b"path="))?;
    // Only unusual characters are escaped.
    (!path.contains(&b'%')).then(|| OsStr::from_bytes(path).into())
}

fn lacking(why: String) -> Error {
    let error = Error::unsupported(format!("systemd makes no scope: {why}"));
    match geteuid().is_root() {
        true => error,
        false => error.with_hint(
            "start a systemd user manager: loginctl enable-linger, or log in with pam_systemd; it \
             needs dbus (Debian: dbus-user-session)",
        ),
    }
}

/// A descriptor for a guard that gets the directory of its scope later.
pub(crate) fn placeholder() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::os("open the root directory", e))
}

/// A scope that exists.
pub(crate) struct Scope {
    parent: ParentCgroup,
    /// `cgroup.procs` of the leaf.
    leaf: OwnedFd,
}

impl Scope {
    /// Requests a scope around the guard with this pid, which has made the connection. `asks` is called
    /// before the request.
    pub(crate) fn around(
        connection: OwnedFd,
        guard: u32,
        name: &str,
        asks: &dyn Fn(),
    ) -> Result<Scope> {
        let unit = format!("{name}.scope");
        let line = connection.try_clone().map_err(|e| Error::os("keep the connection", e))?;
        // The guard, which has the connection too, then stops waiting.
        let hang_up = |failure: dbus::Failure| {
            let _ = rustix::net::shutdown(&line, rustix::net::Shutdown::Both);
            lacking(failure.to_string())
        };
        let deadline = Instant::now() + TIMEOUT;
        let user = geteuid().as_raw();
        let mut bus = dbus::Bus::greet(connection, user, deadline).map_err(hang_up)?;
        let owner = format!("Jobs of process {} (onejob)", std::process::id());
        event!(debug, "systemd scope requested", unit = unit, guard = guard);
        asks();
        match bus.start_scope(&unit, &owner) {
            Ok(()) => {}
            // The guard waits: the scope can still be made.
            Err(slow @ dbus::Failure::Slow) => return Err(lacking(slow.to_string())),
            Err(failure) => return Err(hang_up(failure)),
        }
        Scope::found(guard, &unit).inspect_err(|_| {
            // The guard was killed meanwhile: no process is left whose end would end the scope.
            let _ = bus.stop_scope(&unit, Instant::now() + TIMEOUT);
        })
    }

    fn found(guard: u32, unit: &str) -> Result<Scope> {
        let path = location::cgroup_of(guard)?;
        // Even if the pid has passed to another process: the name of the unit is random.
        if path.file_name() != Some(OsStr::new(unit)) {
            return Err(lacking(format!("the guard is in {} instead of {unit}", path.display())));
        }
        Scope::open(path)
    }

    fn open(path: PathBuf) -> Result<Scope> {
        let shown = path.display().to_string();
        let failed = |e: rustix::io::Errno| Error::os(format!("use the scope {shown}"), e);
        let parent = ParentCgroup::open(path)?;
        rustix::fs::mkdirat(&parent.dir, LEAF, Mode::RWXU).map_err(failed)?;
        let procs = Path::new(LEAF).join("cgroup.procs");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let leaf = rustix::fs::openat(&parent.dir, &procs, flags, Mode::empty()).map_err(failed)?;
        Ok(Scope { parent, leaf })
    }

    /// The descriptors that the guard needs to enter the scope, and the scope as a place for jobs.
    pub(crate) fn descriptors(self) -> Result<([OwnedFd; 2], ParentCgroup)> {
        let Scope { parent: ParentCgroup { path, dir }, leaf } = self;
        let of_guard = dir.as_fd().try_clone_to_owned();
        let of_guard =
            of_guard.map_err(|e| Error::os("duplicate the directory of the scope", e))?;
        // Processes that look for abandoned scopes see that this one is in use.
        let _ = flock(&dir, FlockOperation::NonBlockingLockShared);
        Ok(([of_guard, leaf], ParentCgroup { path, dir }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_bus_is_found_in_its_address() {
        let path = |address: &str| path_in(OsStr::new(address));
        assert_eq!(path("unix:path=/run/user/1/bus"), Some("/run/user/1/bus".into()));
        assert_eq!(path("tcp:host=a;unix:guid=1,path=/b"), Some("/b".into()));
        for other in ["", "unix:abstract=/tmp/x", "tcp:host=path=/x", "unix:path=/a%20b"] {
            assert_eq!(path(other), None, "{other}");
        }
    }
}
