//! Changing the limits of a job, and freezing it.

use std::{collections::HashSet, os::windows::io::AsHandle as _, sync::Arc};

use windows_sys::Win32::System::Threading::PROCESS_SUSPEND_RESUME;

use super::{JobObject, Ownership};
use crate::{
    Error, Limits, ProcessId, Result,
    sys::{
        Backend as _, Freezer, LimitControl,
        windows::{
            handles::is_signalled,
            identity, nt,
            object::{Member, Object},
        },
    },
};

impl LimitControl for JobObject {
    fn get(&self) -> Result<Limits> {
        let read = |e| Error::os("read the limits of the job", e);
        Ok(self.shared.lock().map_err(read)?.limits())
    }

    fn set(&self, limits: &Limits) -> Result<()> {
        let lacking = limits.resources().without(self.guarantees().limits);
        if !lacking.is_empty() {
            return Err(Error::unsupported(format!("cannot limit {lacking} on this host")));
        }
        // The right to change the job is requested only here.
        let object = match (&self.hold, &self.record) {
            (Ownership::View, Some(record)) if !record.is_over() => {
                let opened = Object::open_to_change(&record.card.object());
                Arc::new(opened.map_err(|e| Error::os("set the limits of the job", e))?)
            }
            _ => self.object()?,
        };
        self.write_limits(&object, limits, true)
    }
}

impl Freezer for JobObject {
    fn freeze(&self) -> Result<()> {
        let failed = |e| Error::os("freeze the job", e);
        let frozen = self.shared.lock().map_err(failed)?;
        // A frozen process is not suspended twice, because one thaw must resume it.
        let mut known: HashSet<ProcessId> = frozen.ids().into_iter().collect();
        // A suspended process starts no others: repeated until the list shows no new process.
        loop {
            let mut is_new = false;
            for Member { pid, process } in self.members(PROCESS_SUSPEND_RESUME)?.others {
                let id = identity::id_of(pid, process.as_handle());
                if !known.insert(id) {
                    continue;
                }
                is_new = true;
                let stopped = frozen.enter(&id).and_then(|()| {
                    nt::suspend(process.as_handle()).inspect_err(|_| frozen.strike_last())
                });
                match stopped {
                    Err(error) if !is_signalled(process.as_handle()) => {
                        frozen.thaw();
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
            if !is_new {
                return Ok(());
            }
        }
    }

    fn thaw(&self) -> Result<()> {
        self.shared.lock().map_err(|e| Error::os("thaw the job", e))?.thaw();
        Ok(())
    }
}
