//! By which mechanism a job is held together.

use std::fmt;

/// One column of the matrix of promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// The kernel's Job Object.
    JobObject,
}

impl Environment {
    /// Those that can be had by who runs the tests.
    pub fn here() -> Vec<Environment> {
        vec![Environment::JobObject]
    }

    /// The mechanism's name, as the library and the command spell it.
    pub fn mechanism(self) -> &'static str {
        "job-object"
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mechanism())
    }
}
