//! Requests and answers that the tests of names have in common.

use testkit::{Fixture, Helper, Owner, eventually};

/// Members in different states.
pub(crate) struct Members {
    pub(crate) stopped: Helper,
    pub(crate) counter: Helper,
    /// Those that have left the session; the stopped one is among them.
    pub(crate) escapees: Vec<Helper>,
}

/// Starts a member that stops itself, one that ignores SIGTERM, one that counts signals and a daemon, and
/// waits for all of them.
#[track_caller]
pub(crate) fn mixed_members(fixture: &Fixture, owner: &mut Owner) -> Members {
    for scenario in ["stopped", "stubborn", "daemon-grandchild", "signal-counter"] {
        owner.ok(&fixture.spawn(scenario));
    }
    let escapees = fixture.report.helpers(&fixture.sandbox, "escapee", 3);
    let stopped = |helper: &&Helper| helper.stat().state == 'T';
    let stopped = eventually("a stopped member", || escapees.iter().find(stopped).cloned());
    let counter = fixture.report.helper(&fixture.sandbox, "counter");
    Members { stopped, counter, escapees }
}

/// One job in the answer to `jobs`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) mechanism: String,
    pub(crate) owner: String,
}

/// The jobs that a process finds.
#[track_caller]
pub(crate) fn jobs(process: &mut Owner) -> Vec<Listed> {
    let answer = process.ok("jobs");
    let parse = |word: &str| match word.split('/').collect::<Vec<_>>()[..] {
        [id, name, mechanism, owner] => Listed {
            id: id.to_owned(),
            name: name.to_owned(),
            mechanism: mechanism.to_owned(),
            owner: owner.to_owned(),
        },
        _ => panic!("{word}"),
    };
    answer.split_whitespace().map(parse).collect()
}

/// An answer that must be this kind of error.
#[track_caller]
pub(crate) fn refused(process: &mut Owner, request: &str, kind: &str) -> String {
    match process.request(request) {
        Err(said) => {
            let (kinds, message) = said.split_once(": ").unwrap_or((&said, ""));
            assert!(kinds.split(',').any(|one| one == kind), "{request}: {said}");
            message.to_owned()
        }
        Ok(said) => panic!("{request} succeeded: {said}"),
    }
}
