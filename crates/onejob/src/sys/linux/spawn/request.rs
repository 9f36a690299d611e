//! Building the flat record that a child executes.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::atomic::{AtomicI32, AtomicU32, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};

use super::attributes::Changed;
use crate::{
    Command, Error, Result,
    command::StdioKind,
    sys::linux::nostd::exec::{self, ExecRequest, Limit, List, Mapping, Stage},
};

/// A whole record, not yet relocated.
pub(crate) struct ExecBuffer {
    words: Vec<u64>,
}

/// What is not in the command itself.
pub(crate) struct SpawnContext {
    pub(crate) descriptors: Vec<Mapping>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) umask: i32,
    pub(crate) cwd_fd: i32,
    pub(crate) process_group: Option<i32>,
    /// The dispositions of this process, where the child does not inherit them.
    pub(crate) ignored: Option<u64>,
    pub(crate) attributes: Changed,
}

impl ExecBuffer {
    pub(crate) fn new(command: &Command, setting: &SpawnContext) -> ExecBuffer {
        let unix = &command.unix;
        let mut record = ExecBuffer { words: vec![0; size_of::<ExecRequest>().div_ceil(8)] };
        let argv0 = unix.arg0.as_ref().unwrap_or(&command.program);
        let argv = [argv0].into_iter().chain(&command.args);
        let argv: Vec<u64> = argv.map(|arg| record.string(arg.as_bytes())).collect();
        let vars = command.environment();
        let path = vars.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value);
        let search = paths(&command.program, path);
        let mut envp: Vec<u64> =
            vars.iter().map(|(key, value)| record.variable(key, value)).collect();
        envp.extend(unix.entries.iter().map(|entry| record.string(entry.as_bytes())));
        let paths: Vec<u64> = search.iter().map(|path| record.string(path.as_bytes())).collect();
        let cwd = command.current_dir.as_ref();
        let cwd = cwd.map_or(0, |dir| record.string(dir.as_os_str().as_bytes()));
        let groups: Vec<u64> = pairs(unix.groups.as_deref().unwrap_or(&[]));
        let descriptors = setting.descriptors.iter();
        let descriptors: Vec<u64> = descriptors.map(|m| pair(m.from as u32, m.to as u32)).collect();
        let limits = setting.limits.iter();
        let limits: Vec<u64> =
            limits.flat_map(|limit| [limit.resource, limit.values[0], limit.values[1]]).collect();
        let attributes = setting.attributes.others.iter();
        let attributes: Vec<u64> = attributes.flat_map(|it| [it.kind, it.value as u64]).collect();
        let signals = unix.signals.unwrap_or_default();
        let ignored = unix.signals.map(|state| state.ignored).or(setting.ignored);
        let process_group = unix.process_group.or(setting.process_group);
        let plan = ExecRequest {
            argv: record.ended_list(&argv),
            envp: record.ended_list(&envp),
            paths: List { at: record.ended_list(&paths), len: paths.len() as u64 },
            cwd,
            descriptors: List {
                at: record.list(&descriptors),
                len: setting.descriptors.len() as u64,
            },
            limits: List { at: record.list(&limits), len: setting.limits.len() as u64 },
            groups: List {
                at: record.list(&groups),
                len: unix.groups.as_ref().map_or(0, Vec::len) as u64,
            },
            attributes: List {
                at: record.list(&attributes),
                len: setting.attributes.others.len() as u64,
            },
            cpus: record.words_of(&setting.attributes.cpus),
            scheduling: record.words_of(&setting.attributes.scheduling),
            hook: 0,
            hook_data: 0,
            blocked: signals.blocked,
            ignored: ignored.unwrap_or(0),
            uid: unix.uid.map_or(-1, i64::from),
            gid: unix.gid.map_or(-1, i64::from),
            umask: setting.umask,
            process_group: process_group.unwrap_or(0),
            cwd_fd: setting.cwd_fd,
            join: -1,
            report: AtomicI32::new(-1),
            set_groups: u32::from(unix.groups.is_some()),
            set_process_group: u32::from(process_group.is_some()),
            new_session: u32::from(unix.setsid),
            take_terminal: u32::from(unix.take_terminal),
            dispositions: if ignored.is_some() { exec::SET } else { exec::KEEP },
            report_start: 1,
            pad: 0,
            stage: AtomicU32::new(0),
            errno: AtomicU32::new(0),
        };
        // SAFETY: the record starts with room for a plan and is aligned for one.
        unsafe { record.words.as_mut_ptr().cast::<ExecRequest>().write(plan) };
        record
    }

    /// The head, for changes before it is used.
    pub(crate) fn request(&mut self) -> &mut ExecRequest {
        // SAFETY: `new` put a plan there.
        unsafe { &mut *self.words.as_mut_ptr().cast::<ExecRequest>() }
    }

    /// Its outcome, as a child that shares our memory left it.
    pub(crate) fn outcome(&mut self) -> (u32, i32) {
        let plan = self.request();
        let errno = plan.errno.load(Ordering::Acquire) as i32;
        (plan.stage.load(Ordering::Acquire), errno)
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: initialised words are initialised bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), 8 * self.words.len()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = 8 * self.words.len();
        // SAFETY: initialised words are initialised bytes, and any bytes are words.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }

    fn list(&mut self, words: &[u64]) -> u64 {
        let at = 8 * self.words.len() as u64;
        self.words.extend(words);
        at
    }

    fn words_of(&mut self, words: &[u64]) -> List {
        List { at: self.list(words), len: words.len() as u64 }
    }

    fn ended_list(&mut self, words: &[u64]) -> u64 {
        let at = self.list(words);
        self.words.push(0);
        at
    }

    fn string(&mut self, text: &[u8]) -> u64 {
        self.text(&[text])
    }

    fn variable(&mut self, key: &OsStr, value: &OsStr) -> u64 {
        self.text(&[key.as_bytes(), b"=", value.as_bytes()])
    }

    fn text(&mut self, parts: &[&[u8]]) -> u64 {
        let at = 8 * self.words.len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // Zeroes, so that it ends with one.
        self.words.resize(self.words.len() + len / 8 + 1, 0);
        let mut rest = self.bytes_mut().get_mut(at..).unwrap_or_default();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        at as u64
    }
}

/// Two numbers in one word, in memory order.
pub(crate) fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn pairs(numbers: &[u32]) -> Vec<u64> {
    numbers.chunks(2).map(|two| pair(two[0], *two.get(1).unwrap_or(&0))).collect()
}

/// Where to look for the program, in the order of `execvp(3)`.
fn paths(program: &OsStr, path: Option<&OsString>) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let default = OsString::from("/bin:/usr/bin");
    let path = path.unwrap_or(&default).as_bytes();
    let join = |dir: &[u8]| {
        let mut full = OsStr::from_bytes(dir).to_owned();
        if !dir.is_empty() {
            full.push("/");
        }
        full.push(program);
        full
    };
    path.split(|byte| *byte == b':').map(join).collect()
}

/// The standard streams of a command, wired: what the child gets, and our ends of its pipes.
pub(crate) struct StdioPipes {
    /// For each stream the child's end, or `None` to inherit ours.
    pub(crate) child: [Option<OwnedFd>; 3],
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl StdioPipes {
    pub(crate) fn new(command: &Command) -> Result<StdioPipes> {
        let failed = |e: io::Error| {
            Error::os(format!("connect the standard streams of {:?}", command.program), e)
        };
        let [(stdin, our_in), (stdout, our_out), (stderr, our_err)] = [
            open_stdio(&command.stdio[0].0, true).map_err(failed)?,
            open_stdio(&command.stdio[1].0, false).map_err(failed)?,
            open_stdio(&command.stdio[2].0, false).map_err(failed)?,
        ];
        Ok(StdioPipes {
            child: [stdin, stdout, stderr],
            stdin: our_in.map(ChildStdin::from),
            stdout: our_out.map(ChildStdout::from),
            stderr: our_err.map(ChildStderr::from),
        })
    }

    pub(crate) fn mappings(&self) -> Vec<Mapping> {
        let streams = self.child.iter().enumerate();
        let changed = streams.filter_map(|(to, end)| end.as_ref().map(|end| (end.as_raw_fd(), to)));
        changed.map(|(from, to)| Mapping { from, to: to as i32 }).collect()
    }
}

/// The child's end and ours.
fn open_stdio(stdio: &StdioKind, is_input: bool) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match stdio {
        StdioKind::Inherit => Ok((None, None)),
        StdioKind::Null => {
            let access = if is_input { OFlags::RDONLY } else { OFlags::WRONLY };
            let null = rustix::fs::open("/dev/null", access | OFlags::CLOEXEC, Mode::empty())?;
            Ok((Some(null), None))
        }
        StdioKind::Piped => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            let (child, ours) = if is_input { (reader, writer) } else { (writer, reader) };
            Ok((Some(child), Some(ours)))
        }
        StdioKind::Fd(fd) => Ok((Some(fd.as_fd().try_clone_to_owned()?), None)),
    }
}

/// A child's failure, in the words of what was attempted.
pub(crate) fn failure(command: &Command, stage: u32, errno: i32) -> Error {
    let program = &command.program;
    let cause = io::Error::from_raw_os_error(errno);
    let what = |text: &str| {
        Error::os(format!("{text} for {program:?}"), io::Error::from_raw_os_error(errno))
    };
    match stage {
        stage if stage == Stage::Exec as u32 => Error::exec(format!("execute {program:?}"), cause),
        stage if stage == Stage::Join as u32 => what("join the cgroup of the job"),
        stage if stage == Stage::Descriptors as u32 => what("place the descriptors"),
        stage if stage == Stage::Limits as u32 => what("set the resource limits"),
        stage if stage == Stage::Attributes as u32 => {
            what("pass on the scheduling and memory settings of this thread").with_hint(
                "the guard that starts it lacks the privilege: make a new job, with a new guard",
            )
        }
        stage if stage == Stage::Credentials as u32 => what("change the user or group"),
        stage if stage == Stage::Directory as u32 => {
            let dir = command.current_dir.as_deref().unwrap_or(".".as_ref());
            Error::os(format!("change to the directory {dir:?} for {program:?}"), cause)
        }
        stage if stage == Stage::Group as u32 => what("change the process group or session"),
        stage if stage == Stage::Hook as u32 => what("run the pre_exec step"),
        _ => what("start a process"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_is_searched_as_execvp_does() {
        let search = |path: Option<&str>| paths(OsStr::new("x"), path.map(OsString::from).as_ref());
        assert_eq!(search(None), ["/bin/x", "/usr/bin/x"]);
        assert_eq!(search(Some("/a::b")), ["/a/x", "x", "b/x"]);
        assert_eq!(paths(OsStr::new("./x"), Some(&"/a".into())), ["./x"]);
    }

    #[test]
    fn a_record_relocates_to_what_was_put_in() {
        let mut command = Command::new("prog");
        command.args(["", "12345678", "a"]).env_clear().env("K", "v").groups(&[1, 2, 3]);
        let setting = SpawnContext {
            descriptors: vec![Mapping { from: 7, to: 1 }],
            limits: vec![Limit { resource: 7, values: [1, 2] }],
            umask: -1,
            cwd_fd: -1,
            process_group: None,
            ignored: None,
            attributes: Changed::default(),
        };
        let mut record = ExecBuffer::new(&command, &setting);
        // SAFETY: a whole record that stays in place, relocated once.
        let plan = unsafe { ExecRequest::relocate(record.as_mut_ptr()) };
        // SAFETY: lists of strings that end with a null, as built above.
        let strings = |mut at: *const *const std::ffi::c_char| unsafe {
            let mut all = Vec::new();
            while !(*at).is_null() {
                all.push(std::ffi::CStr::from_ptr(*at).to_str().unwrap().to_owned());
                at = at.add(1);
            }
            all
        };
        assert_eq!(strings(plan.argv as *const _), ["prog", "", "12345678", "a"]);
        assert_eq!(strings(plan.envp as *const _), ["K=v"]);
        // SAFETY: as built above.
        let groups = unsafe { std::slice::from_raw_parts(plan.groups.at as *const u32, 3) };
        assert_eq!(groups, [1, 2, 3]);
        assert_eq!((plan.groups.len, plan.descriptors.len, plan.limits.len), (3, 1, 1));
    }
}
