//! The validation of a request that came in a message.
//!
//! Any process of the user can send one to the guard of a listed job, so the guard validates the whole request
//! before it uses any part. One pass is enough, since the library builds a request in one order: the head, the
//! texts, then the lists, without gaps up to the end.

use core::{ops::Range, sync::atomic::Ordering};

use super::{
    super::syscall::{BorrowedFd, Errno, OwnedFd, Result, SchedAttr},
    attributes::Attribute,
    request::{DEFAULTS, ExecRequest, KEEP, List, Mapping, SET},
};

/// The size of the largest request in bytes. `execve(2)` allows 6 MB of arguments; a request has at most twice
/// their size.
pub(crate) const MAX_SIZE: usize = 16 << 20;

/// How many words the head has.
const HEAD: usize = size_of::<ExecRequest>() / 8;

const _: () = assert!(size_of::<ExecRequest>().is_multiple_of(8));

/// Checks that this is a whole request: every offset points to a value of its type inside the request, every
/// text and list of texts ends inside it, and every index of a descriptor is less than `own`.
pub(crate) fn check(record: &[u64], own: usize) -> Result<()> {
    if record.len() < HEAD || record.len() > MAX_SIZE / 8 {
        return Err(Errno::BADMSG);
    }
    // SAFETY: `record` is long enough for a head, aligned to 8 bytes, and any bytes are numbers.
    let head = unsafe { &*record.as_ptr().cast::<ExecRequest>() };
    let mut lists = Lists::new(record, head.argv)?;
    let arguments = lists.texts(head.argv)?;
    lists.texts(head.envp)?;
    let is_whole = arguments > 0
        && lists.texts(head.paths.at)? == head.paths.len
        && (head.cwd == 0 || lists.is_text(head.cwd));
    let is_own = |number: i32| usize::try_from(number).is_ok_and(|number| number < own);
    let descriptors = lists.list(head.descriptors, size_of::<Mapping>())?;
    let mappings = descriptors.iter().map(|word| Mapping::of(*word));
    let are_own = mappings.into_iter().all(|mapping| is_own(mapping.from) && mapping.to >= 0)
        && [head.cwd_fd, head.join].iter().all(|number| *number == -1 || is_own(*number));
    lists.list(head.limits, 24)?;
    lists.list(head.groups, 4)?;
    lists.list(head.attributes, size_of::<Attribute>())?;
    lists.list(head.cpus, 8)?;
    // The kernel reads as many bytes as the first field contains.
    let is_scheduling = match lists.list(head.scheduling, 8)? {
        [] => true,
        words @ [first, ..] => {
            let [a, b, c, d, ..] = first.to_ne_bytes();
            words.len() * 8 == size_of::<SchedAttr>()
                && u32::from_ne_bytes([a, b, c, d]) == SchedAttr::SIZE
        }
    };
    let id = -1..=i64::from(u32::MAX);
    let is_sound = is_whole
        && are_own
        && is_scheduling
        && lists.next == record.len()
        && id.contains(&head.uid)
        && id.contains(&head.gid)
        && head.process_group >= 0
        && matches!(head.dispositions, KEEP | SET)
        // These are addresses in the memory of the sender.
        && (head.hook, head.hook_data) == (0, 0);
    if is_sound { Ok(()) } else { Err(Errno::BADMSG) }
}

impl ExecRequest {
    /// [`relocate`](ExecRequest::relocate) for a request that came in a message. Its descriptors are indexes into
    /// `own`, the descriptors of the message. The parent must have default dispositions for all signals.
    pub(crate) fn relocate_received<'a>(
        record: &'a mut [u64],
        report: BorrowedFd<'_>,
        own: &[Option<OwnedFd>],
    ) -> Result<&'a ExecRequest> {
        check(record, own.len())?;
        let record = record.as_mut_ptr().cast::<u8>();
        // SAFETY: `check` has validated the request, which only this function accesses. The list of mappings
        // does not overlap the head.
        let (head, mappings) = unsafe {
            ExecRequest::relocate(record);
            let head = &mut *record.cast::<ExecRequest>();
            let List { at, len } = head.descriptors;
            (head, core::slice::from_raw_parts_mut(at as *mut Mapping, len as usize))
        };
        let translate =
            |index: i32| own.get(index as usize).and_then(Option::as_ref).map_or(-1, OwnedFd::raw);
        head.report.store(report.raw(), Ordering::Relaxed);
        head.dispositions = if head.dispositions == SET { DEFAULTS } else { KEEP };
        head.cwd_fd = translate(head.cwd_fd);
        head.join = translate(head.join);
        mappings.iter_mut().for_each(|mapping| mapping.from = translate(mapping.from));
        Ok(head)
    }
}

/// The lists, which follow the texts.
struct Lists<'a> {
    record: &'a [u64],
    /// The index of the word where the next list begins.
    next: usize,
    /// The offsets of texts. The last byte is a NUL, so every text ends there at the latest.
    texts: Range<u64>,
}

impl<'a> Lists<'a> {
    /// `first` is the offset of the first list.
    fn new(record: &'a [u64], first: u64) -> Result<Lists<'a>> {
        let next = usize::try_from(first / 8).map_err(|_| Errno::BADMSG)?;
        let before = record.get(HEAD..next).ok_or(Errno::BADMSG)?;
        match before.last().map(|word| word.to_ne_bytes()) {
            None | Some([.., 0]) => {
                Ok(Lists { record, next, texts: 8 * HEAD as u64..8 * next as u64 })
            }
            Some(_) => Err(Errno::BADMSG),
        }
    }

    fn is_text(&self, at: u64) -> bool {
        self.texts.contains(&at)
    }

    fn begins(&self, at: u64) -> Result<()> {
        if at == 8 * self.next as u64 { Ok(()) } else { Err(Errno::BADMSG) }
    }

    /// Skips the list of texts that begins at this offset and ends with a 0. Returns how many there are.
    fn texts(&mut self, at: u64) -> Result<u64> {
        self.begins(at)?;
        let rest = self.record.get(self.next..).unwrap_or(&[]);
        let count = rest.iter().position(|entry| *entry == 0).ok_or(Errno::BADMSG)?;
        if !rest.iter().take(count).all(|entry| self.is_text(*entry)) {
            return Err(Errno::BADMSG);
        }
        self.next += count + 1;
        Ok(count as u64)
    }

    /// Skips a list of entries of this many bytes. Returns its words.
    fn list(&mut self, list: List, bytes: usize) -> Result<&'a [u64]> {
        self.begins(list.at)?;
        let len = usize::try_from(list.len).ok().and_then(|len| len.checked_mul(bytes));
        let end = len.and_then(|len| self.next.checked_add(len.div_ceil(8)));
        let words = end.and_then(|end| self.record.get(self.next..end)).ok_or(Errno::BADMSG)?;
        self.next += words.len();
        Ok(words)
    }
}
