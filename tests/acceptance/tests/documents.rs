//! What the documents show is what there is.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info == language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => {
                let (wanted, block) = open.take().unwrap();
                found.extend(wanted.then_some(block));
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

/// The targets of links, without those to the web and into the same page.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap().to_owned()).collect()
}

#[test]
fn the_readme_shows_the_quickstart_as_it_is() {
    let file = read("examples/terraform/quickstart/main.tf");
    let shown = blocks(&read("README.md"), "terraform");
    assert_eq!(shown, [file], "copy examples/terraform/quickstart/main.tf into its block of README.md");
}

#[test]
fn local_links_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|p| root().join(p)).into();
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut seen = 0;
    for page in pages {
        for target in links(&std::fs::read_to_string(&page).unwrap()) {
            seen += 1;
            assert!(
                page.parent().unwrap().join(&target).exists(),
                "{} links to {target}, which is not there",
                page.display()
            );
        }
    }
    assert!(seen > 10, "the links were not found: {seen}");
}

#[test]
fn the_readers_of_blocks_and_links_read() {
    let text = "a\n```hcl\nx\n```\n```terraform\ny\n\nz\n```\n[a](b.md#c) [d](https://e) [f](#g)\n";
    assert_eq!(blocks(text, "terraform"), ["y\n\nz\n"]);
    assert_eq!(links(text), ["b.md"]);
}

/// Words in backquotes, in order.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_test_that_a_guarantee_names_is_there() {
    let page = read("docs/guarantees.md");
    let mut seen = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| guarantee")) {
        let checked = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        let mut source: Option<(&str, String)> = None;
        let mut named = 0;
        for word in quoted(checked) {
            if word.contains('/') {
                source = Some((word, read(word)));
                continue;
            }
            let (path, text) = source.as_ref().unwrap_or_else(|| panic!("{word} comes before its file in: {row}"));
            let at = text.find(&format!("fn {word}(")).unwrap_or_else(|| panic!("{path} has no test {word}"));
            let before = text[..at].rsplit("\n\n").next().unwrap();
            assert!(before.contains("test"), "{path}: {word} is not marked as a test");
            named += 1;
        }
        assert!(named > 0, "no test is named in: {row}");
        seen += named;
    }
    assert!(seen > 30, "the page was not read: {seen} tests found");
}
