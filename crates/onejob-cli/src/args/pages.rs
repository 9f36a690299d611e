//! Exit statuses and examples of each subcommand, for its help and its manual page, which have its description and
//! options from the definitions of the arguments.

/// One subcommand.
pub(crate) struct Page {
    pub(crate) subcommand: &'static str,
    /// The status, and the event that it stands for.
    pub(crate) statuses: &'static [(&'static str, &'static str)],
    /// The purpose of a command line, and the line.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Other manual pages, with their sections.
    pub(crate) see_also: &'static [&'static str],
}

pub(crate) fn of(subcommand: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.subcommand == subcommand)
}

const OK: (&str, &str) = ("0", "success");
const FAILED: (&str, &str) = ("125", "onejob itself failed: invalid usage, no such job");
const CMD: [(&str, &str); 2] = [("126", "CMD could not be executed"), ("127", "CMD was not found")];

const PAGES: &[Page] = &[
    Page {
        subcommand: "run",
        statuses: &[
            ("CMD's", "CMD exited; if a signal ended CMD, the same signal ends onejob"),
            ("124", "the time limit of -t or the CPU-time limit of --cpu-time was reached"),
            ("125", "onejob itself failed: invalid usage, an unavailable guarantee"),
            CMD[0],
            CMD[1],
            ("129", "the lifeline of --lifeline or --with was lost"),
        ],
        examples: &[
            ("Run the tests; nothing that they start is left behind", "onejob run make test"),
            ("Give up after ten minutes", "onejob run -t 10min -- ./integration.sh"),
            (
                "Limit the memory and the CPUs of a build",
                "onejob run --memory 4G --cpus 2 make -j8",
            ),
            (
                "Run a server in the background, and follow its output",
                "onejob run -d -n dev npm start; onejob logs -f dev",
            ),
            ("End the tree with the connection", "ssh HOST onejob run --lifeline 1 ./server"),
        ],
        see_also: &["env(1)", "time(1)", "timeout(1)", "onejob-kill(1)", "onejob-logs(1)"],
    },
    Page {
        subcommand: "init",
        statuses: &[
            (
                "CMD's",
                "CMD exited; if signal n ended CMD: 128+n as PID 1, otherwise the same signal ends onejob",
            ),
            ("125", "onejob itself failed"),
            CMD[0],
            CMD[1],
            ("129", "the lifeline of --lifeline or --with was lost"),
        ],
        examples: &[
            ("The entry point of a container", "ENTRYPOINT [\"onejob\", \"init\", \"--\"]"),
            (
                "Send SIGQUIT to CMD instead of SIGTERM",
                "onejob init -r TERM:QUIT nginx -g 'daemon off;'",
            ),
            ("Kill CMD ten seconds after SIGTERM", "onejob init -k 10s ./server"),
        ],
        see_also: &["onejob-run(1)"],
    },
    Page {
        subcommand: "ls",
        statuses: &[OK, FAILED],
        examples: &[
            (
                "The names of frozen jobs",
                "onejob ls --json | jq -r '.jobs[] | select(.state == \"frozen\").name'",
            ),
            ("With ids, mechanisms and owners", "onejob ls --wide"),
        ],
        see_also: &["onejob-tree(1)", "onejob-stats(1)", "ps(1)"],
    },
    Page {
        subcommand: "tree",
        statuses: &[OK, FAILED],
        examples: &[
            ("Watch the processes of one job; q ends it", "onejob tree --watch dev"),
            ("The processes below a process", "onejob tree 1234"),
        ],
        see_also: &["onejob-ls(1)", "pstree(1)", "top(1)"],
    },
    Page {
        subcommand: "kill",
        statuses: &[
            ("0", "all have ended"),
            ("1", "some have not ended"),
            ("125", "an argument is invalid: nothing was signalled"),
        ],
        examples: &[
            ("Stop a job: SIGTERM, then SIGKILL after five seconds", "onejob kill dev"),
            ("Stop the tree below a process with SIGINT first", "onejob kill -s INT pid:1234"),
            ("Kill two jobs at once", "onejob kill --now dev test"),
        ],
        see_also: &["kill(1)", "signal(7)", "onejob-ls(1)"],
    },
    Page {
        subcommand: "wait",
        statuses: &[
            (
                "CMD's",
                "that of the onejob run that owns the last job; 128+n if signal n ended its CMD",
            ),
            ("0", "the job was not started by onejob run"),
            ("125", "the status is unknown, or there is no such job"),
        ],
        examples: &[("Wait for a job and use its status", "onejob wait tests && deploy")],
        see_also: &["onejob-run(1)", "onejob-logs(1)"],
    },
    Page {
        subcommand: "stats",
        statuses: &[OK, FAILED],
        examples: &[
            ("CPU time and memory so far", "onejob stats dev"),
            ("The same at the end of a run", "onejob run --stats make"),
        ],
        see_also: &["onejob-run(1)", "onejob-ls(1)", "time(1)"],
    },
    Page {
        subcommand: "limit",
        statuses: &[OK, ("125", "a limit cannot be set or lifted: nothing was changed")],
        examples: &[
            ("Lower the memory limit of a running job", "onejob limit --memory 2G dev"),
            ("Remove its CPU limit", "onejob limit --lift cpu dev"),
            ("Print its limits", "onejob limit dev"),
        ],
        see_also: &["onejob-run(1)", "onejob-doctor(1)", "cgroups(7)"],
    },
    Page {
        subcommand: "freeze",
        statuses: &[OK, ("1", "a job could not be frozen"), FAILED],
        examples: &[("Pause a build, and go on later", "onejob freeze build; onejob thaw build")],
        see_also: &["onejob-thaw(1)"],
    },
    Page {
        subcommand: "thaw",
        statuses: &[OK, ("1", "a job could not be thawed"), FAILED],
        examples: &[("Go on with a frozen build", "onejob thaw build")],
        see_also: &["onejob-freeze(1)"],
    },
    Page {
        subcommand: "exec",
        statuses: &[
            ("CMD's", "CMD exited; if a signal ended CMD, the same signal ends onejob"),
            FAILED,
            CMD[0],
            CMD[1],
        ],
        examples: &[("A shell beside the members of a job", "onejob exec dev bash")],
        see_also: &["onejob-run(1)"],
    },
    Page {
        subcommand: "logs",
        statuses: &[OK, ("125", "there is no such log")],
        examples: &[("Follow the output until the job ends", "onejob logs -f dev")],
        see_also: &["onejob-run(1)", "tail(1)"],
    },
    Page {
        subcommand: "doctor",
        statuses: &[("0", "onejob run can use a mechanism"), ("1", "no mechanism is available")],
        examples: &[
            ("What this host guarantees", "onejob doctor"),
            ("The mechanism that onejob run uses", "onejob doctor --json | jq -r .run_uses"),
        ],
        see_also: &["onejob-run(1)", "cgroups(7)"],
    },
    Page {
        subcommand: "completions",
        statuses: &[OK, ("125", "invalid usage")],
        examples: &[
            ("bash", "onejob completions bash > ~/.local/share/bash-completion/completions/onejob"),
            ("zsh, with ~/.zfunc in fpath", "onejob completions zsh > ~/.zfunc/_onejob"),
            ("fish", "onejob completions fish > ~/.config/fish/completions/onejob.fish"),
            (
                "PowerShell, in $PROFILE",
                "onejob completions powershell | Out-String | Invoke-Expression",
            ),
        ],
        see_also: &["bash(1)", "zsh(1)", "fish(1)"],
    },
    Page {
        subcommand: "man",
        statuses: &[OK, ("125", "the pages could not be written")],
        examples: &[("Install the pages for this user", "onejob man ~/.local/share/man/man1")],
        see_also: &["man(1)"],
    },
];

/// Variables that onejob reads or sets, for the manual pages.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("ONEJOB_RUNTIME_DIR", "The directory of the records of jobs, instead of the default."),
    ("XDG_RUNTIME_DIR", "Where the socket of the user's service manager is."),
    (
        "XDG_STATE_HOME",
        "The logs of detached jobs are in onejob below it; the default is ~/.local/state. If neither \
         can be written to, they are beside the records.",
    ),
    (
        "ONEJOB_LOG",
        "debug prints each step of onejob on the standard error: jobs, guards, starts, stops; trace also \
         each round of a kill.",
    ),
    ("PATH", "Where CMD is searched."),
    ("NO_COLOR", "If set and not empty, help and listings have no colours."),
    ("TERM", "If unset or dumb, no escape sequences are printed."),
];

/// Files, for the manual pages.
pub(crate) const FILES: &[(&str, &str)] = &[
    (
        "/run/onejob, /run/user/UID/onejob",
        "Records of running jobs; /tmp/onejob-UID if neither can be used.",
    ),
    ("~/.local/state/onejob/NAME.log", "The output of the detached job NAME."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::definitions;

    /// Each subcommand has a page, and each page a subcommand, with exit statuses, an example and other pages.
    #[test]
    fn a_page_for_each_subcommand() {
        let names: Vec<_> =
            definitions().get_subcommands().map(|one| one.get_name().to_owned()).collect();
        let pages: Vec<_> = PAGES.iter().map(|page| page.subcommand.to_owned()).collect();
        assert_eq!(names, pages);
        for page in PAGES {
            assert!(!page.statuses.is_empty() && !page.examples.is_empty(), "{}", page.subcommand);
            for other in page.see_also.iter().filter_map(|name| name.strip_prefix("onejob-")) {
                let name = other.split('(').next().unwrap_or_default();
                assert!(of(name).is_some() && name != page.subcommand, "{other}");
            }
        }
    }
}
