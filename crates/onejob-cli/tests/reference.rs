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

/// The completion script of each shell contains each subcommand.
#[test]
fn completions_for_every_shell() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = outcome(&mut onejob(&["completions", shell]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let script = text(&output.stdout);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} completes no {verb}");
        }
        if shell == "bash" {
            let file = scratch.script("completions", &script);
            let ask = format!(
                "source {file}; COMP_WORDS=(onejob fre); COMP_CWORD=1; _onejob onejob fre onejob; \
                 echo ${{COMPREPLY[@]}}"
            );
            let answer = outcome(Command::new("bash").args(["-c", &ask]));
            assert_eq!(text(&answer.stdout).trim(), "freeze", "{}", text(&answer.stderr));
        }
    }
    let refused = outcome(&mut onejob(&["completions", "tcsh"]));
    assert_eq!(refused.status.code(), Some(125));
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
    }
    let refused = outcome(&mut onejob(&["man", "/nonexistent/folder"]));
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).starts_with("onejob: failed to write the manual pages"));
}

/// Every key of a document and of everything in it.
fn keys(value: &serde_json::Value, all: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => object.iter().for_each(|(key, value)| {
            all.push(key.clone());
            keys(value, all);
        }),
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, all)),
        _ => {}
    }
}

/// The JSON has the keys of docs/json.md and no others.
#[test]
fn json_keys_equal_the_documented_ones() {
    let scratch = Scratch::new();
    let ask = |args: &[&str]| {
        let mut command = onejob(args);
        command.env("ONEJOB_RUNTIME_DIR", scratch.file("run"));
        command
    };
    let file = scratch.file("started");
    let script = format!("echo > {}; exec sleep 300", file.display());
    let mut job = ask(&["run", "-n", "shown", "--", "sh", "-c", &script]).spawn().unwrap();
    common::line(&file);
    let documents =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md"))
            .unwrap();
    let row = |verb: &str| {
        let row = documents.lines().find(|line| line.starts_with(&format!("| {verb}")));
        let row = row.unwrap_or_else(|| panic!("no row for {verb}"));
        let words = row.split('`').skip(1).step_by(2).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    let used = row("… usage");
    let questions: [(&str, &[&str]); 5] = [
        ("`ls`", &["ls", "--json"]),
        ("`tree`", &["tree", "shown", "--json"]),
        ("`stats`", &["stats", "shown", "--json"]),
        ("`limit`", &["limit", "shown", "--json"]),
        ("`doctor`", &["doctor", "--json"]),
    ];
    for (verb, question) in questions {
        let output = outcome(&mut ask(question));
        // Under some mechanisms there are no limits to show.
        if verb == "`limit`" && output.status.code() == Some(125) {
            continue;
        }
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{verb}: {e}: {}", text(&output.stderr)));
        let mut found = Vec::new();
        keys(&document, &mut found);
        let mut documented = row(verb);
        if verb == "`stats`" {
            documented.extend(used.clone());
        }
        let unknown: Vec<_> = found.iter().filter(|key| !documented.contains(key)).collect();
        assert!(unknown.is_empty(), "{verb}: not documented: {unknown:?}");
        // The first word is the subcommand itself; this test leaves no abandoned jobs.
        let left = ["leftovers", "place", "processes", "kind", "stuck"];
        let missing = documented.iter().skip(1).filter(|key| !found.contains(key));
        let missing: Vec<_> = missing.filter(|key| !left.contains(&key.as_str())).collect();
        assert!(missing.is_empty(), "{verb}: documented and not there: {missing:?}");
    }
    outcome(&mut ask(&["kill", "--now", "shown"]));
    common::wait(&mut job);
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
