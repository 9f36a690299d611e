//! The names of the files that tell other processes of a job, and how an owner's are removed.
//!
//! In the user's runtime directory each listed job has a *record*, a file called like its id:
//! sixteen hexadecimal digits that are the owner's, a dash and a number. Beside it may lie files
//! whose names go on with a dot. A job's name is a symbolic link `=NAME` to its record, so that the
//! kernel decides who gets a name; nobody ever follows it, only its text is read.

use super::super::{
    procfs::entries,
    syscall::{
        CStr, O_DIRECTORY, O_NOFOLLOW, Result, flock_exclusive, is_own, openat, readlinkat,
        unlinkat,
    },
};

/// What the link of a name begins with.
pub(crate) const NAME: u8 = b'=';

/// Removes every record that begins with `owner`, and the names that lead there.
///
/// Under the lock of the directory, as everybody does who removes a name that is not its own: who
/// has read a link's text then knows that it still is the same link.
pub(crate) fn remove(registry: &CStr, owner: &[u8]) -> Result<()> {
    let dir = openat(-100, registry, O_DIRECTORY | O_NOFOLLOW)?;
    if !is_own(dir.raw()) {
        // A stranger's: the owner has put nothing there, and its lock may never be free.
        return Ok(());
    }
    let mut any = false;
    entries(&dir, &mut |name, _| any |= name.to_bytes().starts_with(owner))?;
    if !any {
        return Ok(());
    }
    flock_exclusive(dir.raw())?;
    let fresh = || openat(dir.raw(), c".", O_DIRECTORY);
    // Names go first: there is none without a record.
    entries(&fresh()?, &mut |name, _| {
        let mut text = [0; 64];
        let is_name = name.to_bytes().first() == Some(&NAME);
        if is_name
            && let Ok(len) = readlinkat(dir.raw(), name, &mut text)
            && text.get(..len).is_some_and(|text| text.starts_with(owner))
        {
            let _ = unlinkat(dir.raw(), name);
        }
    })?;
    entries(&fresh()?, &mut |name, _| {
        if name.to_bytes().starts_with(owner) {
            let _ = unlinkat(dir.raw(), name);
        }
    })
}
