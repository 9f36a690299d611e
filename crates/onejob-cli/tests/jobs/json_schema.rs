//! Every output as JSON has the schema in docs/schema.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    common::{
        eventually, kill, mechanisms,
        recorder::{Recorders, recorder},
        text, wait, with_signals,
    },
    fixture::Fixture,
    schema::Schema,
};

#[track_caller]
fn has_schema(name: &str, document: &Value) {
    let faults = Schema::read(name).faults(document);
    assert!(faults.is_empty(), "{name}: {}\n{document:#}", faults.join("\n"));
}

/// The listings of a job of each mechanism: named, unnamed, detached, frozen, of a program with the library,
/// and of a process.
#[test]
fn listings() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        has_schema("ls", &fixture.json(&["ls", "--json"]));
        has_schema("tree", &fixture.json(&["tree", "--json"]));
        let mut owner =
            fixture.start(&mechanism, "dev", &["sh", "-c", "sleep 1000 & sleep 1000", "a b"]);
        let mut unnamed =
            fixture.onejob(&["run", "--mechanism", &mechanism, "sleep", "1000"]).spawn().unwrap();
        fixture.stdout_of(&[
            "run",
            "-d",
            "-n",
            "behind",
            "--mechanism",
            &mechanism,
            "sleep",
            "1000",
        ]);
        let recorders = Recorders::new(&fixture.scratch);
        let mut library = Command::new(recorder());
        library.env("ONEJOB_ACTS", "own library");
        let mut library = recorders.below(fixture.apply_to(&mut library)).spawn().unwrap();
        recorders.ready(2);
        fixture.wait_for_job("library");
        let mut ls = Value::Null;
        eventually("four jobs are listed", || {
            ls = fixture.json(&["ls", "--json"]);
            ls["jobs"].as_array().unwrap().len() == 4
        });
        has_schema("ls", &ls);
        let find = |ls: &Value, name: &str| {
            let jobs = ls["jobs"].as_array().unwrap().clone();
            jobs.into_iter().find(|job| job["name"] == name).unwrap()
        };
        let dev = find(&ls, "dev");
        assert_eq!(dev["argv"], json!(["sh", "-c", "sleep 1000 & sleep 1000", "a b"]));
        assert_eq!((&dev["state"], &dev["log"]), (&json!("running"), &Value::Null));
        assert_eq!(dev["cwd"], fixture.scratch.path().canonicalize().unwrap().to_str().unwrap());
        assert!(find(&ls, "behind")["log"].is_string());
        assert_eq!(find(&ls, "library")["cwd"], Value::Null);

        let tree = fixture.json(&["tree", "--json"]);
        has_schema("tree", &tree);
        assert_eq!(tree["trees"].as_array().unwrap().len(), 4);
        let tree = fixture.json(&["tree", "--json", &owner.id().to_string()]);
        has_schema("tree", &tree);
        assert_eq!(
            (&tree["trees"][0]["state"], &tree["trees"][0]["name"]),
            (&Value::Null, &Value::Null)
        );
        for job in ["dev", "behind", "library"] {
            let stats = fixture.json(&["stats", "--json", job]);
            has_schema("stats", &stats);
            // One meaning in both, and the same number up to a few pages.
            let listed =
                find(&fixture.json(&["ls", "--json"]), job)["memory_bytes"].as_u64().unwrap();
            let used = stats["memory_bytes"].as_u64().unwrap();
            assert!(used > 0 && listed.abs_diff(used) < 1 << 20, "{job}: {listed}, {used}");
            assert!(
                stats["started_at"] == find(&ls, job)["started_at"]
                    && stats["started_at"].is_string()
            );
            let limit = fixture.output_of(&["limit", "--json", job]);
            assert!(limit.status.success(), "{}", text(&limit.stderr));
            has_schema("limit", &serde_json::from_slice(&limit.stdout).unwrap());
        }
        recorders.end();
        fixture.expect_status(&["kill", "--now", "dev", "behind"], 0);
        kill(unnamed.id(), libc::SIGTERM);
        for child in [&mut owner, &mut unnamed, &mut library] {
            wait(child);
        }
        fixture.assert_empty();
    }
}

/// The state is `frozen` while no member can run, and `stopping` from the time limit or the end of CMD until the
/// last process has ended; `ls`, `tree` and `stats` agree.
#[test]
fn states() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let state_of = |name: &str| {
            let ls = fixture.json(&["ls", "--json"]);
            let jobs = ls["jobs"].as_array().unwrap().clone();
            jobs.into_iter().find(|job| job["name"] == name).map(|job| job["state"].clone())
        };
        let becomes = |name: &str, state: &str| {
            eventually(&format!("{mechanism}: {name} is {state}"), || {
                state_of(name).is_some_and(|found| found == state)
            });
            let tree = fixture.json(&["tree", "--json", name]);
            assert_eq!(tree["trees"][0]["state"], state, "{mechanism}");
            let (table, drawn) = (fixture.stdout_of(&["ls"]), fixture.stdout_of(&["tree", name]));
            let row = table.lines().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(row.split_whitespace().nth(1), Some(state), "{table}");
            assert!(drawn.starts_with(&format!("{name} ({state})\n")), "{drawn}");
            assert_eq!(fixture.json(&["stats", "--json", name])["state"], state, "{mechanism}");
        };
        let mut owner = fixture.start(&mechanism, "dev", &["sh", "-c", "sleep 1000 & sleep 1000"]);
        becomes("dev", "running");
        fixture.stdout_of(&["freeze", "dev"]);
        becomes("dev", "frozen");
        fixture.stdout_of(&["thaw", "dev"]);
        becomes("dev", "running");
        fixture.expect_status(&["kill", "--now", "dev"], 0);
        wait(&mut owner);
        // From its first instruction on, no process of these jobs ends at SIGTERM.
        let run = |name: &str, words: &[&str]| {
            let options = ["run", "--mechanism", &mechanism, "-n", name, "-k", "1000"];
            let mut command = fixture.onejob(&[&options[..], words].concat());
            with_signals(&mut command, &[], &[libc::SIGTERM]);
            command.spawn().unwrap()
        };
        let leave = ["sh", "-c", "(sleep 1000 &); exit 0"];
        let mut left = run("left", &leave);
        becomes("left", "stopping");
        let mut late = run("late", &["-t", "0.1", "sleep", "1000"]);
        becomes("late", "stopping");
        let mut kept = run("kept", &[&["--wait-all"][..], &leave].concat());
        becomes("kept", "running");
        fixture.expect_status(&["kill", "--now", "left", "late", "kept"], 0);
        for owner in [&mut left, &mut late, &mut kept] {
            wait(owner);
        }
        fixture.assert_empty();
    }
}

/// The statistics at the end of a run, after each kind of end.
#[test]
fn statistics_at_the_end() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let ends: [(&[&str], Value); 3] = [
            (&["--", "true"], Value::Null),
            (&["--", "sh", "-c", "kill -9 $$"], Value::Null),
            (&["-t", "50ms", "--", "sleep", "1000"], json!("timeout")),
        ];
        for (words, reason) in ends {
            let run = ["run", "--mechanism", &mechanism, "--stats=json"];
            let output = fixture.output_of(&[&run[..], words].concat());
            let stats: Value = serde_json::from_slice(&output.stderr).unwrap();
            has_schema("run-stats", &stats);
            assert_eq!(stats["reason"], reason, "{words:?}");
        }
    }
}

#[test]
fn doctor() {
    let fixture = Fixture::new();
    let report = fixture.json(&["doctor", "--json"]);
    has_schema("doctor", &report);
    let verdict = report["verdict"].as_str().unwrap();
    assert_eq!(fixture.stdout_of(&["doctor"]).lines().next(), Some(verdict));
    assert!(verdict.ends_with('.') && !verdict.contains(". "), "{verdict}");
}

/// With `--error-format json` each message is one line of JSON with the same words and status.
#[test]
fn messages() {
    let fixture = Fixture::new();
    let cases: [(&[&str], i32, &str); 12] = [
        (&[], 125, "usage"),
        (&["rum", "true"], 125, "usage"),
        (&["run", "--zzz", "true"], 125, "usage"),
        (&["run", "-t", "soon", "true"], 125, "usage"),
        (&["run", "nosuch"], 127, "command_not_found"),
        (&["run", "-d", "nosuch"], 127, "command_not_found"),
        (&["run", "/"], 126, "not_executable"),
        (
            &["run", "--require", "sealed", "--mechanism", "subreaper", "true"],
            125,
            "unmet_requirement",
        ),
        (&["run", "-n", "a b", "true"], 125, "invalid_input"),
        (&["wait", "gone"], 125, "not_found"),
        (&["kill", "4000000"], 1, "not_found"),
        (&["man", "nowhere"], 125, "failed"),
    ];
    for (words, status, kind) in cases {
        let (_, plain) = fixture.expect_status(words, status);
        for format in [&["--error-format", "json"][..], &["--error-format=json"]] {
            let (stdout, stderr) = fixture.expect_status(&[format, words].concat(), status);
            assert!(
                stdout.is_empty() && stderr.lines().count() == 1,
                "{words:?}: {stdout}{stderr}"
            );
            let message: Value = serde_json::from_str(&stderr).unwrap();
            has_schema("message", &message);
            assert_eq!(
                (&message["kind"], &message["level"]),
                (&json!(kind), &json!("error")),
                "{words:?}"
            );
            let hint = message["hint"].as_str().map(|hint| format!("hint: {hint}\n"));
            let text = format!(
                "onejob: {}\n{}",
                message["message"].as_str().unwrap(),
                hint.unwrap_or_default()
            );
            // The words of a suggested line are those that were typed.
            assert_eq!(
                text.replace("onejob --error-format json", "onejob")
                    .replace("onejob --error-format=json", "onejob"),
                plain
            );
            // A process that is missing among others has a status of its own.
            if kind != "not_found" {
                assert_eq!(message["status"], status, "{words:?}");
            }
        }
    }
    let same = fixture.expect_status(&["--error-format", "text", "wait", "gone"], 125);
    assert_eq!(same, fixture.expect_status(&["wait", "gone"], 125));
    let (_, stderr) = fixture.expect_status(&["--error-format", "xml", "ls"], 125);
    assert_eq!(
        stderr,
        "onejob: invalid value 'xml' for --error-format\nhint: one of: text, json\n"
    );
    let (_, stderr) = fixture.expect_status(&["ls", "--error-format", "json"], 125);
    assert!(
        stderr.ends_with(
            "hint: it goes in front of the subcommand: `onejob --error-format json ls`\n"
        ),
        "{stderr}"
    );
    let (stdout, _) = fixture.expect_status(&["run", "echo", "--error-format", "json"], 0);
    assert_eq!(stdout, "--error-format json\n");
}

/// The validator finds each kind of fault.
#[test]
fn validator_refuses_wrong_documents() {
    let schema = json!({
        "type": "object",
        "required": ["schema", "list"],
        "properties": {
            "schema": {"const": 1},
            "list": {"type": "array", "items": {"$ref": "#/$defs/one"}},
            "maybe": {"anyOf": [{"$ref": "#/$defs/one"}, {"type": "null"}]},
        },
        "$defs": {"one": {
            "type": "object",
            "required": ["n"],
            "properties": {
                "n": {"type": ["integer", "null"], "minimum": 0},
                "e": {"enum": ["a", null]},
                "t": {"type": "string", "pattern": "^[0-9]{2}:[.]x$"},
            },
        }},
    });
    let schema = Schema::of(schema);
    for good in [
        json!({"schema": 1, "list": []}),
        json!({"schema": 1, "list": [{"n": 0, "e": null, "t": "12:.x"}, {"n": null}], "maybe": null}),
        json!({"schema": 1, "list": [], "maybe": {"n": 3}}),
    ] {
        assert_eq!(schema.faults(&good), [] as [String; 0], "{good}");
    }
    for bad in [
        json!([]),
        json!({"schema": 2, "list": []}),
        json!({"schema": 1}),
        json!({"schema": 1, "list": {}}),
        json!({"schema": 1, "list": [{}]}),
        json!({"schema": 1, "list": [{"n": -1}]}),
        json!({"schema": 1, "list": [{"n": 0.5}]}),
        json!({"schema": 1, "list": [{"n": "0"}]}),
        json!({"schema": 1, "list": [{"n": 0, "e": "b"}]}),
        json!({"schema": 1, "list": [{"n": 0, "t": "1:.x"}]}),
        json!({"schema": 1, "list": [{"n": 0, "t": "12:.xy"}]}),
        json!({"schema": 1, "list": [{"n": 0, "other": 0}]}),
        json!({"schema": 1, "list": [], "maybe": 3}),
        json!({"schema": 1, "list": [], "maybe": {}}),
        json!({"schema": 1, "list": [], "other": 0}),
    ] {
        assert!(!schema.faults(&bad).is_empty(), "{bad}");
    }
}
