//! Lists, in pages as kubectl reads them, and the handling of objects in them that cannot be parsed.

use std::fmt;
use std::marker::PhantomData;

use kube::core::params::ListParams;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::object::{Metadata, Resource};
use super::wire::{fetch, parse};
use super::{Error, Result, Verb};

/// The number of objects per page, as in kubectl; and fewer where such a page is too long, as of large Secrets.
const PAGES: [u32; 3] = [500, 50, 5];
/// The most objects of a page that are read. A server that does not know pages sends all at once; one that sends
/// millions of empty objects would fill the memory.
const MOST: usize = 20_000;
/// The longest object of which the metadata is read although the rest is malformed. etcd accepts 1.5 MiB.
const LONGEST_MALFORMED: usize = 2 << 20;

/// An object as it is parsed in a list.
pub trait Item: DeserializeOwned {
    /// The replacement of an object with a field of the wrong type, so that one malformed object does not hide the
    /// others. (The schemas of custom resources allow such objects.) With `None`, the default, the list cannot be read.
    fn unreadable(_metadata: Metadata) -> Option<Self> {
        None
    }
}

/// The API server checks those of its own kinds.
impl<K: k8s_openapi::Resource + DeserializeOwned> Item for K {}

/// Which objects to list. The default: all, in all namespaces.
#[derive(Clone, Debug, Default)]
pub struct ListOptions<'a> {
    /// Those of one namespace.
    pub namespace: Option<&'a str>,
    /// A label selector.
    pub labels: Option<&'a str>,
    /// A field selector.
    pub fields: Option<&'a str>,
    /// List only the `metadata` of each object.
    pub only_metadata: bool,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The objects, in the order of namespaces and names.
    pub items: Vec<T>,
    /// The token of the next page; `None` at the end.
    pub next: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct RawList<T> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(default, deserialize_with = "at_most")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// Reads at most [`MOST`] objects. `null` is none.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct AtMost<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} objects")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_any(AtMost(PhantomData))
}

/// One page of at most 500 objects; the first one, or the one that begins at `from`.
///
/// If the continue token has expired (410), the token that the server offers instead is used, as in kubectl. The rest
/// of the list then shows a later state.
pub async fn list_page<T: Item>(
    client: &kube::Client,
    resource: Resource,
    options: &ListOptions<'_>,
    from: Option<&str>,
) -> Result<Page<T>> {
    match try_list_page(client, resource, options, from).await {
        Err(error) if from.is_some() && is_too_late(&error) => match offered_instead(&error) {
            Some(instead) => try_list_page(client, resource, options, Some(instead)).await,
            None => Err(error),
        },
        other => other,
    }
}

/// All objects of a short list. It starts again if the continue token has expired and the server offers no other.
pub async fn list_all<T: Item>(client: &kube::Client, resource: Resource, options: &ListOptions<'_>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut from = None;
    loop {
        let page = match list_page(client, resource, options, from.as_deref()).await {
            Err(error) if from.is_some() && is_too_late(&error) => {
                all.clear();
                from = None;
                continue;
            }
            other => other?,
        };
        all.extend(page.items);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(all),
        }
    }
}

async fn try_list_page<T: Item>(
    client: &kube::Client,
    resource: Resource,
    options: &ListOptions<'_>,
    from: Option<&str>,
) -> Result<Page<T>> {
    let object = resource.named(options.namespace, None);
    let bytes = fetch_page(client, resource, &object, options, from).await?;
    let list: RawList<T> = parse(Verb::List, &object, &bytes).or_else(|error| one_by_one(&bytes).ok_or(error))?;
    Ok(Page {
        items: list.items,
        next: list.metadata.next.filter(|next| !next.is_empty()),
    })
}

async fn fetch_page(
    client: &kube::Client,
    resource: Resource,
    object: &str,
    options: &ListOptions<'_>,
    from: Option<&str>,
) -> Result<Vec<u8>> {
    let mut sizes = PAGES.into_iter();
    loop {
        let params = ListParams {
            label_selector: options.labels.map(ToOwned::to_owned),
            field_selector: options.fields.map(ToOwned::to_owned),
            limit: sizes.next(),
            continue_token: from.map(ToOwned::to_owned),
            ..ListParams::default()
        };
        let request = resource.request(options.namespace);
        let request = if options.only_metadata {
            request.list_metadata(&params)
        } else {
            request.list(&params)
        };
        match fetch(client, Verb::List, object, request).await {
            Err(error) if error.is_too_long() && sizes.len() > 0 => {}
            page => return page,
        }
    }
}

/// Parses each object of a list by itself, because one of them is malformed.
fn one_by_one<T: Item>(bytes: &[u8]) -> Option<RawList<T>> {
    let list: RawList<&RawValue> = serde_json::from_slice(bytes).ok()?;
    let read = |item: &RawValue| {
        let malformed = || {
            let value = serde_json::from_str(item.get()).ok()?;
            T::unreadable(Metadata::salvage(&value))
        };
        let parsed = serde_json::from_str(item.get()).ok();
        parsed.or_else(|| {
            if item.get().len() > LONGEST_MALFORMED {
                None
            } else {
                malformed()
            }
        })
    };
    let items: Option<Vec<T>> = list.items.into_iter().map(read).collect();
    Some(RawList {
        metadata: list.metadata,
        items: items?,
    })
}

fn is_too_late(error: &Error) -> bool {
    error.code() == Some(410)
}

fn offered_instead(error: &Error) -> Option<&str> {
    let metadata = error.status()?.metadata.as_ref()?;
    metadata.continue_.as_deref().filter(|next| !next.is_empty())
}
