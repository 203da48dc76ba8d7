//! The registry's pages, made from the provider's description and the examples.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

use serde_json::Value as Json;

/// What there is a page for: the member of the description, the directory of the pages, that of the examples, and what users
/// call it.
pub const SORTS: [(&str, &str, &str, &str); 6] = [
    ("resource_schemas", "resources", "resources", "Resource"),
    ("data_source_schemas", "data-sources", "data-sources", "Data Source"),
    ("ephemeral_resource_schemas", "ephemeral-resources", "ephemeral-resources", "Ephemeral Resource"),
    ("action_schemas", "actions", "actions", "Action"),
    ("list_resource_schemas", "list-resources", "list-resources", "List Resource"),
    ("functions", "functions", "functions", "Function"),
];

/// All pages, by path below `docs/registry`.
pub fn all(description: &Json, examples: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for provider in description["provider_schemas"].as_object().into_iter().flat_map(|all| all.values()) {
        let example = read(&examples.join("provider/provider.tf"))?;
        pages.insert("index.md".to_owned(), index(provider, example.as_deref()));
        for (member, directory, examples_in, sort) in SORTS {
            for (name, schema) in provider[member].as_object().into_iter().flatten() {
                let short = name.strip_prefix("vmetal_").unwrap_or(name);
                // Lists stand in files of another kind.
                let ending = if sort == "List Resource" { "tfquery.hcl" } else { "tf" };
                let example = read(&examples.join(examples_in).join(format!("{name}.{ending}")))?;
                let page = match sort {
                    "Function" => function(name, schema, example.as_deref()),
                    _ => described(name, sort, schema, example.as_deref()),
                };
                let identity = &provider["resource_identity_schemas"][name];
                let import = if sort == "Resource" && !identity.is_null() { imported(name) } else { String::new() };
                pages.insert(format!("{directory}/{short}.md"), page + &import);
            }
        }
    }
    Ok(pages)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn head(title: &str, description: &str) -> String {
    format!("---\npage_title: \"{title}\"\ndescription: |-\n  {description}\n---\n\n# {title}\n\n{description}\n")
}

fn shown(example: Option<&str>) -> String {
    example.map_or_else(String::new, |text| format!("\n## Example\n\n```terraform\n{text}```\n"))
}

fn index(provider: &Json, example: Option<&str>) -> String {
    let block = &provider["provider"]["block"];
    let description = block["description"].as_str().unwrap_or_default();
    format!("{}{}{}", head("vmetal Provider", description), shown(example), schema(block))
}

fn described(name: &str, sort: &str, described: &Json, example: Option<&str>) -> String {
    let block = &described["block"];
    let title = format!("{name} ({sort})");
    let description = block["description"].as_str().unwrap_or_default();
    format!("{}{}{}", head(&title, description), shown(example), schema(block))
}

fn imported(name: &str) -> String {
    format!(
        "\n## Import\n\nBy name or id:\n\n```terraform\nimport {{\n  to = {name}.example\n  id = \"name\"\n}}\n```\n\nBy identity \
         (Terraform 1.12 and later):\n\n```terraform\nimport {{\n  to = {name}.example\n  identity = {{\n    name = \"name\"\n  }}\n}}\n```\n"
    )
}

fn schema(block: &Json) -> String {
    let mut text = "\n## Schema\n".to_owned();
    let mut nested = Vec::new();
    attributes(&block["attributes"], "", &mut text, &mut nested);
    while let Some((at, attributes_of)) = nested.pop() {
        let _ = write!(text, "\n<a id=\"{}\"></a>\n### `{at}`\n", anchor(&at));
        attributes(&attributes_of, &at, &mut text, &mut nested);
    }
    text
}

fn anchor(at: &str) -> String {
    at.replace('.', "--")
}

fn is(attribute: &Json, flag: &str) -> bool {
    attribute[flag] == true
}

/// Who sets it, as a title.
fn set_by(attribute: &Json) -> &'static str {
    match (is(attribute, "required"), is(attribute, "optional")) {
        (true, _) => "Required",
        (_, true) => "Optional",
        _ => "Read-Only",
    }
}

/// Attributes by who sets them; what is nested is left for later.
fn attributes(all: &Json, parent: &str, text: &mut String, nested: &mut Vec<(String, Json)>) {
    for group in ["Required", "Optional", "Read-Only"] {
        let mut lines = String::new();
        for (name, attribute) in
            all.as_object().into_iter().flatten().filter(|(_, attribute)| set_by(attribute) == group)
        {
            let mut marks = vec![type_of(attribute)];
            marks.extend(is(attribute, "sensitive").then(|| "Sensitive".to_owned()));
            marks.extend(is(attribute, "write_only").then(|| "Write-only".to_owned()));
            marks.extend(is(attribute, "deprecated").then(|| "Deprecated".to_owned()));
            let description = attribute["description"].as_str().unwrap_or_default();
            let _ = write!(lines, "\n- `{name}` ({}) {description}", marks.join(", "));
            let children = &attribute["nested_type"]["attributes"];
            if !children.is_null() {
                let at = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
                let _ = write!(lines, " (see [below](#{}))", anchor(&at));
                nested.insert(0, (at, children.clone()));
            }
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n**{group}**\n{lines}\n");
        }
    }
}

fn type_of(attribute: &Json) -> String {
    match attribute["nested_type"]["nesting_mode"].as_str() {
        Some("single") => "Object".to_owned(),
        Some(mode) => format!("{} of Object", capital(mode)),
        None => type_name(&attribute["type"]),
    }
}

fn type_name(ty: &Json) -> String {
    match ty {
        Json::String(name) => capital(name),
        Json::Array(parts) => match parts.as_slice() {
            [Json::String(kind), Json::Object(_)] => capital(kind),
            [Json::String(kind), element] => format!("{} of {}", capital(kind), type_name(element)),
            _ => ty.to_string(),
        },
        _ => ty.to_string(),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

fn function(name: &str, function: &Json, example: Option<&str>) -> String {
    let parameters: Vec<&Json> = function["parameters"].as_array().into_iter().flatten().collect();
    let signature: Vec<String> = parameters
        .iter()
        .map(|p| format!("{} {}", p["name"].as_str().unwrap_or_default(), type_name(&p["type"]).to_lowercase()))
        .collect();
    let returns = type_name(&function["return_type"]).to_lowercase();
    let mut text = head(&format!("{name} (Function)"), function["summary"].as_str().unwrap_or_default());
    let _ = write!(text, "\n{}\n", function["description"].as_str().unwrap_or_default());
    text.push_str(&shown(example));
    let _ =
        write!(text, "\n## Signature\n\n```text\n{name}({}) {returns}\n```\n\n## Arguments\n", signature.join(", "));
    for parameter in parameters {
        let (name, what) = (&parameter["name"], parameter["description"].as_str().unwrap_or_default());
        let _ = write!(text, "\n- `{}` ({}) {what}", name.as_str().unwrap_or_default(), type_name(&parameter["type"]));
    }
    text.push('\n');
    text
}
