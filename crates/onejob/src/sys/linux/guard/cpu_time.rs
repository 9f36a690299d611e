//! A budget of CPU time for a cgroup: asking a guard to watch it.

use std::{
    fs, io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::client::{Guards, Reply};
use crate::{
    Error, Result,
    sys::linux::nostd::{
        protocol::{self, Message},
        syscall::{self, POLLIN, PollFd},
    },
};

/// As long as it is there, a guard ends the cgroup when its members have used that much.
pub(crate) struct CpuTimeLimit {
    reply: Reply,
    spent: AtomicBool,
}

impl CpuTimeLimit {
    /// `left` may be nothing.
    pub(crate) fn watch(
        guards: &Guards,
        cgroup: BorrowedFd<'_>,
        left: Duration,
    ) -> Result<CpuTimeLimit> {
        let failed = |e: io::Error| Error::os("have a guard watch the CPU time of the job", e);
        let mut request = Message::new(protocol::CPU_TIME_LIMIT);
        let most = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        request.numbers = [most, cpus()];
        let reply = guards.request(&request, &[], &[cgroup]).map_err(failed)?;
        match guards.receive(&reply.0).map_err(failed)? {
            Some((Message { kind: protocol::DONE, .. }, _)) => {
                Ok(CpuTimeLimit { reply, spent: AtomicBool::new(false) })
            }
            Some((answer, _)) => Err(failed(io::Error::from_raw_os_error(answer.errno))),
            None => Err(failed(io::Error::other("it was killed"))),
        }
    }

    /// Whether it was used up and the members were killed for it.
    pub(crate) fn is_exhausted(&self) -> bool {
        let socket = &self.reply.0;
        if syscall::poll(&mut [PollFd::new(socket, POLLIN)], 0) == 1 {
            let said = protocol::receive_bare(socket);
            if matches!(said, Ok(Some(Message { kind: protocol::CPU_TIME_EXHAUSTED, .. }))) {
                self.spent.store(true, Ordering::Relaxed);
            }
        }
        self.spent.load(Ordering::Relaxed)
    }
}

/// How many CPUs work at once at most: those that are online, whatever we ourselves may use.
fn cpus() -> u64 {
    // Where it is not said, rather too many: then a guard looks more often.
    const MANY: u64 = 1024;
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    ranges.sum::<Option<u64>>().filter(|count| *count > 0).unwrap_or(MANY)
}
