//! Starting a process inside a job: it is a member before its first instruction, or is not started.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsString, c_void},
    fs::File,
    io, mem,
    os::windows::{
        ffi::OsStrExt as _,
        io::{AsRawHandle as _, OwnedHandle},
    },
    path::{Path, PathBuf},
    process::{ChildStderr, ChildStdin, ChildStdout},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use windows_sys::Win32::{
    Foundation::{GENERIC_READ, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE},
    Storage::FileSystem::{
        CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING,
        PIPE_ACCESS_INBOUND, PIPE_ACCESS_OUTBOUND,
    },
    System::{
        Console::{GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE},
        Pipes::{CreateNamedPipeW, PIPE_REJECT_REMOTE_CLIENTS},
        SystemInformation::{GetSystemDirectoryW, GetWindowsDirectoryW},
        Threading::{
            CREATE_NEW_PROCESS_GROUP, CREATE_UNICODE_ENVIRONMENT, CreateProcessW,
            DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT,
            InitializeProcThreadAttributeList, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
            PROC_THREAD_ATTRIBUTE_JOB_LIST, PROCESS_INFORMATION, STARTF_USESTDHANDLES,
            STARTUPINFOEXW, UpdateProcThreadAttribute,
        },
    },
};

use super::{
    child::ChildProcess,
    handles::{check, inheritable, owned, wide},
    identity,
    object::Object,
    quoting,
};
use crate::{Command, Error, Result, command::StdioKind};

/// Starts the process as a member.
pub(super) fn spawn(object: &Object, command: &Command) -> Result<crate::Child> {
    let failed = |e| Error::exec(format!("execute {:?}", command.program), e);
    if let Some(dir) = command.current_dir.as_deref().filter(|dir| !dir.is_dir()) {
        let what = format!("use {} as the current directory", dir.display());
        return Err(Error::os(what, io::Error::from(io::ErrorKind::NotFound)));
    }
    let environment = changed_environment(command);
    let program = resolve(command, environment.as_ref()).map_err(failed)?;
    let (program, line) = if is_batch_file(&program) {
        let line = quoting::of_batch_file(program.as_os_str(), &command.args).ok_or_else(|| {
            Error::invalid(format!(
                "an argument for {} cannot be passed to a batch file",
                program.display()
            ))
            .with_hint("remove the line breaks and NULs from the arguments")
        })?;
        (system_folder().join("cmd.exe"), line)
    } else {
        (program, quoting::of_program(&command.program, &command.args))
    };
    let streams = Streams::new(command).map_err(|e| Error::os("prepare standard streams", e))?;
    let made = create(object, &program, line, environment.as_ref(), command, &streams);
    let (process, pid) = made.map_err(|e| exec_error(object, &program, command, e))?;
    let id = identity::id_of(pid, std::os::windows::io::AsHandle::as_handle(&process));
    let [stdin, stdout, stderr] = streams.ours;
    Ok(crate::Child::new(
        ChildProcess { id, process },
        stdin.map(ChildStdin::from),
        stdout.map(ChildStdout::from),
        stderr.map(ChildStderr::from),
    ))
}

/// Access can be denied for two reasons: by the program, or by a job that allows no nested job.
fn exec_error(object: &Object, program: &Path, command: &Command, error: io::Error) -> Error {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    let _ = object;
    if is_denied && program.is_file() && File::open(program).is_ok() {
        return Error::exec(format!("execute {:?} inside the job", command.program), error)
            .with_hint("a job around this process may not allow a nested job");
    }
    Error::exec(format!("execute {:?}", command.program), error)
}

fn create(
    object: &Object,
    program: &Path,
    mut line: Vec<u16>,
    environment: Option<&BTreeMap<Key, OsString>>,
    command: &Command,
    streams: &Streams,
) -> io::Result<(OwnedHandle, u32)> {
    line.push(0);
    let program = wide(program);
    let directory = command.current_dir.as_ref().map(wide);
    let block = environment.map(block);
    let job = [object.raw()];
    let handles: Vec<HANDLE> = streams.theirs.iter().flatten().map(|h| h.as_raw_handle()).collect();
    let mut attributes = Attributes::new()?;
    attributes.set(PROC_THREAD_ATTRIBUTE_JOB_LIST, &job)?;
    if !handles.is_empty() {
        attributes.set(PROC_THREAD_ATTRIBUTE_HANDLE_LIST, &handles)?;
    }
    // SAFETY: structures of numbers and pointers, for which zero is a value.
    let (mut startup, mut made): (STARTUPINFOEXW, PROCESS_INFORMATION) = unsafe { mem::zeroed() };
    startup.StartupInfo.cb = mem::size_of::<STARTUPINFOEXW>() as u32;
    startup.lpAttributeList = attributes.0.as_mut_ptr().cast();
    if !handles.is_empty() {
        let [stdin, stdout, stderr] = &streams.theirs;
        let raw =
            |h: &Option<OwnedHandle>| h.as_ref().map_or(ptr::null_mut(), |h| h.as_raw_handle());
        startup.StartupInfo.dwFlags |= STARTF_USESTDHANDLES;
        startup.StartupInfo.hStdInput = raw(stdin);
        startup.StartupInfo.hStdOutput = raw(stdout);
        startup.StartupInfo.hStdError = raw(stderr);
    }
    let group = if command.new_group { CREATE_NEW_PROCESS_GROUP } else { 0 };
    // SAFETY: strings end with a NUL (the block with two), and all pointers are valid during the call.
    check(unsafe {
        CreateProcessW(
            program.as_ptr(),
            line.as_mut_ptr(),
            ptr::null(),
            ptr::null(),
            i32::from(!handles.is_empty()),
            EXTENDED_STARTUPINFO_PRESENT | CREATE_UNICODE_ENVIRONMENT | group,
            block.as_ref().map_or(ptr::null(), |block| block.as_ptr().cast()),
            directory.as_ref().map_or(ptr::null(), |dir| dir.as_ptr()),
            &raw const startup.StartupInfo,
            &raw mut made,
        )
    })?;
    drop(owned(made.hThread)?);
    Ok((owned(made.hProcess)?, made.dwProcessId))
}

/// The attribute list of a new process: its job and the handles that it inherits.
struct Attributes(Vec<usize>);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut size = 0;
        // SAFETY: without a list the call only returns the required size.
        unsafe { InitializeProcThreadAttributeList(ptr::null_mut(), 2, 0, &raw mut size) };
        let mut list = vec![0_usize; size.div_ceil(mem::size_of::<usize>())];
        // SAFETY: an aligned buffer of the required size.
        check(unsafe {
            InitializeProcThreadAttributeList(list.as_mut_ptr().cast(), 2, 0, &raw mut size)
        })?;
        Ok(Attributes(list))
    }

    /// The handles must not move as long as this is used.
    fn set(&mut self, attribute: u32, handles: &[HANDLE]) -> io::Result<()> {
        let (value, size) = (handles.as_ptr().cast::<c_void>(), mem::size_of_val(handles));
        // SAFETY: an initialised list with room for two, and a value of the given size.
        check(unsafe {
            let (list, none) = (self.0.as_mut_ptr().cast(), ptr::null_mut());
            UpdateProcThreadAttribute(list, 0, attribute as usize, value, size, none, ptr::null())
        })
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: an initialised list.
        unsafe { DeleteProcThreadAttributeList(self.0.as_mut_ptr().cast()) };
    }
}

/// The ends of the three streams. The child inherits its ends, and no other handle of this process.
struct Streams {
    theirs: [Option<OwnedHandle>; 3],
    ours: [Option<OwnedHandle>; 3],
}

impl Streams {
    fn new(command: &Command) -> io::Result<Streams> {
        let mut streams = Streams { theirs: [None, None, None], ours: [None, None, None] };
        const IDS: [u32; 3] = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE];
        for (at, stdio) in command.stdio.iter().enumerate() {
            streams.theirs[at] = match &stdio.0 {
                StdioKind::Inherit => {
                    // SAFETY: returns a handle and does not change its owner.
                    let handle = unsafe { GetStdHandle(IDS[at]) };
                    let is_one = !handle.is_null() && handle != INVALID_HANDLE_VALUE;
                    is_one.then(|| inheritable(handle)).transpose()?
                }
                StdioKind::Null => {
                    let null = File::options().read(at == 0).write(at != 0).open("NUL")?;
                    Some(inheritable(null.as_raw_handle())?)
                }
                StdioKind::Piped => {
                    let (ours, theirs) = pipe(at == 0)?;
                    streams.ours[at] = Some(ours);
                    Some(inheritable(theirs.as_raw_handle())?)
                }
                StdioKind::Handle(handle) => Some(inheritable(handle.as_raw_handle())?),
            };
        }
        Ok(streams)
    }
}

/// The end of this process and that of the child. std reads its own ends with calls that require an
/// overlapped handle, which only a named pipe can have.
fn pipe(we_write: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (count, salt) = (COUNT.fetch_add(1, Ordering::Relaxed), super::record::random());
    let name = wide(format!(r"\\.\pipe\onejob.{}.{count}.{salt:x}", std::process::id()));
    let direction = if we_write { PIPE_ACCESS_OUTBOUND } else { PIPE_ACCESS_INBOUND };
    const SIZE: u32 = 1 << 16;
    // SAFETY: the name ends with a NUL; no attributes, so no child inherits either handle.
    let ours = unsafe {
        let mode = direction | FILE_FLAG_FIRST_PIPE_INSTANCE | FILE_FLAG_OVERLAPPED;
        let remote = PIPE_REJECT_REMOTE_CLIENTS;
        CreateNamedPipeW(name.as_ptr(), mode, remote, 1, SIZE, SIZE, 0, ptr::null())
    };
    let valid = |handle: HANDLE| {
        if handle == INVALID_HANDLE_VALUE { Err(io::Error::last_os_error()) } else { owned(handle) }
    };
    let ours = valid(ours)?;
    let access = if we_write { GENERIC_READ } else { GENERIC_WRITE };
    // SAFETY: as above.
    let theirs = unsafe {
        let none = ptr::null_mut();
        CreateFileW(name.as_ptr(), access, 0, ptr::null(), OPEN_EXISTING, 0, none)
    };
    Ok((ours, valid(theirs)?))
}

/// The name of an environment variable, compared without case.
#[derive(Debug, Clone)]
struct Key(OsString);

impl Key {
    /// Folds each UTF-16 unit separately, as the system does: one character stays one.
    fn folded(&self) -> impl Iterator<Item = u16> {
        self.0.encode_wide().map(|unit| {
            let upper = char::from_u32(unit.into()).map(char::to_uppercase);
            match upper.map(|mut upper| (upper.next(), upper.next())) {
                Some((Some(upper), None)) => u16::try_from(upper as u32).unwrap_or(unit),
                _ => unit,
            }
        })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

/// The environment of the child if it differs from that of this process, in the order that Windows
/// requires.
fn changed_environment(command: &Command) -> Option<BTreeMap<Key, OsString>> {
    if !command.env_cleared && command.env.is_empty() {
        return None;
    }
    let ours = env::vars_os().filter(|_| !command.env_cleared);
    let mut vars: BTreeMap<Key, OsString> = ours.map(|(key, value)| (Key(key), value)).collect();
    for (key, value) in &command.env {
        let key = Key(key.clone());
        // Removed first: otherwise the map would keep the spelling of the existing key.
        vars.remove(&key);
        if let Some(value) = value {
            vars.insert(key, value.clone());
        }
    }
    Some(vars)
}

fn block(vars: &BTreeMap<Key, OsString>) -> Vec<u16> {
    let mut block = Vec::new();
    for (key, value) in vars {
        block.extend(key.0.encode_wide().chain([u16::from(b'=')]));
        block.extend(value.encode_wide().chain([0]));
    }
    block.extend(if block.is_empty() { &[0, 0][..] } else { &[0][..] });
    block
}

fn is_batch_file(program: &Path) -> bool {
    let extension = program.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("bat") || extension.eq_ignore_ascii_case("cmd")
}

/// The file of a program name, found as std does: `.exe` is added unless the name has another
/// extension.
fn resolve(
    command: &Command,
    environment: Option<&BTreeMap<Key, OsString>>,
) -> io::Result<PathBuf> {
    let name = Path::new(&command.program);
    let text = command.program.as_encoded_bytes();
    if text.ends_with(b"/") || text.ends_with(b"\\") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path of the program ends with a separator",
        ));
    }
    let is_exe = name.extension().is_some_and(|it| it.eq_ignore_ascii_case("exe"));
    let is_bare = name.components().count() == 1 && name.file_name() == Some(name.as_os_str());
    if !is_bare {
        let mut with_exe = command.program.clone();
        with_exe.push(".exe");
        let with_exe = PathBuf::from(with_exe);
        return Ok(if !is_exe && with_exe.exists() { with_exe } else { name.into() });
    }
    let with_exe = if text.contains(&b'.') { name.into() } else { name.with_extension("exe") };
    let own = environment
        .filter(|_| command.env.keys().any(|key| Key(key.clone()) == Key("PATH".into())))
        .and_then(|vars| vars.get(&Key("PATH".into())).cloned());
    let split =
        |path: Option<OsString>| env::split_paths(&path.unwrap_or_default()).collect::<Vec<_>>();
    let mut folders = split(own);
    folders.extend(env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())));
    folders.extend([system_folder(), folder(GetWindowsDirectoryW)]);
    folders.extend(split(env::var_os("PATH")));
    let mut files =
        folders.iter().filter(|it| !it.as_os_str().is_empty()).map(|it| it.join(&with_exe));
    files.find(|file| file.symlink_metadata().is_ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no directory of PATH contains this program")
    })
}

fn system_folder() -> PathBuf {
    folder(GetSystemDirectoryW)
}

fn folder(ask: unsafe extern "system" fn(*mut u16, u32) -> u32) -> PathBuf {
    let mut path = [0; 300];
    // SAFETY: a buffer of the given length.
    let length = unsafe { ask(path.as_mut_ptr(), path.len() as u32) } as usize;
    let path = path.get(..length).unwrap_or_default();
    PathBuf::from(<OsString as std::os::windows::ffi::OsStringExt>::from_wide(path))
}
