//! Small resident memory during a wait.

/// Releases the resident pages of this program's read-only segments. The kernel reads pages that are
/// used again from the page cache. These pages are most of the resident memory of a waiting process.
#[cfg(target_os = "linux")]
pub(super) fn release_program_pages() {
    let page = rustix::param::page_size();
    for (at, size) in read_only_segments() {
        let (first, end) = (at.next_multiple_of(page), (at + size) & !(page - 1));
        let Some(size) = end.checked_sub(first).filter(|size| *size > 0) else { continue };
        let advice = rustix::mm::Advice::LinuxDontNeed;
        // SAFETY: whole pages of a private file mapping without PF_W, which were never modified: the
        // kernel reads the same bytes from the file again. ETXTBSY keeps the file unchanged.
        let _ = unsafe { rustix::mm::madvise(first as *mut _, size, advice) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn release_program_pages() {}

/// Address and size.
#[cfg(target_os = "linux")]
type Segment = (usize, usize);

/// The read-only segments of this program, by its program headers (elf(5)). An array, since freeing a
/// vector would bring the allocator's pages back into memory.
#[cfg(target_os = "linux")]
fn read_only_segments() -> [Segment; 8] {
    unsafe extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: dl_iterate_phdr(3) passes a pointer that is valid during the call, and `found` is the
        // array below.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<[Segment; 8]>()) };
        // SAFETY: `dlpi_phdr` points to `dlpi_phnum` headers of a loaded object, which stay mapped.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let read_only = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
        for (header, found) in read_only.zip(found) {
            let at = info.dlpi_addr as usize + header.p_vaddr as usize;
            *found = (at, header.p_filesz as usize);
        }
        // The first object is the program itself. A return value other than 0 ends the iteration.
        1
    }
    let mut found = [(0, 0); 8];
    // SAFETY: `collect` has the declared type, and `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
    found
}
