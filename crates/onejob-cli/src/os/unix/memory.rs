//! Being small while nothing happens.

/// Gives the pages of our own program back that were needed to get here: what is needed again comes
/// from the page cache. They are as many as the program is large, and most of what a wait would hold.
#[cfg(target_os = "linux")]
pub(super) fn give_back_program() {
    let page = rustix::param::page_size();
    for (at, size) in unwritten_segments() {
        let (first, end) = (at.next_multiple_of(page), (at + size) & !(page - 1));
        let Some(size) = end.checked_sub(first).filter(|size| *size > 0) else { continue };
        let advice = rustix::mm::Advice::LinuxDontNeed;
        // SAFETY: whole pages of a segment that nobody has ever written to: the kernel reads them from
        // the file again, which it does not let anybody change while it is executed.
        let _ = unsafe { rustix::mm::madvise(first as *mut _, size, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn give_back_program() {}

/// Address and size.
#[cfg(target_os = "linux")]
type Segment = (usize, usize);

/// Where the segments of this program are that it does not write to, as its own headers say (elf(5)).
/// No vector: to free it would take the allocator, and its pages, back into memory.
#[cfg(target_os = "linux")]
fn unwritten_segments() -> [Segment; 8] {
    unsafe extern "C" fn gather(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: what dl_iterate_phdr(3) passes is valid during the call, and `found` is ours.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<[Segment; 8]>()) };
        // SAFETY: the headers of a loaded object stay where they are.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let kept = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
        for (header, found) in kept.zip(found) {
            let at = info.dlpi_addr as usize + header.p_vaddr as usize;
            *found = (at, header.p_filesz as usize);
        }
        // The first object is the program itself; no other is asked for.
        1
    }
    let mut found = [(0, 0); 8];
    // SAFETY: `gather` matches the declared type, and `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(gather), (&raw mut found).cast()) };
    found
}
