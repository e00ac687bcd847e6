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
use crate::error::{self, Error as UserError};

/// The number of objects per page, as in kubectl; and fewer where such a page is too large, as of large Secrets.
const SIZES: [u32; 5] = [500, 100, 20, 5, 1];
/// The most pages of a list: 100,000 objects also where only a hundred fit into a page.
const MOST_PAGES: usize = 1000;
/// The most objects of a list.
const MOST_OBJECTS: usize = 250_000;
/// How often a list starts again after its continue token has expired.
const MOST_RESTARTS: usize = 3;
/// The most objects of a page that are read. A server that does not know pages sends all at once; one that sends
/// thousands of empty objects would fill the memory, above all where a command reads several lists at once.
const MOST: usize = 5000;

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
    /// Where the next page starts; `None` at the end.
    pub next: Option<Continue>,
}

/// Where the next page of a list starts, and what was read before it. A list that does not end is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continue {
    token: Option<String>,
    pages: usize,
    objects: usize,
    /// The index of the size of a page that was not too large.
    size: usize,
}

impl Continue {
    /// After a page with `count` objects, at the token that the server has sent with it.
    fn after(&self, count: usize, token: String, size: usize) -> Result<Self, UserError> {
        let next = Self {
            pages: self.pages + 1,
            objects: self.objects + count,
            token: Some(token),
            size,
        };
        if next.token == self.token {
            Err(error::endless("a page continues with itself"))
        } else if next.pages >= MOST_PAGES {
            Err(error::endless(format_args!("it has more than {MOST_PAGES} pages")))
        } else if next.objects > MOST_OBJECTS {
            Err(error::endless(format_args!("it has more than {MOST_OBJECTS} objects")))
        } else {
            Ok(next)
        }
    }

    /// The same place under another token.
    fn at(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct RawList<T> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(default, deserialize_with = "at_most::<MOST, _, _>")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct RawListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// Reads at most `N` objects of a list, for `deserialize_with`. `null` is none.
pub fn at_most<'de, const N: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct AtMost<T, const N: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for AtMost<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {N} objects")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == N {
                    return Err(A::Error::invalid_length(N + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_any(AtMost::<T, N>(PhantomData))
}

/// One page of at most 500 objects; the first one, or the one that begins at `from`.
///
/// If the continue token has expired (410), the token that the server offers instead is used, as in kubectl. The rest
/// of the list then shows a later state.
pub async fn list_page<T: Item>(
    client: &kube::Client,
    resource: Resource,
    options: &ListOptions<'_>,
    from: Option<&Continue>,
) -> Result<Page<T>> {
    let beginning = Continue::default();
    let from = from.unwrap_or(&beginning);
    match try_list_page(client, resource, options, from).await {
        Err(error) if from.token.is_some() && is_too_late(&error) => match offered_instead(&error) {
            Some(instead) => try_list_page(client, resource, options, &from.at(instead)).await,
            None => Err(error),
        },
        other => other,
    }
}

/// All objects of a short list. It starts again if the continue token has expired and the server offers no other.
pub async fn list_all<T: Item>(client: &kube::Client, resource: Resource, options: &ListOptions<'_>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut from = None;
    let mut restarts = 0;
    loop {
        let page = match list_page(client, resource, options, from.as_ref()).await {
            Err(error) if from.is_some() && restarts < MOST_RESTARTS && is_too_late(&error) => {
                all.clear();
                from = None;
                restarts += 1;
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
    from: &Continue,
) -> Result<Page<T>> {
    let object = resource.named(options.namespace, None);
    let (bytes, size) = fetch_page(client, resource, &object, options, from).await?;
    let list: RawList<T> = parse(Verb::List, &object, &bytes).or_else(|error| one_by_one(&bytes).ok_or(error))?;
    let token = list.metadata.next.filter(|token| !token.is_empty());
    let next = token.map(|token| from.after(list.items.len(), token, size)).transpose();
    Ok(Page {
        items: list.items,
        next: next.map_err(|endless| Error::failed(Verb::List, object, kube::Error::Service(endless.into())))?,
    })
}

/// A page, and the index of its size in [`SIZES`].
async fn fetch_page(
    client: &kube::Client,
    resource: Resource,
    object: &str,
    options: &ListOptions<'_>,
    from: &Continue,
) -> Result<(Vec<u8>, usize)> {
    let mut size = from.size;
    loop {
        let params = ListParams {
            label_selector: options.labels.map(ToOwned::to_owned),
            field_selector: options.fields.map(ToOwned::to_owned),
            limit: Some(SIZES[size]),
            continue_token: from.token.clone(),
            ..ListParams::default()
        };
        let request = resource.request(options.namespace);
        let request = if options.only_metadata {
            request.list_metadata(&params)
        } else {
            request.list(&params)
        };
        match fetch(client, Verb::List, object, request).await {
            Err(error) if error.is_too_long() && size + 1 < SIZES.len() => size += 1,
            page => return Ok((page?, size)),
        }
    }
}

/// Parses each object of a list by itself, because one of them is malformed.
fn one_by_one<T: Item>(bytes: &[u8]) -> Option<RawList<T>> {
    let list: RawList<&RawValue> = serde_json::from_slice(bytes).ok()?;
    let read = |item: &RawValue| {
        let parsed = serde_json::from_str(item.get()).ok();
        parsed.or_else(|| T::unreadable(Metadata::salvage(item.get())))
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
