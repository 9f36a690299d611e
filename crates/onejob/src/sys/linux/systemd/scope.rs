//! A scope of systemd's: a part of the hierarchy that is handed over to us, with controllers, where
//! our own cgroup is not ours or hands none down.
//!
//! One scope an owner, made when it is first needed: its guards are moved into a leaf of it, and its
//! jobs are made beside that. The owner stays where it is, so the guards start what it wants started.
//! Nobody else is ever moved. The scope goes when the last process in it has ended; the guards see to
//! that.

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
    fs::{Mode, OFlags},
    process::geteuid,
};

use super::dbus;
use crate::{
    Error, Result,
    sys::linux::cgroup::{location, root},
};

/// How long all that talking may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The guards' own place in the scope.
const LEAF: &str = "guards";

/// Where the bus of the service manager listens that would do it for us: the system's for root, the
/// user's own for others.
pub(crate) fn bus() -> Result<PathBuf> {
    let place = if geteuid().is_root() { system_bus() } else { user_bus() };
    match place {
        Some(path) if path.exists() => Ok(path),
        Some(path) => Err(lacking(format!("there is no bus at {}", path.display()))),
        None => Err(lacking("its bus is at an address that we do not understand".to_owned())),
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

/// The socket in a list of addresses like `unix:path=/run/user/1000/bus,guid=…;…`.
fn path_in(address: &OsStr) -> Option<PathBuf> {
    let addresses = address.as_bytes().split(|byte| *byte == b';');
    let unix = addresses.filter_map(|address| address.strip_prefix(b"unix:"));
    let mut keys = unix.flat_map(|address| address.split(|byte| *byte == b','));
    let path = keys.find_map(|key| key.strip_prefix(b"path="))?;
    // Escapes are for characters that no such path has.
    (!path.contains(&b'%')).then(|| OsStr::from_bytes(path).into())
}

fn lacking(why: String) -> Error {
    let error = Error::unsupported(format!("systemd makes no scope for us: {why}"));
    match geteuid().is_root() {
        true => error,
        false => error.with_hint(
            "have a systemd user manager: loginctl enable-linger, or log in with pam_systemd; it \
             needs dbus (Debian: dbus-user-session)",
        ),
    }
}

/// A scope that is there.
pub(crate) struct Scope {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
    leaf: OwnedFd,
}

impl Scope {
    /// Has one made around the process with this number, which has made the connection and is told
    /// before systemd is asked.
    pub(crate) fn around(
        connection: OwnedFd,
        guard: u32,
        name: &str,
        asks: &dyn Fn(),
    ) -> Result<Scope> {
        let unit = format!("{name}.scope");
        let line = connection.try_clone().map_err(|e| Error::os("keep the connection", e))?;
        // Then the guard, which has it too, waits for nothing more.
        let hang_up = |failure: dbus::Failure| {
            let _ = rustix::net::shutdown(&line, rustix::net::Shutdown::Both);
            lacking(failure.to_string())
        };
        let deadline = Instant::now() + PATIENCE;
        let user = geteuid().as_raw();
        let mut bus = dbus::Bus::greet(connection, user, deadline).map_err(hang_up)?;
        let owner = format!("Jobs of process {} (onejob)", std::process::id());
        asks();
        match bus.start_scope(&unit, &owner) {
            Ok(()) => {}
            // The guard waits for what may still come of it.
            Err(slow @ dbus::Failure::Slow) => return Err(lacking(slow.to_string())),
            Err(failure) => return Err(hang_up(failure)),
        }
        Scope::found(guard, &unit).inspect_err(|_| {
            // Made around a guard that was killed meanwhile: nobody's end would ever end it.
            let _ = bus.stop_scope(&unit, Instant::now() + PATIENCE);
        })
    }

    fn found(guard: u32, unit: &str) -> Result<Scope> {
        let path = location::cgroup_of(guard)?;
        // Whatever the number means by now: the name is random.
        if path.file_name() != Some(OsStr::new(unit)) {
            return Err(lacking(format!("the guard is in {} instead of {unit}", path.display())));
        }
        Scope::open(path)
    }

    fn open(path: PathBuf) -> Result<Scope> {
        let shown = path.display().to_string();
        let failed = |e: rustix::io::Errno| Error::os(format!("use the scope {shown}"), e);
        let dir = root::usable(&path)?;
        rustix::fs::mkdirat(&dir, LEAF, Mode::RWXU).map_err(failed)?;
        let procs = Path::new(LEAF).join("cgroup.procs");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let leaf = rustix::fs::openat(&dir, &procs, flags, Mode::empty()).map_err(failed)?;
        Ok(Scope { path, dir, leaf })
    }

    /// What the guard needs to be inside.
    pub(crate) fn descriptors(self) -> Result<([OwnedFd; 2], OwnedFd)> {
        let ours = self.dir.as_fd().try_clone_to_owned();
        let ours = ours.map_err(|e| Error::os("keep the directory of the scope", e))?;
        Ok(([self.dir, self.leaf], ours))
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
