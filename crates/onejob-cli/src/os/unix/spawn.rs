//! Starts CMD with the signal settings that onejob was started with.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use onejob::{Child, Command, Job};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{entry, signals};
use crate::os::ProcessGroup;

/// Starts CMD. A new process group gets the foreground of the terminal only if onejob had it
/// (`has_terminal`). A script without a `#!` line is run by `/bin/sh`, as execvp(3) does.
pub(crate) fn spawn(
    job: &Job,
    command: &[OsString],
    process_group: ProcessGroup,
    has_terminal: bool,
) -> onejob::Result<Child> {
    let (program, args) = command.split_first().expect("CMD has at least one word");
    let spawn_program = |program: &OsStr, args: &[&OsStr]| {
        let mut command = Command::new(program);
        command.args(args);
        entry::odd_entries().for_each(|entry| _ = command.env_entry(entry));
        if let Some(state) = signals::inherited() {
            command.signals(state);
        }
        match process_group {
            ProcessGroup::Inherit => {}
            ProcessGroup::New => _ = command.process_group(0).take_terminal(has_terminal),
            ProcessGroup::NewSession => _ = command.setsid(true).take_terminal(true),
        }
        job.spawn(command)
    };
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let error = match spawn_program(program, &args) {
        Ok(child) => return Ok(child),
        Err(error) => error,
    };
    let is_script = error.is_exec() && error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    match is_script.then(|| find_program(program)).flatten() {
        Some(script) => {
            spawn_program(OsStr::new("/bin/sh"), &[&[script.as_os_str()], &args[..]].concat())
        }
        None => Err(error),
    }
}

/// The executable file of this name, searched in PATH.
fn find_program(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut files = env::split_paths(&path).map(|directory| directory.join(program));
    files.find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
