//! Writes the comparison of shipped policies into docs/policies.md and docs/policies-comparison.svg: `make docs`.

use std::path::Path;

use vmetal_policy_tool::comparison;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let made = comparison::comparison()?;
    let page = std::fs::read_to_string(docs.join("policies.md"))?;
    let page = comparison::placed_in(&page, &made.table).ok_or("docs/policies.md has no marks for the comparison")?;
    std::fs::write(docs.join("policies.md"), page)?;
    std::fs::write(docs.join("policies-comparison.svg"), made.svg)?;
    Ok(())
}
