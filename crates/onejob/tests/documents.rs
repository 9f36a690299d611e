//! Every guarantee in the documents names a test, and the test exists.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files of a test program: `tests/NAME.rs` or everything in `tests/NAME/`.
fn source_of(program: &str) -> String {
    let mut text = String::new();
    for package in ["onejob", "onejob-cli"] {
        let tests = root().join("crates").join(package).join("tests");
        text += &fs::read_to_string(tests.join(format!("{program}.rs"))).unwrap_or_default();
        for entry in fs::read_dir(tests.join(program)).into_iter().flatten().flatten() {
            text += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    text
}

/// The names in backticks that look like `program::test`.
fn names(document: &str) -> Vec<(&str, &str)> {
    let quoted = document.split('`').skip(1).step_by(2);
    let is_word =
        |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    quoted
        .filter_map(|text| text.split_once("::"))
        .filter(|(program, test)| is_word(program) && is_word(test))
        .collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    for document in ["docs/architecture.md", "docs/platforms.md", "docs/gotchas.md"] {
        let text = fs::read_to_string(root().join(document)).expect(document);
        let names = names(&text);
        assert!(names.len() > 10, "{document} names tests: {names:?}");
        for (program, test) in names {
            let source = source_of(program);
            assert!(source.contains(&format!("fn {test}(")), "{document}: no {program}::{test}");
        }
    }
}

/// The README's table of guarantees has a column for every mechanism of this system.
#[test]
fn every_mechanism_has_a_column() {
    let text = fs::read_to_string(root().join("README.md")).expect("a document").to_lowercase();
    for mechanism in onejob::probe_mechanisms().iter().map(|report| report.mechanism) {
        let is_head =
            |line: &str| line.starts_with("| |") && line.contains(&format!("| {mechanism} "));
        assert!(text.lines().any(is_head), "no column for {mechanism}");
    }
}

#[test]
fn every_guarantee_of_every_mechanism_has_a_row() {
    let text = fs::read_to_string(root().join("docs/platforms.md")).expect("a document");
    let reports = onejob::probe_mechanisms();
    assert!(!reports.is_empty());
    for mechanism in reports.iter().map(|report| report.mechanism.to_string()) {
        let heading = format!("\n## linux, {mechanism}");
        let at = text.to_lowercase().find(&heading).unwrap_or_else(|| panic!("no {heading:?}"));
        let section = text.get(at + heading.len()..).expect("a section");
        let section = section.split("\n## ").next().expect("text");
        for guarantee in
            ["containment", "kill", "owner death", "crosses setuid", "freeze", "accounting"]
        {
            let row = section.lines().find(|line| line.starts_with(&format!("| {guarantee}")));
            assert!(
                row.is_some_and(|row| row.contains("::") || row.contains("row of")),
                "{mechanism} {guarantee}"
            );
        }
    }
}
