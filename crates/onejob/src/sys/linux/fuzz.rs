//! The decoders of bytes that other processes have written, for fuzzing: each takes any bytes, and panics
//! if it has used what it should have refused.
#![cfg_attr(not(fuzzing), allow(unreachable_pub, reason = "only a fuzzer is outside"))]

use std::{mem::ManuallyDrop, ops::Range, path::Path};

use crate::sys::linux::{
    mounts,
    nostd::{
        exec::{ExecRequest, List, Mapping, check},
        procfs,
        protocol::{self, Message},
        syscall,
    },
    registry::RecordHeader,
};

/// A record file. What reads back is written, and reads back as the same.
pub fn record(bytes: &[u8]) {
    const ID: &str = "0123456789abcdef-1";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(card) = RecordHeader::parse(ID, text) else { return };
    assert_eq!(RecordHeader::parse(ID, &card.text()), Some(card));
}

/// The bytes of a message to or from a guard. What is taken for one is whole and of our version.
pub fn message(bytes: &[u8]) {
    let mut whole = [0; size_of::<Message>()];
    let len = bytes.len().min(whole.len());
    whole[..len].copy_from_slice(&bytes[..len]);
    // SAFETY: any bytes are the numbers of a message.
    let message: Message = unsafe { std::mem::transmute(whole) };
    if protocol::flaw(&message, bytes.len()).is_none() {
        assert!(bytes.len() >= whole.len() && message.version == protocol::VERSION);
    }
}

/// The record in a request for a process, that came with eight descriptors. Of one that passes everything
/// is read that a child would read.
pub fn spawn_request(bytes: &[u8]) {
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    let mut words: Vec<u64> = words.collect();
    const OWN: [i32; 8] = [900, 901, 902, 903, 904, 905, 906, 907];
    let range = words.as_ptr_range();
    let (start, end) = (range.start as u64, range.end as u64);
    let passed = check(&words, OWN.len()).is_ok();
    // SAFETY: nothing uses these descriptors: they are only numbers, and nothing drops the list.
    let own = ManuallyDrop::new(OWN.map(|raw| Some(unsafe { syscall::OwnedFd::from_raw(raw) })));
    // SAFETY: nothing uses this descriptor.
    let report = unsafe { syscall::BorrowedFd::borrow_raw(1000) };
    match ExecRequest::relocate_received(&mut words, report, &*own) {
        Ok(plan) => {
            assert!(passed);
            assert_inside(plan, start..end, |fd| fd == -1 || OWN.contains(&fd));
        }
        Err(_) => assert!(!passed),
    }
}

/// Panics unless all that it refers to is in this memory, and all its descriptors satisfy `is_own`.
fn assert_inside(plan: &ExecRequest, memory: Range<u64>, is_own: impl Fn(i32) -> bool) {
    let is_in = |at: u64, bytes: u64| {
        at >= memory.start && at.checked_add(bytes).is_some_and(|end| end <= memory.end)
    };
    let is_text = |at: u64| {
        // SAFETY: as far as it is in the memory, which is initialised.
        (at..)
            .find(|at| !is_in(*at, 1) || unsafe { *(*at as *const u8) } == 0)
            .is_some_and(|end| is_in(end, 1))
    };
    for mut at in [plan.argv, plan.envp, plan.paths.at] {
        loop {
            assert!(is_in(at, 8) && at % 8 == 0, "a list goes on outside");
            // SAFETY: as just said.
            let text = unsafe { *(at as *const u64) };
            if text == 0 {
                break;
            }
            assert!(is_text(text), "a text goes on outside");
            at += 8;
        }
    }
    assert!(plan.cwd == 0 || is_text(plan.cwd), "the directory");
    let lists = [
        (plan.paths, 8),
        (plan.descriptors, 8),
        (plan.limits, 24),
        (plan.groups, 4),
        (plan.attributes, 16),
        (plan.cpus, 8),
        (plan.scheduling, 8),
    ];
    for (list, size) in lists {
        let bytes = list.len.checked_mul(size).expect("a list of that size");
        assert!(is_in(list.at, bytes) && list.at % 8 == 0, "a list");
    }
    // SAFETY: a list that lies in the memory.
    let mappings = unsafe {
        let List { at, len } = plan.descriptors;
        std::slice::from_raw_parts(at as *const Mapping, len as usize)
    };
    assert!(mappings.iter().all(|mapping| is_own(mapping.from)), "a descriptor");
    assert!(is_own(plan.cwd_fd) && is_own(plan.join), "a descriptor");
    assert_eq!((plan.hook, plan.hook_data), (0, 0));
}

/// What a bus sends: a message is whole, and no longer than what came.
#[cfg(feature = "systemd")]
pub fn bus(bytes: &[u8]) {
    crate::sys::linux::systemd::dbus::fuzz(bytes);
}

/// `/proc/PID/stat`. A name is a part of the text.
pub fn stat(bytes: &[u8]) {
    if let Some(stat) = procfs::parse_stat(bytes) {
        let name = &stat.name[..stat.name_len];
        assert!(name.is_empty() || bytes.windows(name.len()).any(|part| part == name));
    }
}

/// The list of mounts. The path of a file ends with the part below the root of its mount.
pub fn mounts(bytes: &[u8]) {
    for mount in mounts::parse(bytes) {
        for path in ["/", "/a", "/a/b c"] {
            if let Some(found) = mount.locate(Path::new(path)) {
                assert!(found.as_os_str().len() <= bytes.len() + path.len() + 1, "{found:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::fuzz::torture;

    use super::*;
    use crate::{
        Command,
        sys::linux::{
            nostd::exec::{
                Limit,
                attributes::{Attribute, OOM_SCORE_ADJ},
            },
            spawn::{
                attributes::Changed,
                request::{ExecBuffer, SpawnContext},
            },
        },
    };

    fn requests() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for size in 0..8 {
            let mut command = Command::new(if size % 2 == 0 { "/bin/x" } else { "x" });
            command.args(std::iter::repeat_n("y".repeat(size * 3), size)).env_clear();
            (0..size).for_each(|i| _ = command.env(format!("K{i}"), "v".repeat(i)));
            if size > 3 {
                command.groups(&[1, 2, 3]).current_dir("/");
            }
            let setting = SpawnContext {
                descriptors: (0..size as i32).map(|i| Mapping { from: i, to: i }).collect(),
                limits: vec![Limit { resource: 7, values: [1, 2] }; size / 2],
                umask: -1,
                cwd_fd: size as i32 - 1,
                process_group: None,
                ignored: Some(0),
                attributes: Changed {
                    cpus: vec![3; size % 3],
                    scheduling: if size < 5 { vec![] } else { vec![48, 0, 0, 0, 0, 0] },
                    others: vec![Attribute { kind: OOM_SCORE_ADJ, value: -1 }; size / 3],
                },
            };
            all.push(ExecBuffer::new(&command, &setting).bytes().to_vec());
        }
        all
    }

    #[test]
    fn records_as_the_library_makes_them_pass() {
        for (size, bytes) in requests().into_iter().enumerate() {
            let words =
                bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            let words: Vec<u64> = words.collect();
            assert!(check(&words, 8).is_ok());
            assert!(check(&words, size).is_ok());
            // It refers to its last descriptor.
            assert!(size == 0 || check(&words, size - 1).is_err());
            assert!(check(&words[..words.len() - 1], 8).is_err(), "one that is cut off");
        }
    }

    #[test]
    fn no_spawn_request_reads_outside_itself() {
        torture(&requests(), spawn_request);
    }

    #[test]
    fn no_message_of_another_version_is_used() {
        let seed = Message::new(protocol::SPAWN);
        // SAFETY: a message has no gaps.
        let seed: [u8; size_of::<Message>()] = unsafe { std::mem::transmute(seed) };
        torture(&[seed.to_vec()], message);
    }

    #[test]
    fn a_record_file_reads_back_or_is_refused() {
        let id = "0123456789abcdef-1";
        let text = "format 1\nmechanism subreaper\naround others\nowner 1 2 3 4\npid-namespace 5\n\
            started 6\ninner-guard 7 8 9 10\nouter-guard 1 2 3 4\nbelow /sys%20x%ff\nname dev\n";
        assert!(RecordHeader::parse(id, text).is_some());
        torture(&[text.as_bytes().to_vec()], record);
    }

    #[test]
    fn a_stat_is_read_or_refused() {
        let text = b"42 (a) b (c) R 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        torture(&[text.to_vec(), b"1 (x) Z 18446744073709551615 )( ".to_vec()], stat);
    }

    #[test]
    fn a_list_of_mounts_is_read_or_refused() {
        let here = std::fs::read("/proc/self/mountinfo").unwrap();
        let text = b"26 25 0:24 /a /sys/fs/cg\\040roup rw,nosuid - cgroup2 cgroup rw\n\
            27 25 0:25 / /x\\134040 rw shared:9 - cgroup2 none rw\n";
        torture(&[here, text.to_vec()], mounts);
    }

    #[test]
    #[cfg(feature = "systemd")]
    fn a_bus_message_is_read_or_refused() {
        torture(&crate::sys::linux::systemd::dbus::tests::messages(), bus);
    }
}
