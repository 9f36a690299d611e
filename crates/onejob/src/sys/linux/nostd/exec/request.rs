//! The one validation of a plan that came by message.
//!
//! Any process of the user can send one to a job that can be found, so nothing in it is used before all of
//! it has been looked at. That is one pass, since the library lays a record out in one order: the plan,
//! the texts, then the lists, one after the other up to the end.

use core::ops::Range;

use super::{
    super::syscall::{Errno, Result},
    ExecRequest, KEEP, List, Mapping, SET,
    attributes::{Attribute, SCHEDULING_BYTES, Scheduling},
};

/// The largest record. No program can be executed with more arguments than 6 MB (`execve(2)`); a record
/// takes at most twice the room of these.
pub(crate) const MAX: usize = 16 << 20;

/// How many words the plan at the beginning has.
const HEAD: usize = size_of::<ExecRequest>() / 8;

const _: () = assert!(size_of::<ExecRequest>().is_multiple_of(8));

/// Whether this is a whole record: every offset in it leads to what it is to lead to, inside the record;
/// every text and list of texts has an end there; and it names none but the first `own` descriptors.
pub(crate) fn check(record: &[u64], own: usize) -> Result<()> {
    if record.len() < HEAD || record.len() > MAX / 8 {
        return Err(Errno::BADMSG);
    }
    // SAFETY: it is long enough for a plan, aligned for one, and any bytes are numbers.
    let plan = unsafe { &*record.as_ptr().cast::<ExecRequest>() };
    let mut lists = Lists::new(record, plan.argv)?;
    let arguments = lists.texts(plan.argv)?;
    lists.texts(plan.envp)?;
    let is_whole = arguments > 0
        && lists.texts(plan.paths.at)? == plan.paths.len
        && (plan.cwd == 0 || lists.is_text(plan.cwd));
    let is_own = |number: i32| usize::try_from(number).is_ok_and(|number| number < own);
    let descriptors = lists.list(plan.descriptors, size_of::<Mapping>())?;
    let mappings = descriptors.iter().map(|word| Mapping::of(*word));
    let are_own = mappings.into_iter().all(|mapping| is_own(mapping.from) && mapping.to >= 0)
        && [plan.cwd_fd, plan.join].iter().all(|number| *number == -1 || is_own(*number));
    lists.list(plan.limits, 24)?;
    lists.list(plan.groups, 4)?;
    lists.list(plan.attributes, size_of::<Attribute>())?;
    lists.list(plan.cpus, 8)?;
    // It says itself how long it is.
    let is_scheduling = match lists.list(plan.scheduling, 8)? {
        [] => true,
        words @ [head, ..] => {
            let [a, b, c, d, ..] = head.to_ne_bytes();
            words.len() * 8 == size_of::<Scheduling>()
                && u32::from_ne_bytes([a, b, c, d]) == SCHEDULING_BYTES
        }
    };
    let id = -1..=i64::from(u32::MAX);
    let is_sound = is_whole
        && are_own
        && is_scheduling
        && lists.next == record.len()
        && id.contains(&plan.uid)
        && id.contains(&plan.gid)
        && plan.process_group >= 0
        && matches!(plan.dispositions, KEEP | SET)
        // Code of the sender's memory is none of ours.
        && (plan.hook, plan.hook_data) == (0, 0);
    if is_sound { Ok(()) } else { Err(Errno::BADMSG) }
}

/// What follows the texts.
struct Lists<'a> {
    record: &'a [u64],
    /// The word where the next one begins.
    next: usize,
    /// The offsets at which there can be a text. The last byte there is a NUL, so each has an end.
    texts: Range<u64>,
}

impl<'a> Lists<'a> {
    /// The first begins at this offset.
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

    /// Passes over the list of texts that begins at this offset and ends with a 0; how many there are.
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

    /// Passes over a list of entries of this many bytes; its words.
    fn list(&mut self, list: List, bytes: usize) -> Result<&'a [u64]> {
        self.begins(list.at)?;
        let len = usize::try_from(list.len).ok().and_then(|len| len.checked_mul(bytes));
        let end = len.and_then(|len| self.next.checked_add(len.div_ceil(8)));
        let words = end.and_then(|end| self.record.get(self.next..end)).ok_or(Errno::BADMSG)?;
        self.next += words.len();
        Ok(words)
    }
}
