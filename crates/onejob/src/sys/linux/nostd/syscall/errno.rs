//! Error numbers of the kernel.

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

#[rustfmt::skip]
impl Errno {
    pub(crate) const PERM: Errno = Errno(1);      pub(crate) const NOENT: Errno = Errno(2);
    pub(crate) const SRCH: Errno = Errno(3);      pub(crate) const INTR: Errno = Errno(4);
    pub(crate) const TOOBIG: Errno = Errno(7);    pub(crate) const NOEXEC: Errno = Errno(8);
    pub(crate) const CHILD: Errno = Errno(10);    pub(crate) const AGAIN: Errno = Errno(11);
    pub(crate) const NOMEM: Errno = Errno(12);    pub(crate) const ACCES: Errno = Errno(13);
    pub(crate) const BUSY: Errno = Errno(16);     pub(crate) const NODEV: Errno = Errno(19);
    pub(crate) const NOTDIR: Errno = Errno(20);   pub(crate) const INVAL: Errno = Errno(22);
    pub(crate) const NFILE: Errno = Errno(23);    pub(crate) const MFILE: Errno = Errno(24);
    pub(crate) const FBIG: Errno = Errno(27);     pub(crate) const NOSYS: Errno = Errno(38);
    pub(crate) const BADMSG: Errno = Errno(74);   pub(crate) const OPNOTSUPP: Errno = Errno(95);
    pub(crate) const CONNRESET: Errno = Errno(104); pub(crate) const TIMEDOUT: Errno = Errno(110);
    pub(crate) const NOBUFS: Errno = Errno(105);  pub(crate) const NODATA: Errno = Errno(61);
    pub(crate) const STALE: Errno = Errno(116);   pub(crate) const CANCELED: Errno = Errno(125);
    /// Not an error of the kernel: the sender of a message has an older version of the protocol, …
    pub(crate) const FROM_OLDER: Errno = Errno(-1);
    /// … or a newer one.
    pub(crate) const FROM_NEWER: Errno = Errno(-2);
}

impl Errno {
    /// Whether the same call can succeed later: the process or the system had none of a resource left.
    pub(crate) fn is_transient(self) -> bool {
        use Errno as E;
        matches!(self, E::NOMEM | E::NOBUFS | E::MFILE | E::NFILE | E::AGAIN | E::INTR)
    }
}

pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// Repeats a call as long as a signal interrupts it.
pub(super) fn retry_eintr<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
