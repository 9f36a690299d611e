//! Removes the records of an owner.
//!
//! In the runtime directory of the user each listed job has a *record*. Its file name is the id of the job:
//! sixteen hexadecimal digits of the owner, a dash and a number. There may be other files of the job, whose names
//! begin with the id and a dot. If the job has a name, there is a symbolic link `=NAME` to its record: so the
//! kernel ensures that only one job has a name. The library only reads the text of the link.

use super::super::{
    procfs::entries,
    syscall::{
        CStr, CWD, O_DIRECTORY, O_NOFOLLOW, Result, flock_exclusive, is_own, openat, readlinkat,
        unlinkat,
    },
};

/// The file name of the link of a name begins with this.
pub(crate) const NAME: u8 = b'=';

/// Removes every record whose name begins with `owner`, and the links to them.
///
/// It holds the lock of the directory, as every process does that removes a link of another owner: so a link
/// cannot be replaced between reading its text and removing it.
pub(crate) fn remove(registry: &CStr, owner: &[u8]) -> Result<()> {
    let dir = openat(CWD, registry, O_DIRECTORY | O_NOFOLLOW)?;
    if !is_own(&dir) {
        // It belongs to another user: the owner has no records there, and the lock may never be free.
        return Ok(());
    }
    let mut any = false;
    entries(&dir, &mut |name, _| any |= name.to_bytes().starts_with(owner))?;
    if !any {
        return Ok(());
    }
    flock_exclusive(&dir)?;
    let fresh = || openat(&dir, c".", O_DIRECTORY);
    // The links go first, so that there is no link without a record.
    entries(&fresh()?, &mut |name, _| {
        let mut text = [0; 64];
        let is_name = name.to_bytes().first() == Some(&NAME);
        if is_name
            && let Ok(len) = readlinkat(&dir, name, &mut text)
            && text.get(..len).is_some_and(|text| text.starts_with(owner))
        {
            let _ = unlinkat(&dir, name);
        }
    })?;
    entries(&fresh()?, &mut |name, _| {
        if name.to_bytes().starts_with(owner) {
            let _ = unlinkat(&dir, name);
        }
    })
}
