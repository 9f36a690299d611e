//! Starting a member: the request that describes it, what it inherits, and the call that makes it.

pub(crate) mod attributes;
pub(crate) mod baseline;
pub(crate) mod credentials;
pub(crate) mod local;
pub(crate) mod request;
