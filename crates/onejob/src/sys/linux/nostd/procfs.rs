//! Reads `/proc` without allocating.

use core::sync::atomic::{AtomicU8, Ordering};

use super::syscall::{
    AsFd, CStr, CWD, Errno, O_DIRECTORY, OwnedFd, Result, getdents, getpid, nlink, openat, read,
    readlinkat,
};

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// Whether the kernel has `children` files, once a [`Proc`] has found out.
static HAS_CHILDREN_FILES: AtomicU8 = AtomicU8::new(UNKNOWN);

/// An open `/proc` that shows the PID namespace of this process.
pub(crate) struct Proc {
    dir: OwnedFd,
    /// `UNKNOWN`, `YES` or `NO`.
    has_children_files: AtomicU8,
}

/// The fields of `/proc/PID/stat` that are used (`proc_pid_stat(5)`).
#[derive(Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) name: [u8; 64],
    pub(crate) name_len: usize,
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) flags: u64,
    /// User and system time in clock ticks, of the process and of the children it has waited for.
    pub(crate) user: u64,
    pub(crate) system: u64,
    pub(crate) start: u64,
    /// Resident memory in pages.
    pub(crate) resident: u64,
}

/// The load of the whole system (`proc_loadavg(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// How many tasks run or are ready to run.
    pub(crate) runnable: usize,
    /// How many tasks there are.
    pub(crate) tasks: usize,
    /// The latest thread id.
    pub(crate) latest: usize,
}

/// A text that ends with NUL, built without an allocator.
pub(crate) struct CStrBuf {
    bytes: [u8; 280],
    len: usize,
}

impl CStrBuf {
    pub(crate) fn new() -> CStrBuf {
        CStrBuf { bytes: [0; 280], len: 0 }
    }

    pub(crate) fn text(mut self, text: &[u8]) -> CStrBuf {
        for byte in text {
            // The last byte stays NUL. A name that is too long is cut, and then no file has it.
            if self.len < self.bytes.len() - 1 {
                self.bytes[self.len] = *byte;
                self.len += 1;
            }
        }
        self
    }

    pub(crate) fn number(self, number: i32) -> CStrBuf {
        let mut digits = [0_u8; 10];
        let mut rest = number.unsigned_abs();
        let mut at = digits.len();
        while at > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        match digits.get(at..) {
            Some(used) => self.text(used),
            None => self,
        }
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl Proc {
    /// Opens `/proc`. Fails with `Errno::STALE` if it shows another PID namespace.
    pub(crate) fn open() -> Result<Proc> {
        Proc::at(openat(CWD, c"/proc", O_DIRECTORY)?)
    }

    /// As [`Proc::open`], with a procfs that may be mounted elsewhere or not at all.
    pub(crate) fn at(dir: OwnedFd) -> Result<Proc> {
        let own_pid = CStrBuf::new().number(getpid());
        let mut target = [0_u8; 16];
        let len = readlinkat(&dir, c"self", &mut target)?;
        if target.get(..len) != Some(own_pid.as_c_str().to_bytes()) {
            return Err(Errno::STALE);
        }
        let known = HAS_CHILDREN_FILES.load(Ordering::Relaxed);
        Ok(Proc { dir, has_children_files: AtomicU8::new(known) })
    }

    /// Whether the kernel was built with `children` files.
    fn has_children_files(&self) -> bool {
        match self.has_children_files.load(Ordering::Relaxed) {
            UNKNOWN => {
                let own = CStrBuf::new().text(b"self/task/").number(getpid()).text(b"/children");
                let has = match openat(&self.dir, own.as_c_str(), 0) {
                    Err(errno) if is_shortage(errno) => return true,
                    opened => opened.is_ok(),
                };
                let known = if has { YES } else { NO };
                self.has_children_files.store(known, Ordering::Relaxed);
                HAS_CHILDREN_FILES.store(known, Ordering::Relaxed);
                has
            }
            known => known == YES,
        }
    }

    /// Calls `each` with every child of the process, of all its threads.
    ///
    /// If a child appears or is reaped meanwhile, the list may lack it or others. If a process with one
    /// thread has no children, that is always right: the kernel lists them at one instant.
    pub(crate) fn children(&self, pid: i32, each: &mut dyn FnMut(i32)) -> Result<()> {
        if !self.has_children_files() {
            return self.children_by_scan(pid, each);
        }
        let tasks = CStrBuf::new().number(pid).text(b"/task");
        // A directory has two links, and here one more for each thread.
        const OF_ONE_THREAD: u32 = 3;
        if nlink(&self.dir, tasks.as_c_str())? == OF_ONE_THREAD {
            let file = tasks.text(b"/").number(pid).text(b"/children");
            return read_numbers(&openat(&self.dir, file.as_c_str(), 0)?, each);
        }
        let tasks = openat(&self.dir, tasks.as_c_str(), O_DIRECTORY)?;
        let mut read = Ok(());
        numbers_in(&tasks, &mut |thread| {
            let file = CStrBuf::new().number(thread).text(b"/children");
            let file = openat(&tasks, file.as_c_str(), 0);
            match file.and_then(|file| read_numbers(&file, each)) {
                // The thread has exited.
                Err(Errno::NOENT | Errno::SRCH) => {}
                result => read = read.and(result),
            }
        })?;
        read
    }

    /// If the kernel was built without `children` files: every process whose parent is `pid`.
    fn children_by_scan(&self, pid: i32, each: &mut dyn FnMut(i32)) -> Result<()> {
        let all = openat(&self.dir, c".", O_DIRECTORY)?;
        let mut read = Ok(());
        numbers_in(&all, &mut |candidate| match self.stat(candidate) {
            Ok(stat) if stat.parent == pid => each(candidate),
            Err(errno) if is_shortage(errno) => read = Err(errno),
            _ => {}
        })?;
        read
    }

    pub(crate) fn load(&self) -> Option<Load> {
        let file = openat(&self.dir, c"loadavg", 0).ok()?;
        let mut text = [0_u8; 128];
        let len = read(&file, &mut text).ok()?;
        parse_loadavg(text.get(..len)?)
    }

    pub(crate) fn stat(&self, pid: i32) -> Result<Stat> {
        let file = openat(&self.dir, CStrBuf::new().number(pid).text(b"/stat").as_c_str(), 0)?;
        let mut text = [0_u8; 1024];
        let len = read(&file, &mut text)?;
        parse_stat(text.get(..len).unwrap_or(&[])).ok_or(Errno::SRCH)
    }
}

/// Whether an error is about the resources of this process, and not about the file.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Parses `/proc/loadavg`: three averages, `runnable/tasks`, the latest thread id.
pub(crate) fn parse_loadavg(text: &[u8]) -> Option<Load> {
    let mut words = text.split(|byte| byte.is_ascii_whitespace()).skip(3);
    let (mut counts, latest) = (words.next()?.split(|byte| *byte == b'/'), words.next()?);
    let mut count = || Some(number(counts.next()?)? as usize);
    Some(Load { runnable: count()?, tasks: count()?, latest: number(latest)? as usize })
}

/// Parses `/proc/PID/stat`. The name can contain spaces and parentheses, so the fields are counted from the
/// last `)`.
pub(crate) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let mut stat = Stat {
        name: [0; 64],
        name_len: 0,
        state: 0,
        parent: 0,
        flags: 0,
        user: 0,
        system: 0,
        start: 0,
        resident: 0,
    };
    for byte in text.get(open + 1..close)?.iter().take(stat.name.len()) {
        *stat.name.get_mut(stat.name_len)? = *byte;
        stat.name_len += 1;
    }
    let fields = text.get(close + 2..)?.split(|byte| *byte == b' ');
    for (index, field) in fields.enumerate() {
        match index + 3 {
            3 => stat.state = *field.first()?,
            4 => stat.parent = number(field)? as i32,
            9 => stat.flags = number(field)?,
            14 | 16 => stat.user = stat.user.wrapping_add(number(field)?),
            15 | 17 => stat.system = stat.system.wrapping_add(number(field)?),
            22 => stat.start = number(field)?,
            24 => {
                stat.resident = number(field)?;
                return Some(stat);
            }
            _ => {}
        }
    }
    None
}

pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let mut value = 0_u64;
    for byte in digits {
        value = value.wrapping_mul(10).wrapping_add(digit(byte)?);
    }
    (!digits.is_empty()).then_some(value)
}

/// Calls `each` with the name of every entry of a directory, and whether it is a directory.
pub(crate) fn entries(dir: impl AsFd, each: &mut dyn FnMut(&CStr, bool)) -> Result<()> {
    let mut buffer = [0_u8; 2048];
    loop {
        let len = getdents(&dir, &mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..len).unwrap_or(&[]);
        // struct linux_dirent64: u64 inode, u64 offset, u16 length, u8 type, name.
        while let (Some(&[low, high]), Some(&kind)) = (rest.get(16..18), rest.get(18)) {
            let size = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..size).and_then(|name| CStr::from_bytes_until_nul(name).ok());
            if let Some(name) = name {
                const DT_DIR: u8 = 4;
                each(name, kind == DT_DIR);
            }
            rest = rest.get(size.max(1)..).unwrap_or(&[]);
        }
    }
}

fn numbers_in(dir: &OwnedFd, each: &mut dyn FnMut(i32)) -> Result<()> {
    entries(dir, &mut |name, _| {
        if let Some(value) = number(name.to_bytes()) {
            each(value as i32);
        }
    })
}

/// Calls `each` with the decimal numbers in a file of the kernel.
pub(crate) fn read_numbers(file: &OwnedFd, each: &mut dyn FnMut(i32)) -> Result<()> {
    let mut buffer = [0_u8; 4096];
    // The kernel fills the buffer, except for a number that does not fit in whole.
    const LONGEST: usize = 16;
    let mut current: Option<i32> = None;
    loop {
        let len = read(file, &mut buffer)?;
        for byte in buffer.get(..len).unwrap_or(&[]) {
            if byte.is_ascii_digit() {
                let digit = i32::from(byte - b'0');
                current = Some(current.unwrap_or(0).wrapping_mul(10).wrapping_add(digit));
            } else if let Some(value) = current.take() {
                each(value);
            }
        }
        if len < buffer.len() - LONGEST {
            if let Some(value) = current {
                each(value);
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_have_spaces_and_parentheses() {
        let text = b"42 (a) b (c) R 7 1 1 0 -1 4194560 0 0 0 0 1 2 30 40 20 0 1 0 12345 0 9 0";
        let stat = parse_stat(text).expect("a stat");
        assert_eq!((stat.user, stat.system, stat.resident), (31, 42, 9));
        assert_eq!(stat.name.get(..stat.name_len), Some(&b"a) b (c"[..]));
        assert_eq!((stat.state, stat.parent, stat.start), (b'R', 7, 12345));
        assert!(parse_stat(b"42 (cut off) R 7").is_none());
        assert!(parse_stat(b"").is_none());
    }

    #[test]
    fn the_load_is_read_as_documented() {
        let load = Load { runnable: 3, tasks: 127, latest: 4711 };
        assert_eq!(parse_loadavg(b"0.20 12.18 0.12 3/127 4711\n"), Some(load));
        assert_eq!(parse_loadavg(b"0.20 0.18 0.12 3/127"), None);
        assert_eq!(parse_loadavg(b""), None);
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 7, 10, 4_194_304, i32::MAX] {
            let text = CStrBuf::new().number(value);
            assert_eq!(text.as_c_str().to_str(), Ok(value.to_string().as_str()));
            assert_eq!(number(text.as_c_str().to_bytes()), Some(value as u64));
        }
    }

    #[test]
    fn a_kernel_without_children_files_is_scanned() {
        let mut child = std::process::Command::new("sleep").arg("300").spawn().expect("started");
        let list = |proc: &Proc| {
            let mut pids = std::vec::Vec::new();
            proc.children(getpid(), &mut |pid| pids.push(pid)).expect("a list");
            pids
        };
        let files = Proc::open().expect("a usable /proc");
        let scan = Proc::open().expect("a usable /proc");
        scan.has_children_files.store(NO, Ordering::Relaxed);
        let pid = child.id() as i32;
        assert!(list(&files).contains(&pid) && list(&scan).contains(&pid));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(!list(&scan).contains(&pid));
    }
}
