//! What docs/policies.md says of the shipped policies is what they do.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use vmetal_policy_tool::comparison;

#[test]
fn the_page_shows_what_the_policies_do_now() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let made = comparison::comparison().unwrap();
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap();
    let page = read("policies.md");
    assert_eq!(comparison::placed_in(&page, &made.table).as_deref(), Some(page.as_str()), "run `make docs`");
    assert!(made.svg == read("policies-comparison.svg"), "docs/policies-comparison.svg is old: run `make docs`");
    // The page's words about it, kept true by numbers.
    let numbers = |row: &str| -> Vec<f64> {
        let row = made.table.lines().find(|line| line.starts_with(&format!("| {row} "))).unwrap();
        row.split('|').skip(2).filter_map(|cell| cell.split_whitespace().next()?.parse().ok()).collect()
    };
    let three = |row: &str| -> [f64; 3] { numbers(row).try_into().unwrap() };
    let [first, balanced, gang] = three("domains whole");
    assert!(gang > balanced && balanced >= first, "blocks left whole: {first} {balanced} {gang}");
    let [first, balanced, gang] = three("racks per claim for several");
    assert!(gang < balanced && balanced < first, "racks: {first} {balanced} {gang}");
}
