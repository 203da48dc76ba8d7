//! Looking without managing: data sources for one object and for all objects of a kind, and lists for `terraform query`.
//!
//! Their attributes follow from the resource's own schema, so that what can be managed can also be looked at, under the
//! same names; some show more.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use tfplugin::{
    Attribute, Ctx, DataSource, Diagnostics, Found, Listed, Lister, Named, Pending, Schema, Type, Value,
    schema::{Nesting, Usage},
};
use vmetal_api::Resource as ModelResource;

use crate::{convert::string_map, explain::refused, kind::Kind, managed::Managed, provider::Engine};

/// What makes sense for a managed object only.
const MANAGED_ONLY: [&str; 2] = ["timeouts", "wait_for"];

/// One object, by name or id.
pub(crate) struct One<K>(PhantomData<K>);

/// All objects of a kind, narrowed by labels.
pub(crate) struct All<K>(PhantomData<K>);

impl<K: Kind> One<K> {
    pub(crate) fn register() -> Named<dyn DataSource<Engine>> {
        (K::TYPE, Arc::new(Self(PhantomData)))
    }
}

impl<K: Kind> All<K> {
    /// As a data source; its type is the resource's in the plural.
    pub(crate) fn register(plural: &'static str) -> Named<dyn DataSource<Engine>> {
        (plural, Arc::new(Self(PhantomData)))
    }

    /// As a list for `terraform query`.
    pub(crate) fn register_list() -> Named<dyn Lister<Engine>> {
        (K::TYPE, Arc::new(Self(PhantomData)))
    }

    async fn objects(ctx: &Ctx<Engine>, config: &Value) -> Result<Vec<K::Object>, Diagnostics> {
        let client = ctx.client()?.client()?;
        let labels = string_map(config.attr("labels"));
        let listed = client.list_as::<K::Object>(&labels).await;
        let mut objects = listed.map_err(|error| refused::<K>(&format!("listing {}", plural::<K>()), error))?;
        objects.sort_by(|a, b| a.object().metadata.name.cmp(&b.object().metadata.name));
        Ok(objects)
    }
}

fn seen<K: Kind>() -> BTreeMap<String, Attribute> {
    let mut attributes = K::schema().to_look_at(&MANAGED_ONLY);
    attributes.extend(K::seen_also().into_iter().map(|(name, attribute)| (name.to_owned(), attribute)));
    attributes
}

fn value<K: Kind>(object: &K::Object) -> Value {
    let mut state = Value::object(seen::<K>().into_keys().map(|name| (name, Value::Null)));
    Managed::<K>::describe(&mut state, object);
    K::see_also(&mut state, object);
    // What describes a managed object may set more than is looked at.
    strip(state, &seen::<K>())
}

fn strip(value: Value, attributes: &BTreeMap<String, Attribute>) -> Value {
    let Value::Map(map) = value else { return value };
    let kept = map.into_iter().filter_map(|(name, inner)| {
        let children = attributes.get(&name)?.children();
        Some((name, children.map_or(inner.clone(), |children| strip(inner, children))))
    });
    Value::Map(kept.collect())
}

/// Several of them.
fn plural<K: Kind>() -> String {
    match K::NOUN.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{}s", K::NOUN),
    }
}

fn labels() -> Attribute {
    Attribute::optional(Type::map(Type::String)).describe("Only objects whose labels contain all of these.")
}

impl<K: Kind> DataSource<Engine> for One<K> {
    fn schema(&self) -> Schema {
        let mut attributes = seen::<K>();
        let name = Attribute::required(Type::String).describe(format!("The name (or id) of the {}.", K::NOUN));
        attributes.insert("name".to_owned(), name);
        Schema::new(format!("One {} that the engine has, managed here or not.", K::NOUN), attributes)
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move {
            let asked = config.attr("name").clone();
            match Managed::<K>::lookup(ctx, asked.as_str().unwrap_or_default()).await {
                Ok(object) => {
                    let mut state = value::<K>(&object);
                    state.set("name", asked);
                    state.into()
                }
                Err(diagnostics) => diagnostics.into(),
            }
        })
    }
}

impl<K: Kind> DataSource<Engine> for All<K> {
    fn schema(&self) -> Schema {
        let items = Attribute::nested(Nesting::List, Usage::Computed, seen::<K>())
            .describe(format!("The {}, by name.", plural::<K>()));
        let names = Attribute::computed(Type::list(Type::String))
            .describe(format!("The names of the {}, in order.", plural::<K>()));
        Schema::new(
            format!("The {} that the engine has, managed here or not.", plural::<K>()),
            [("labels", labels()), ("names", names), ("items", items)],
        )
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move {
            match Self::objects(ctx, &config).await {
                Ok(objects) => {
                    let names = objects.iter().map(|object| Value::from(object.object().metadata.name.clone()));
                    let mut state = config.clone();
                    state.set("names", Value::List(names.collect()));
                    state.set("items", Value::List(objects.iter().map(value::<K>).collect()));
                    state.into()
                }
                Err(diagnostics) => diagnostics.into(),
            }
        })
    }
}

impl<K: Kind> Lister<Engine> for All<K> {
    fn schema(&self) -> Schema {
        Schema::new(
            format!("The {} that the engine has, for `terraform query`.", plural::<K>()),
            [("labels", labels())],
        )
    }

    fn list<'a>(
        &'a self,
        ctx: &'a Ctx<Engine>,
        config: Value,
        limit: usize,
    ) -> Pending<'a, Result<Vec<Listed>, Diagnostics>> {
        Box::pin(async move {
            let objects = Self::objects(ctx, &config).await?;
            let listed = |object: &K::Object| Listed {
                display_name: object.object().metadata.name.clone(),
                state: Managed::<K>::adopted(object),
            };
            Ok(objects.iter().take(limit).map(listed).collect())
        })
    }
}
