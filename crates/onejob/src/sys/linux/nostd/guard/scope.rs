//! Moves the guard into a scope of the service manager: before there is an inner guard, so that both guards and
//! every process that they start are in it.
//!
//! The guard connects to the bus of the manager and sends the connection to the owner, which makes the request. So
//! for the manager the request comes from the guard, whatever PID namespace it is in, and there is no pid in it.

use super::{
    super::{
        protocol::{self, Message, ReceivedFds},
        syscall::{self, AsFd, CStr, CWD, Errno, OwnedFd, POLLIN, PollFd, Result, getpid, poll},
    },
    task::OwnerFds,
};

/// Returns when the guard is in the scope, with the directory of the scope.
pub(super) fn enter(owner: OwnerFds, bus: &CStr, prefix: &[u8]) -> Result<OwnedFd> {
    let connection = syscall::connect_stream(bus)?;
    let mut connected = Message::new(protocol::CONNECTED);
    connected.numbers[0] = getpid() as u64;
    protocol::send(owner.socket, &connected, &[connection.as_fd()])?;
    let mut fds = ReceivedFds::new();
    let mut is_requested = false;
    loop {
        let mut waiting = [PollFd::new(&owner.socket, POLLIN), PollFd::new(&owner.pidfd, POLLIN)];
        poll(&mut waiting, -1);
        // The messages of a dead owner come first.
        match waiting[0].fired().then(|| protocol::receive(owner.socket, &mut fds)).transpose()? {
            Some(Some(Message { kind: protocol::ASKED, .. })) => is_requested = true,
            Some(Some(Message { kind: protocol::ENTER, .. })) => break,
            None if !waiting[1].fired() => {}
            // There is no scope, or the owner is dead.
            _ if is_requested => exit_after_request(&connection, prefix),
            _ => syscall::exit(0),
        }
    }
    drop(connection);
    let [scope, procs] = fds.as_mut_slice() else { return Err(Errno::INVAL) };
    let (Some(scope), Some(procs)) = (scope.take(), procs.take()) else { return Err(Errno::INVAL) };
    // A cgroup that enables controllers for the cgroups below it must not have members itself.
    syscall::write(procs, b"0")?;
    Ok(scope)
}

/// Exits, but not while systemd may be creating the scope: it would add the dead process, ignore the error, and
/// wait without limit for the end of a scope that has never had a process. So this waits until the guard is in the
/// scope, or until the bus has closed the connection, which the owner causes after an error. In case neither
/// happens, the number of rounds is limited: of rounds and not of seconds, because the whole machine can stand
/// still for a time, which is then part of one round.
fn exit_after_request(connection: &OwnedFd, prefix: &[u8]) -> ! {
    const ROUNDS: u32 = 40;
    for _ in 0..ROUNDS {
        if is_in_scope(prefix) {
            break;
        }
        // Without a requested event only the end of the connection ends this wait. The guard does not read the
        // messages of the bus: if they never end, each would end a round.
        let mut hung_up = [PollFd::new(connection, 0)];
        poll(&mut hung_up, 500);
        if hung_up[0].fired() {
            break;
        }
    }
    syscall::exit(0)
}

/// Whether this process is in the scope, whose name is the prefix without the dash at its end.
fn is_in_scope(prefix: &[u8]) -> bool {
    let name = prefix.strip_suffix(b"-").unwrap_or(prefix);
    let mut text = [0_u8; 4096];
    let read = syscall::openat(CWD, c"/proc/self/cgroup", 0)
        .and_then(|file| syscall::read(file, &mut text));
    let text = text.get(..read.unwrap_or(0)).unwrap_or(&[]);
    !name.is_empty() && (0..text.len()).any(|at| text.get(at..).unwrap_or(&[]).starts_with(name))
}
