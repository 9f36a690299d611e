//! The mounted file systems of this process (`proc_pid_mountinfo(5)`).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::file::read_proc_bytes;

/// One mounted file system.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The directory of the file system that is mounted.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The type of the file system.
    kind: Vec<u8>,
    /// The options of the file system, separated by commas.
    options: Vec<u8>,
}

impl Mount {
    /// Whether it is a cgroup v2 hierarchy.
    pub(crate) fn is_cgroup2(&self) -> bool {
        self.kind == b"cgroup2"
    }

    /// Whether it is the cgroup v1 hierarchy with this controller.
    pub(crate) fn is_cgroup1_with(&self, controller: &str) -> bool {
        let mut options = self.options.split(|byte| *byte == b',');
        self.kind == b"cgroup" && options.any(|option| option == controller.as_bytes())
    }

    /// Where a file of this file system is visible, if this mount shows it.
    pub(crate) fn locate(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.root).ok()?;
        Some(match below.as_os_str().is_empty() {
            true => self.point.clone(),
            false => self.point.join(below),
        })
    }
}

/// The mounts that this process sees.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    read_proc_bytes("/proc/self/mountinfo").map(|list| parse(&list).collect())
}

/// The mounts of a list. Lines in another format are left out.
pub(crate) fn parse(list: &[u8]) -> impl Iterator<Item = Mount> {
    list.split(|byte| *byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    // Optional fields come before the dash.
    fields.find(|field| *field == b"-")?;
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    Some(Mount {
        root: path(root),
        point: path(point),
        kind: kind.to_vec(),
        options: unescape(options),
    })
}

/// Spaces, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let code = after.split_at_checked(3).filter(|_| *byte == b'\\');
        let code = code.and_then(|(digits, after)| Some((octal(digits)?, after)));
        let (value, after) = code.unwrap_or((*byte, after));
        plain.push(value);
        rest = after;
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 8).ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
25 30 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro
26 25 0:24 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
garbage
28 25 0:26 / /mnt/\xff rw - tmpfs tmpfs rw
27 25 0:25 / /sys/fs/cgroup/uni\\040fied\\134 rw shared:9 master:1 - cgroup2 cgroup2 rw
";

    fn cgroup2(list: &[u8]) -> Mount {
        parse(list).find(Mount::is_cgroup2).expect("a cgroup2 mount")
    }

    /// A path with a space is shown as octal digits, and a name that is not UTF-8 hides no other mount.
    #[test]
    fn a_path_below_a_mount_is_found() {
        let mount = cgroup2(MOUNTS);
        let at = |path: &str| mount.locate(Path::new(path));
        assert_eq!(at("/"), Some("/sys/fs/cgroup/uni fied\\".into()));
        assert_eq!(at("/a/b"), Some("/sys/fs/cgroup/uni fied\\/a/b".into()));
    }

    #[test]
    fn a_bind_mount_of_a_part_shows_only_that_part() {
        let mount = cgroup2(b"27 25 0:25 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(mount.locate(Path::new("/docker/x/y")), Some("/sys/fs/cgroup/y".into()));
        assert_eq!(mount.locate(Path::new("/other")), None);
    }

    #[test]
    fn a_v1_controller_is_found_by_its_option() {
        let mount = parse(MOUNTS).find(|mount| mount.is_cgroup1_with("freezer"));
        assert_eq!(mount.map(|mount| mount.point), Some("/sys/fs/cgroup/freezer".into()));
        assert!(!parse(MOUNTS).any(|mount| mount.is_cgroup1_with("memory")));
    }
}
