//! A note that one process writes and others read, in named memory.
//!
//! There are two slots, which are written alternately, and one word with the number of the current
//! slot and the length of the note. So a reader never sees a partial note, even if the writer dies at
//! any moment.

use std::{
    io, slice,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering, fence},
    },
};

use super::memory::{Access, Memory};

/// The longest note in bytes: more than the longest command line.
pub(super) const MAX_NOTE: usize = 128 << 10;

/// In the upper half, a number that grows with each note, whose lowest bit selects the slot; in the
/// lower half, the length.
struct Word(u64);

impl Word {
    const fn new(number: u32, length: u32) -> Word {
        Word((number as u64) << 32 | length as u64)
    }

    fn number(&self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn length(&self) -> usize {
        (self.0 as u32 as usize).min(MAX_NOTE)
    }
}

const HEAD: usize = size_of::<AtomicU64>();
const SIZE: usize = HEAD + 2 * MAX_NOTE;

pub(super) struct Notes {
    memory: Memory,
    /// Serializes writers; `None` for a reader.
    writer: Option<Mutex<()>>,
}

impl Notes {
    /// Creates the notes, for the only process that writes them.
    pub(super) fn create(name: &str) -> io::Result<Notes> {
        let memory = Memory::create(Some(name), SIZE)?;
        Ok(Notes { memory, writer: Some(Mutex::default()) })
    }

    pub(super) fn open(name: &str) -> io::Result<Notes> {
        Ok(Notes { memory: Memory::open(name, Access::Read, SIZE)?, writer: None })
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped as long as `self` exists, page-aligned, and only accessed as an atomic.
        unsafe { self.memory.at().cast().as_ref() }
    }

    fn place(&self, number: u32) -> &[AtomicU8] {
        let offset = HEAD + MAX_NOTE * (number as usize & 1);
        // SAFETY: inside the mapping, which lasts as long as `self`, and only accessed as atomics.
        unsafe { slice::from_raw_parts(self.memory.at().add(offset).cast().as_ptr(), MAX_NOTE) }
    }

    pub(super) fn read(&self) -> Option<String> {
        loop {
            let before = self.word().load(Ordering::Acquire);
            let word = Word(before);
            let place = self.place(word.number()).iter().take(word.length());
            let bytes = place.map(|byte| byte.load(Ordering::Relaxed)).collect();
            fence(Ordering::Acquire);
            // A slot is written again only after the other one has been written.
            if self.word().load(Ordering::Relaxed) == before {
                return String::from_utf8(bytes).ok().filter(|note| !note.is_empty());
            }
        }
    }

    /// Returns `None` for a reader.
    pub(super) fn write(&self, note: &str) -> Option<()> {
        debug_assert!(note.len() <= MAX_NOTE);
        let _alone = self.writer.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let number = Word(self.word().load(Ordering::Relaxed)).number().wrapping_add(1);
        fence(Ordering::Release);
        for (to, byte) in self.place(number).iter().zip(note.bytes()) {
            to.store(byte, Ordering::Relaxed);
        }
        self.word().store(Word::new(number, note.len() as u32).0, Ordering::Release);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last note is read completely, also during writes.
    #[test]
    fn last_note_is_read_whole_during_writes() {
        let name = format!(r"Local\onejob-notes-test,{}", std::process::id());
        let ours = Notes::create(&name).unwrap();
        let theirs = Notes::open(&name).unwrap();
        assert_eq!(theirs.read(), None);
        assert!(theirs.write("x").is_none(), "a reader writes nothing");
        ours.write("ünï\n").unwrap();
        assert_eq!((ours.read(), theirs.read()), (Some("ünï\n".into()), Some("ünï\n".into())));
        let texts = [b'a', b'b', b'c'].map(|byte| String::from(char::from(byte)).repeat(999));
        ours.write(&texts[0]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..3000).for_each(|turn| ours.write(&texts[turn % 3]).unwrap()));
            for _ in 0..1000 {
                assert!(texts.contains(&theirs.read().unwrap()), "half a note");
            }
        });
        drop(ours);
        assert!(texts.contains(&theirs.read().unwrap()), "readable after the owner has closed it");
        assert!(Notes::open("no-such-note").is_err());
    }
}
