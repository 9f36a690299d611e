//! Mistakes that people make on the command line: the message names the mistake and its remedy, and nothing
//! is started or signalled.

use std::process::Command;

use crate::{
    common::{
        eventually, kill,
        recorder::{Recorders, recorder},
        text, wait,
    },
    fixture::Fixture,
};

/// What is typed, the exit status, and the whole output to standard error; `…` stands for any text.
struct Case(&'static [&'static str], i32, &'static str);

const CASES: &[Case] = &[
    // Misplaced commands.
    Case(
        &["touch", "started"],
        125,
        "onejob: unrecognized subcommand 'touch'\nhint: did you mean `onejob run touch started`?\n",
    ),
    Case(
        &["./make it", "a b", "it's"],
        125,
        "onejob: unrecognized subcommand './make it'\n\
         hint: did you mean `onejob run './make it' 'a b' 'it'\\''s'`?\n",
    ),
    Case(
        &["FOO=1", "touch", "started"],
        125,
        "onejob: unrecognized subcommand 'FOO=1'\n\
         hint: did you mean `onejob run env FOO=1 touch started`?\n",
    ),
    Case(
        &["-t", "5", "touch", "started"],
        125,
        "onejob: unknown option '-t'\nhint: options of a subcommand follow its name; see `onejob --help`\n",
    ),
    Case(
        &["--versoin"],
        125,
        "onejob: unknown option '--versoin'\nhint: did you mean --version?\n",
    ),
    Case(
        &["no-such-word"],
        125,
        "onejob: unrecognized subcommand 'no-such-word'\n\
         hint: `onejob run CMD` runs a command, `onejob --help` lists the subcommands\n",
    ),
    Case(
        &["docter"],
        125,
        "onejob: unrecognized subcommand 'docter'\nhint: did you mean `onejob doctor`?\n",
    ),
    Case(
        &["help", "docter"],
        125,
        "onejob: unrecognized subcommand 'docter'\nhint: did you mean `onejob help doctor`?\n",
    ),
    // Signals that are given as options.
    Case(
        &["kill", "-9", "j"],
        125,
        "onejob: unknown option '-9'\nhint: to kill at once: `onejob kill --now j`\n",
    ),
    Case(
        &["kill", "-KILL", "j"],
        125,
        "onejob: unknown option '-KILL'\nhint: to kill at once: `onejob kill --now j`\n",
    ),
    Case(
        &["kill", "j", "-SIGKILL"],
        125,
        "onejob: unknown option '-SIGKILL'\nhint: to kill at once: `onejob kill j --now`\n",
    ),
    Case(
        &["kill", "-SIGTERM", "j"],
        125,
        "onejob: unknown option '-SIGTERM'\n\
         hint: a signal is given with -s: `onejob kill -s TERM j`\n",
    ),
    Case(
        &["kill", "-INT", "j"],
        125,
        "onejob: unknown option '-INT'\nhint: a signal is given with -s: `onejob kill -s INT j`\n",
    ),
    Case(
        &["kill", "-15", "j"],
        125,
        "onejob: unknown option '-15'\nhint: a signal is given with -s: `onejob kill -s TERM j`\n",
    ),
    Case(
        &["kill", "-99", "j"],
        125,
        "onejob: unknown option '-99'\nhint: see `onejob kill --help`\n",
    ),
    Case(
        &["kill", "-s", "FOO", "j"],
        125,
        "onejob: invalid value 'FOO' for --signal: unknown signal\n\
         hint: a name like TERM or a number from 1 to 64; `kill -l` lists them\n",
    ),
    // CMD.
    Case(
        &["run", "touch started"],
        127,
        "onejob: failed to execute \"touch started\": command not found\n\
         hint: a command and its arguments are separate words: `onejob run touch started`\n",
    ),
    Case(
        &["run", "--", "touch started && ls"],
        127,
        "onejob: failed to execute \"touch started && ls\": command not found\n\
         hint: the words of a shell need a shell: `onejob run sh -c 'touch started && ls'`\n",
    ),
    Case(
        &["run", "cd", "/tmp"],
        127,
        "onejob: failed to execute \"cd\": command not found\n\
         hint: cd is built into the shell: `onejob run sh -c 'cd /tmp; …'`\n",
    ),
    Case(
        &["run", "FOO=1", "touch", "started"],
        127,
        "onejob: failed to execute \"FOO=1\": command not found\n\
         hint: env sets variables: `onejob run env FOO=1 touch started`\n",
    ),
    Case(
        &["run", "--stats", "json", "touch", "started"],
        127,
        "onejob: failed to execute \"json\": command not found\n\
         hint: the format is a part of the option: `onejob run --stats=json touch started`\n",
    ),
    Case(
        &["run", "-n", "x", "nosuch"],
        127,
        "onejob: failed to execute \"nosuch\": command not found\n\
         hint: no directory of PATH contains it\n",
    ),
    Case(
        &["run", "-d", "nosuch"],
        127,
        "onejob: failed to execute \"nosuch\": command not found\n\
         hint: no directory of PATH contains it\n",
    ),
    Case(
        &["exec", "j", "nosuch"],
        127,
        "onejob: failed to execute \"nosuch\": command not found\n\
         hint: no directory of PATH contains it\n",
    ),
    Case(
        &["run", "./nosuch"],
        127,
        "onejob: failed to execute \"./nosuch\": No such file or directory (os error 2)\n",
    ),
    Case(&["run"], 125, "onejob: no command given\nhint: example: `onejob run make test`\n"),
    Case(
        &["run", "-t", "5", "--"],
        125,
        "onejob: no command given\nhint: example: `onejob run make test`\n",
    ),
    Case(
        &["init"],
        125,
        "onejob: no command given\nhint: example: `onejob init /usr/sbin/server`\n",
    ),
    Case(&["exec", "j"], 125, "onejob: no command given\nhint: example: `onejob exec JOB ps`\n"),
    Case(
        &[],
        125,
        "onejob: no command given\n\
         hint: `onejob run CMD` runs a command, `onejob --help` lists the subcommands\n",
    ),
    // Values.
    Case(
        &["run", "--require", "foo", "touch", "started"],
        125,
        "onejob: invalid value 'foo' for --require: unknown guarantee \"foo\"\n\
         hint: one of: containment=(grouped|tracked|sealed), kill=(best-effort|converging|atomic), \
         owner-death=(none|guard|kernel), freeze=(none|signals|atomic), crosses-setuid, \
         limits=(memory|cpu|processes|cpu-time|affinity|swap|cpu-weight|io-weight)\n",
    ),
    Case(
        &["run", "--require", "kill=foo", "touch", "started"],
        125,
        "onejob: invalid value 'kill=foo' for --require: unknown kill \"foo\"\n\
         hint: one of: best-effort, converging, atomic\n",
    ),
    Case(
        &["run", "--mechanism", "job-object", "touch", "started"],
        125,
        "onejob: invalid value 'job-object' for --mechanism: it exists on Windows only\n\
         hint: one of: cgroup, subreaper\n",
    ),
    Case(
        &["run", "--mechanism", "foo", "touch", "started"],
        125,
        "onejob: invalid value 'foo' for --mechanism: unknown mechanism\n\
         hint: one of: cgroup, subreaper\n",
    ),
    Case(
        &["run", "-t", "soon", "touch", "started"],
        125,
        "onejob: invalid value 'soon' for --timeout: invalid duration\nhint: examples: 10, 1.5, 500ms, 10s, 2m, 1h30m, 1d\n",
    ),
    Case(
        &["run", "-t"],
        125,
        "onejob: --timeout needs a value: DUR\nhint: see `onejob run --help`\n",
    ),
    Case(
        &["run", "--stats=yaml", "touch", "started"],
        125,
        "onejob: invalid value 'yaml' for --stats\nhint: one of: text, json\n",
    ),
    Case(
        &["run", "--keep", "--wait-all", "touch", "started"],
        125,
        "onejob: --keep cannot be used with --wait-all\nhint: see `onejob run --help`\n",
    ),
    Case(
        &["completions", "tcsh"],
        125,
        "onejob: invalid value 'tcsh' for SHELL\nhint: one of: bash, zsh, fish, powershell\n",
    ),
    // Options.
    Case(
        &["run", "--tmeout", "5", "touch", "started"],
        125,
        "onejob: unknown option '--tmeout'\nhint: did you mean --timeout?\n",
    ),
    Case(
        &["exec", "-it", "j", "touch", "started"],
        125,
        "onejob: unknown option '-it'\n\
         hint: exec uses this terminal in any case: `onejob exec j touch started`\n",
    ),
    Case(
        &["ls", "-w", "5"],
        125,
        "onejob: unexpected argument '5'\nhint: the interval is a part of the option: --watch=5\n",
    ),
    Case(
        &["stats", "j", "x"],
        125,
        "onejob: unexpected argument 'x'\nhint: see `onejob stats --help`\n",
    ),
    // Jobs.
    Case(&["logs"], 125, "onejob: no job given\nhint: `onejob ls` lists the jobs\n"),
    Case(&["stats"], 125, "onejob: no job given\nhint: `onejob ls` lists the jobs\n"),
    Case(&["kill"], 125, "onejob: no job or process given\nhint: `onejob ls` lists the jobs\n"),
    Case(
        &["kill", "j", "gone"],
        125,
        "onejob: there is no job gone\nhint: `onejob ls` lists the jobs\n",
    ),
    Case(
        &["wait", "gone"],
        125,
        "onejob: there is no job gone\nhint: `onejob ls` lists the jobs\n",
    ),
    Case(
        &["exec", "gone", "touch", "started"],
        125,
        "onejob: there is no job gone\nhint: `onejob ls` lists the jobs\n",
    ),
    Case(
        &["limit", "j", "--lift", "affinity"],
        125,
        "onejob: the job j has no limit to lift: affinity\nhint: `onejob limit j` prints its limits\n",
    ),
    Case(
        &["limit", "j", "--lift", "memory,swap"],
        125,
        "onejob: the job j has no limit to lift: memory,swap\nhint: `onejob limit j` prints its limits\n",
    ),
    Case(
        &["limit", "j", "--memory", "1G"],
        125,
        "onejob: cannot limit memory of the job j: …\nhint: …\n",
    ),
    Case(
        &["run", "-n", "j", "touch", "started"],
        125,
        "onejob: a live job has the name j\n\
         hint: use another name, or stop that job first: `onejob kill j`\n",
    ),
    // Directories.
    Case(
        &["man", "no such/directory"],
        125,
        "onejob: failed to write the manual pages into no such/directory: No such file or directory (os error 2)\n\
         hint: make the directory first: `mkdir -p 'no such/directory'`\n",
    ),
];

/// Whether `said` is the wanted text, in which each `…` followed by a line feed stands for any text.
fn fits(said: &str, wanted: &str) -> bool {
    let mut rest = said;
    let parts: Vec<_> = wanted.split("…\n").collect();
    let (first, others) = parts.split_first().unwrap();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    for part in others {
        let Some((skipped, after)) = rest.split_once('\n') else { return false };
        match after.strip_prefix(part) {
            Some(after) if !skipped.is_empty() => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// Each mistake gives its exit status and its message with the remedy; nothing is started, and the members of
/// a running job get no signal.
#[test]
fn each_mistake_has_its_message() {
    let fixture = Fixture::new();
    let recorders = Recorders::new(&fixture.scratch);
    // Subreaper cannot limit memory on any host.
    let mut run = fixture.onejob(&["run", "--mechanism", "subreaper", "-n", "j"]);
    let mut owner = recorders.below(run.arg(recorder())).spawn().unwrap();
    recorders.ready(1);
    fixture.wait_for_job("j");
    let member = fixture.json(&["tree", "--json", "j"])["trees"][0]["processes"][0]["pid"].clone();
    let member = u32::try_from(member.as_u64().unwrap()).unwrap();
    let mut wrong = Vec::new();
    for Case(typed, status, wanted) in CASES {
        let output = fixture.output_of(typed);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if output.status.code() != Some(*status) || !stdout.is_empty() || !fits(&stderr, wanted) {
            wrong.push(format!(
                "{typed:?}: {} {stdout}{stderr}wanted: {status} {wanted}",
                output.status
            ));
        }
        assert!(!fixture.scratch.file("started").exists(), "{typed:?} has started a command");
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    assert_eq!(recorders.got(member), [] as [i32; 0]);
    recorders.end();
    wait(&mut owner);
    fixture.assert_empty();
}

/// A pid where a job is expected: the message names the job that the process is a member of.
#[test]
fn a_pid_in_the_place_of_a_job() {
    let fixture = Fixture::new();
    let mut owner = fixture.start("subreaper", "j", &["sleep", "1000"]);
    let member =
        fixture.json(&["tree", "--json", "j"])["trees"][0]["processes"][0]["pid"].to_string();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let outside = other.id().to_string();
    for pid in [member.clone(), format!("pid:{member}")] {
        let (_, stderr) = fixture.expect_status(&["stats", &pid], 125);
        let wanted = format!(
            "onejob: {member} is a pid, not a job\n\
             hint: the process is a member of the job j: `onejob stats j`\n"
        );
        assert_eq!(stderr, wanted);
    }
    for verb in ["stats", "wait", "freeze", "thaw", "limit", "logs"] {
        let (_, stderr) = fixture.expect_status(&[verb, &outside], 125);
        let wanted = format!(
            "onejob: {outside} is a pid, not a job\n\
             hint: `onejob ls` lists the jobs; a job with a name of digits is ={outside}\n"
        );
        assert_eq!(stderr, wanted, "{verb}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
    kill(owner.id(), libc::SIGTERM);
    wait(&mut owner);
    fixture.assert_empty();
}

/// An unknown option of any subcommand gives one message, which names the help of the subcommand.
#[test]
fn unknown_option_of_each_subcommand() {
    let fixture = Fixture::new();
    let help = fixture.stdout_of(&["--help"]);
    let rows = help.split("Commands:\n").nth(1).expect("a list of subcommands").lines();
    let verbs =
        rows.take_while(|row| !row.is_empty()).filter_map(|row| row.split_whitespace().next());
    let verbs: Vec<_> = verbs.map(str::to_owned).collect();
    assert!(verbs.len() > 10, "{help}");
    for verb in &verbs {
        for option in ["--zzz", "-Z", "-Zx", "--zzz=1"] {
            for words in [vec![verb, option], vec![verb, option, "touch", "started"]] {
                let (stdout, stderr) = fixture.expect_status(&words, 125);
                let name = option.split('=').next().unwrap();
                let wanted =
                    format!("onejob: unknown option '{name}'\nhint: see `onejob {verb} --help`\n");
                assert_eq!((stdout.as_str(), stderr), ("", wanted), "{words:?}");
            }
        }
    }
    assert!(!fixture.scratch.file("started").exists());
    eventually("nothing runs", || fixture.scratch.marked().is_empty());
}

/// `help` prints the same as `--help`.
#[test]
fn help_as_a_subcommand() {
    let fixture = Fixture::new();
    assert_eq!(fixture.stdout_of(&["help"]), fixture.stdout_of(&["--help"]));
    assert_eq!(fixture.stdout_of(&["help", "run"]), fixture.stdout_of(&["run", "--help"]));
    assert_eq!(fixture.stdout_of(&["help", "kill"]), fixture.stdout_of(&["kill", "--help"]));
}
