//! Building the record that a child executes: one block of memory with offsets instead of pointers.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::atomic::{AtomicI32, AtomicU32, Ordering},
};

use super::attributes::Changed;
use crate::{
    Command,
    sys::linux::nostd::{
        exec::{self, ExecRequest, Limit, List, Mapping},
        syscall,
    },
};

/// A whole record, before its offsets become addresses.
pub(crate) struct ExecBuffer {
    words: Vec<u64>,
}

/// The attributes of a child that its command does not contain.
pub(crate) struct SpawnContext {
    pub(crate) descriptors: Vec<Mapping>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) umask: i32,
    pub(crate) cwd_fd: i32,
    pub(crate) process_group: Option<i32>,
    /// The signals to ignore, where the child does not inherit the dispositions of this process.
    pub(crate) ignored: Option<u64>,
    pub(crate) attributes: Changed,
}

impl ExecBuffer {
    pub(crate) fn new(command: &Command, context: &SpawnContext) -> ExecBuffer {
        let unix = &command.unix;
        let mut buffer = ExecBuffer { words: vec![0; size_of::<ExecRequest>().div_ceil(8)] };
        let argv0 = unix.arg0.as_ref().unwrap_or(&command.program);
        let argv = [argv0].into_iter().chain(&command.args);
        let argv: Vec<u64> = argv.map(|arg| buffer.string(arg.as_bytes())).collect();
        let vars = command.environment();
        let path = vars.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value);
        let search = paths(&command.program, path);
        let mut envp: Vec<u64> =
            vars.iter().map(|(key, value)| buffer.variable(key, value)).collect();
        envp.extend(unix.entries.iter().map(|entry| buffer.string(entry.as_bytes())));
        let paths: Vec<u64> = search.iter().map(|path| buffer.string(path.as_bytes())).collect();
        let cwd = command.current_dir.as_ref();
        let cwd = cwd.map_or(0, |dir| buffer.string(dir.as_os_str().as_bytes()));
        let groups: Vec<u64> = pairs(unix.groups.as_deref().unwrap_or(&[]));
        let descriptors = context.descriptors.iter();
        let descriptors: Vec<u64> = descriptors.map(|m| pair(m.from as u32, m.to as u32)).collect();
        let limits = context.limits.iter();
        let limits: Vec<u64> =
            limits.flat_map(|limit| [limit.resource, limit.values[0], limit.values[1]]).collect();
        let attributes = context.attributes.others.iter();
        let attributes: Vec<u64> = attributes.flat_map(|it| [it.kind, it.value as u64]).collect();
        let signals = unix.signals.unwrap_or_default();
        let ignored = unix.signals.map(|state| state.ignored).or(context.ignored);
        let process_group = unix.process_group.or(context.process_group);
        let head = ExecRequest {
            argv: buffer.ended_list(&argv),
            envp: buffer.ended_list(&envp),
            paths: List { at: buffer.ended_list(&paths), len: paths.len() as u64 },
            cwd,
            descriptors: List {
                at: buffer.list(&descriptors),
                len: context.descriptors.len() as u64,
            },
            limits: List { at: buffer.list(&limits), len: context.limits.len() as u64 },
            groups: List {
                at: buffer.list(&groups),
                len: unix.groups.as_ref().map_or(0, Vec::len) as u64,
            },
            attributes: List {
                at: buffer.list(&attributes),
                len: context.attributes.others.len() as u64,
            },
            cpus: buffer.words_of(&context.attributes.cpus),
            scheduling: buffer.words_of(&context.attributes.scheduling),
            hook: 0,
            hook_data: 0,
            blocked: signals.blocked,
            ignored: ignored.unwrap_or(0),
            uid: unix.uid.map_or(-1, i64::from),
            gid: unix.gid.map_or(-1, i64::from),
            umask: context.umask,
            process_group: process_group.unwrap_or(0),
            cwd_fd: context.cwd_fd,
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
        // SAFETY: the record starts with room for the head and is aligned for it.
        unsafe { buffer.words.as_mut_ptr().cast::<ExecRequest>().write(head) };
        buffer
    }

    /// The head of the record, to be changed before it is used.
    pub(crate) fn request(&mut self) -> &mut ExecRequest {
        // SAFETY: `new` has written the head there.
        unsafe { &mut *self.words.as_mut_ptr().cast::<ExecRequest>() }
    }

    /// The last stage and the error number of a child that shares this memory.
    pub(crate) fn outcome(&mut self) -> (u32, i32) {
        let head = self.request();
        let errno = head.errno.load(Ordering::Acquire) as i32;
        (head.stage.load(Ordering::Acquire), errno)
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
        // The rest of the last word is zero and ends the string.
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

/// The paths of the program to try, in the order of `execvp(3)`.
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

/// The last report that a child wrote to the pipe that its `execve` closes: a stage and an error number.
pub(super) fn read_report(
    reader: BorrowedFd<'_>,
    wait_for: impl Fn(BorrowedFd<'_>),
) -> io::Result<(u32, i32)> {
    let mut last = (0, 0);
    let mut report = [0; 8];
    loop {
        wait_for(reader);
        match syscall::read(reader.as_raw_fd(), &mut report) {
            Ok(8) => {
                let both = u64::from_ne_bytes(report);
                last = ((both >> 32) as u32, both as u32 as i32);
            }
            Ok(_) => return Ok(last),
            Err(errno) => return Err(errno.into()),
        }
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
        let context = SpawnContext {
            descriptors: vec![Mapping { from: 7, to: 1 }],
            limits: vec![Limit { resource: 7, values: [1, 2] }],
            umask: -1,
            cwd_fd: -1,
            process_group: None,
            ignored: None,
            attributes: Changed::default(),
        };
        let mut buffer = ExecBuffer::new(&command, &context);
        // SAFETY: a whole record that stays in place, relocated once.
        let plan = unsafe { ExecRequest::relocate(buffer.as_mut_ptr()) };
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
