//! The reference, the completions, the manual pages and the documented JSON match the command.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{Scratch, onejob, outcome, text};

fn help(verb: &[&str]) -> String {
    let output = outcome(onejob(&[verb, &["--help"]].concat()).env_remove("COLUMNS"));
    assert!(output.status.success(), "{verb:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn verbs() -> Vec<String> {
    let all = help(&[]);
    let commands = all.split("Commands:\n").nth(1).expect("a list of commands");
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let verbs: Vec<_> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    verbs.into_iter().map(str::to_owned).collect()
}

/// docs/reference.md equals the help of each subcommand.
#[test]
fn reference_equals_help() {
    let mut reference =
        "# Reference\n\nThe output of `onejob --help` and `onejob SUBCOMMAND --help`.\n".to_owned();
    let section =
        |title: &str, help: &str| format!("\n## {title}\n\n```\n{}\n```\n", help.trim_end());
    reference += &section("onejob", &help(&[]));
    for verb in verbs() {
        reference += &section(&format!("onejob {verb}"), &help(&[&verb]));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    if std::env::var_os("ONEJOB_UPDATE_REFERENCE").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/reference.md is not what the command says: run this test with \
         ONEJOB_UPDATE_REFERENCE=1, and look at what has changed"
    );
}

/// bash completes subcommands, options, values, names of running jobs, and the arguments of CMD.
#[test]
fn completions_in_bash() {
    let scratch = Scratch::new();
    let output = outcome(&mut onejob(&["completions", "bash"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let file = scratch.script("completions", &text(&output.stdout));
    let started = scratch.file("started");
    let script = format!("echo > {}; exec sleep 300", started.display());
    let mut job = onejob(&["run", "-n", "shown-job", "--", "sh", "-c", &script]);
    let mut job = job.env("ONEJOB_RUNTIME_DIR", scratch.file("run")).spawn().unwrap();
    common::line(&started);
    let complete = |line: &str| {
        let ask = format!(
            "source {file}; compopt() {{ :; }}; COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _onejob; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask]).env("ONEJOB_RUNTIME_DIR", scratch.file("run"));
        bash.current_dir(scratch.path());
        let answer = outcome(&mut bash);
        assert!(answer.stderr.is_empty(), "{line}: {}", text(&answer.stderr));
        // Readline shows a program once that several directories of PATH contain.
        let mut words: Vec<_> =
            text(&answer.stdout).split_whitespace().map(str::to_owned).collect();
        words.dedup();
        words
    };
    let program = common::ONEJOB;
    for (line, expected) in [
        ("fre", &["freeze"][..]),
        ("run --mem", &["--memory"]),
        ("run --stats=j", &["json"]),
        ("run --require kill=a", &["atomic"]),
        ("run --require freeze=s", &["signals"]),
        ("kill -s TE", &["TERM"]),
        ("kill sho", &["shown-job"]),
        ("wait ", &["shown-job"]),
        ("exec ", &["shown-job"]),
        ("exec shown-job cat startsx", &[]),
        ("exec shown-job cat star", &["started"]),
        ("run -t 5m -- cat ./star", &["./started"]),
        ("run --stats=json unsha", &["unshare"]),
    ] {
        assert_eq!(complete(&format!("{program} {line}")), expected, "{line}");
    }
    outcome(onejob(&["kill", "--now", "shown-job"]).env("ONEJOB_RUNTIME_DIR", scratch.file("run")));
    common::wait(&mut job);
}

/// There is a completion script for each shell, and `__complete` is what they call.
#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = outcome(&mut onejob(&["completions", shell]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("onejob __complete"), "{shell}");
    }
    let refused = outcome(&mut onejob(&["completions", "tcsh"]));
    assert_eq!(refused.status.code(), Some(125));
    let output = outcome(&mut onejob(&["__complete", ""]));
    let candidates = text(&output.stdout);
    let listed: Vec<_> = candidates.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(listed, verbs());
}

/// Each subcommand has a manual page.
#[test]
fn manual_pages() {
    let scratch = Scratch::new();
    let output = outcome(&mut onejob(&["man", scratch.str()]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let page = |name: &str| -> PathBuf { scratch.file(&format!("{name}.1")) };
    let names = verbs().into_iter().map(|verb| format!("onejob-{verb}"));
    for name in names.chain(["onejob".to_owned()]) {
        let text = common::read(page(&name));
        assert!(text.contains(".TH") && text.contains(".SH NAME"), "{name}: {text:.80}");
        let sections = ["SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "\"SEE ALSO\""];
        let own = ["\"EXIT STATUS\"", "EXAMPLES"].into_iter().filter(|_| name != "onejob");
        for section in sections.into_iter().chain(own) {
            assert!(
                text.contains(&format!("\n.SH {section}\n")),
                "{name} has no {section}\n{text}"
            );
        }
    }
    let refused = outcome(&mut onejob(&["man", "/nonexistent/folder"]));
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).starts_with("onejob: failed to write the manual pages"));
}

/// The properties of a schema and of everything in it.
fn properties(schema: &serde_json::Value, all: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(object) => object.iter().for_each(|(key, value)| {
            if let ("properties", Some(named)) = (&key[..], value.as_object()) {
                all.extend(named.keys().cloned());
            }
            properties(value, all);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| properties(value, all)),
        _ => {}
    }
}

/// docs/json.md names the keys of each schema and no others.
#[test]
fn json_keys_are_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = fs::read_to_string(docs.join("json.md")).unwrap();
    let words = |row: &str| -> Vec<String> {
        let cell = row.split('|').nth(3).unwrap();
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .filter(|word| word != "null")
            .collect()
    };
    let usage = words(text.lines().find(|line| line.starts_with("| … usage")).unwrap());
    let mut seen = Vec::new();
    for row in text.lines().filter(|line| line.contains("](schema/") && line.starts_with("| ")) {
        let name = row.split("](schema/").nth(1).unwrap().split(".json").next().unwrap();
        let schema = fs::read_to_string(docs.join(format!("schema/{name}.json"))).unwrap();
        let mut keys = Vec::new();
        properties(&serde_json::from_str(&schema).unwrap(), &mut keys);
        let mut documented = words(row);
        if row.contains("and the usage") {
            documented.extend(usage.clone());
        }
        documented.push("schema".to_owned());
        for list in [&mut keys, &mut documented] {
            list.sort();
            list.dedup();
        }
        assert_eq!(documented, keys, "{name}");
        seen.push(format!("{name}.json"));
    }
    let files = fs::read_dir(docs.join("schema")).unwrap().flatten();
    let mut files: Vec<_> = files.map(|file| file.file_name().into_string().unwrap()).collect();
    files.sort();
    seen.sort();
    assert_eq!(files, seen);
}

/// README and cookbook name only options that exist.
#[test]
fn documents_name_existing_options() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = fs::read_to_string(root.join("docs/reference.md")).unwrap();
    for document in ["README.md", "docs/cookbook.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for call in text.split("onejob ").skip(1) {
            // The options of onejob: up to CMD, the end of the line or of a table cell.
            let call = call.lines().next().unwrap_or_default();
            let ours = call.split(" -- ").next().and_then(|ours| ours.split(" | ").next());
            let ours = ours.unwrap_or_default();
            for option in ours.split_whitespace().filter(|word| word.starts_with("--")) {
                let name: String =
                    option.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                assert!(
                    name.len() < 3 || reference.contains(&name),
                    "{document}: {name} in {call}"
                );
            }
        }
    }
}
