//! From the model's field names to the attributes that set them: `spec.requirements[0].values` is
//! `requirements[0].values`, `spec.resources.cpu` is `resources["cpu"]`.

use tfplugin::{
    Path, Type,
    schema::{Attribute, Nesting, Schema},
};

/// The attribute path of a field of the engine; `None` when no attribute sets it.
pub(crate) fn path_of(schema: &Schema, field: &str, renamed: impl Fn(&str) -> Option<&'static str>) -> Option<Path> {
    if field == "metadata.name" {
        return Some(Path::attr("name"));
    }
    let field = field.strip_prefix("spec.").or_else(|| field.strip_prefix("metadata.")).unwrap_or(field);
    let field = renamed(field).unwrap_or(field);
    let mut path = Path::root();
    let mut attributes = Some(schema.attributes());
    let mut in_map = false;
    for part in field.split('.') {
        let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((name, index)) => (name, index.parse::<usize>().ok()),
            None => (part, None),
        };
        if in_map {
            return Some(path.key(name));
        }
        let attribute = match attributes {
            Some(known) => match known.get(name) {
                Some(attribute) => Some(attribute),
                // One that nobody knows: the nearest attribute is the best answer.
                None => break,
            },
            // Below a plain attribute, such as settings in JSON.
            None => None,
        };
        path = path.attribute(name);
        if let Some(index) = index {
            path = path.index(index);
        }
        in_map = attribute.is_some_and(is_map);
        attributes = attribute.and_then(Attribute::children);
    }
    (!path.is_root()).then_some(path)
}

fn is_map(attribute: &Attribute) -> bool {
    matches!(attribute.value_type(), Type::Map(_)) && attribute.nesting() != Some(Nesting::Map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::Hosts, kind::Kind, policy::Policies, tenant_node::TenantNodes};

    fn find<K: Kind>(field: &str) -> Option<String> {
        path_of(&K::schema(), field, K::attribute_of).map(|path| path.to_string())
    }

    #[test]
    fn fields_lead_to_their_attributes() {
        let found = |field| find::<TenantNodes>(field);
        assert_eq!(found("spec.requirements[1].values").as_deref(), Some("requirements[1].values"));
        assert_eq!(found("spec.resources.cpu").as_deref(), Some("resources[\"cpu\"]"));
        assert_eq!(found("metadata.name").as_deref(), Some("name"));
        assert_eq!(found("spec.unheard_of"), None);
        assert_eq!(find::<Hosts>("spec.bmc.address").as_deref(), Some("bmc.address"));
        assert_eq!(find::<Hosts>("spec.bmc.tls.fingerprint").as_deref(), Some("bmc.tls_fingerprint"));
        let policy = |field| find::<Policies>(field);
        assert_eq!(policy("spec.settings.weights[1].of").as_deref(), Some("settings.weights[1].of"));
        assert_eq!(
            (policy("spec.sha256").as_deref(), policy("spec.duty").as_deref()),
            (Some("source"), Some("active"))
        );
    }
}
