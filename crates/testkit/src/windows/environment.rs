//! The environments of a test: the mechanism of the job.

use std::fmt;

/// One column of the matrix of guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// The kernel's Job Object.
    JobObject,
}

impl Environment {
    /// The environments that are available to the user that runs the tests.
    pub fn here() -> Vec<Environment> {
        vec![Environment::JobObject]
    }

    /// The name of the mechanism in the library and the command.
    pub fn mechanism(self) -> &'static str {
        "job-object"
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mechanism())
    }
}
