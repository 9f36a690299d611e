//! CMD with the settings that we were started with, and scripts as a shell takes them.

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

use super::signals;
use crate::{exit::Failure, os::Place};

/// Starts CMD with the signal settings we were started with. A process group of its own gets the
/// foreground of the terminal only from us: nobody else's is taken away.
pub(crate) fn start(
    job: &Job,
    command: &[OsString],
    place: Place,
    has_terminal: bool,
) -> Result<Child, Failure> {
    let (program, args) = command.split_first().expect("the definition of CMD requires a value");
    let spawn = |program: &OsStr, args: &[&OsStr]| {
        let mut command = Command::new(program);
        command.args(args);
        if let Some(state) = signals::inherited() {
            command.signals(state);
        }
        match place {
            Place::Beside => {}
            Place::Group => _ = command.process_group(0).take_terminal(has_terminal),
            Place::Session => _ = command.setsid(true).take_terminal(true),
        }
        job.spawn(command)
    };
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let refused = match spawn(program, &args) {
        Ok(child) => return Ok(child),
        Err(error) => error,
    };
    let is_script =
        refused.is_exec() && refused.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    match is_script.then(|| find(program)).flatten() {
        // As execvp(3) does: a script need not say which interpreter it is for.
        Some(script) => {
            Ok(spawn(OsStr::new("/bin/sh"), &[&[script.as_os_str()], &args[..]].concat())?)
        }
        None => Err(refused.into()),
    }
}

/// The file that a program's name stands for.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut files = env::split_paths(&path).map(|folder| folder.join(program));
    files.find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
