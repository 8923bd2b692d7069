//! Users, groups, roles and grants as administered; compiles to the directory that workers read.

/// The administered accounts; a value that clones cheaply.
#[derive(Clone, Debug, Default)]
pub struct Accounts {}
