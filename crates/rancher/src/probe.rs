//! Asking Rancher itself whether a registration token is alive, at the public doors that agents use.
//!
//! No right is needed and nothing is changed, but each look leaves a line in Rancher's log. There are three doors:
//!
//! | door | alive | dead |
//! |---|---|---|
//! | `/v3/connect` with the token as an agent sends it | 400 `unexpected end of JSON input` (the rest of the greeting is missing) | 400 `cluster not found` |
//! | `/v3/connect` as for the second tunnel, `Bearer stv-cluster-<token>` | 400 `Error during upgrade for host [stv-cluster-<cluster id>]` (it is no websocket) | 401 `failed authentication` |
//! | `/cacerts` with the token's hash and a nonce | 200 and `X-Cattle-Hash`, an HMAC keyed with the token | era S: 200 without it; era P: **the handler panics** and the connection is cut |
//!
//! (All seen on Rancher 2.15.0 and 2.12.0.) So in era P the third is only tried with a token that the first two let in.
//! It is the one that proves who answers: nobody can make that header without knowing the token.
//!
//! Behind a load balancer every replica of Rancher has its own memory of tokens, and they learn of a change one after
//! the other. Each request therefore asks for a connection of its own, and one look is not enough.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::request::{self, Verb};
use client::secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::agent::STV_PREFIX;
use crate::cluster_id::ClusterId;
use crate::era::Era;
use crate::error::Result;
use crate::token::generate;

const TUNNEL_TOKEN: HeaderName = HeaderName::from_static("x-api-tunnel-token");
const NONCE: HeaderName = HeaderName::from_static("x-cattle-nonce");
const HASH: HeaderName = HeaderName::from_static("x-cattle-hash");

/// No honest answer is longer: the longest is a bundle of CA certificates.
const LONGEST_ANSWER: usize = 1 << 20;

/// What Rancher says of a token.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is accepted at every door.
    Live {
        /// The cluster that it belongs to, as the second door names it.
        cluster: Option<ClusterId>,
    },
    /// It is refused at every door that was tried.
    Dead,
    /// Neither is proven.
    Unknown(Doubt),
}

impl Verdict {
    /// Accepted everywhere.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Refused everywhere.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Dead)
    }
}

/// Why there is no verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Doubt {
    /// No answer came.
    NoAnswer(Arc<kube::Error>),
    /// An answer came that none of these doors gives: a proxy's, or no Rancher's.
    Odd {
        /// The path that was asked.
        path: &'static str,
        /// Its HTTP status.
        code: u16,
    },
    /// One door, or one replica, accepts it and another refuses it: Rancher's replicas learn of a change one after the
    /// other.
    Disagreement,
    /// Doors let it in, but what answers does not know the token itself: something between here and Rancher.
    NotProven,
    /// The text cannot be sent in a header, so no agent can use it: a line break or the like is in it.
    Unsendable,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(_) => f.write_str("Rancher did not answer"),
            Self::Odd { path, code } => write!(f, "{path} answered {code}, and not as Rancher does"),
            Self::Disagreement => f.write_str("it is accepted in one place and refused in another"),
            Self::NotProven => f.write_str("what answers for Rancher does not know the token"),
            Self::Unsendable => f.write_str("it has characters that cannot be sent"),
        }
    }
}

/// What is at a URL.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Rancher, with its doors for agents open.
    Rancher,
    /// Something else that speaks HTTP.
    Other {
        /// What it said to a greeting that Rancher answers with 400 `cluster not found`.
        code: u16,
    },
    /// Nothing that answers, or not to us.
    NoAnswer(Arc<kube::Error>),
}

/// What one door says.
enum Door {
    Open(Option<ClusterId>),
    Shut,
    Doubt(Doubt),
}

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Someone who knocks at Rancher's public doors.
#[derive(Clone)]
pub struct Probe {
    client: kube::Client,
}

impl Probe {
    /// `client` must be built for Rancher's own URL and without any identity: one with an identity would put that in the
    /// place of the token.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Whether it is Rancher that answers at this URL: it is greeted with a token that was made up on the spot.
    pub async fn identify(&self) -> Result<Identity> {
        let stranger = generate()?;
        Ok(match self.first_door(&stranger).await {
            Door::Shut | Door::Open(_) => Identity::Rancher,
            Door::Doubt(Doubt::NoAnswer(why)) => Identity::NoAnswer(why),
            Door::Doubt(Doubt::Odd { code, .. }) => Identity::Other { code },
            Door::Doubt(_) => Identity::Other { code: 0 },
        })
    }

    /// The PEM by which agents are to trust Rancher, as it gives it to anybody. None: it has none, and stands behind a
    /// certificate that is publicly trusted.
    pub async fn ca_certificates(&self) -> Result<Option<String>> {
        let failed = |source| request::Error::failed(Verb::Get, "CA certificates /cacerts", source);
        let answer = self.knock("/cacerts", HeaderMap::new()).await.map_err(failed)?;
        if !answer.code.is_success() {
            let status = kube::core::Status::failure("this is not answered as Rancher does", "");
            return Err(failed(kube::Error::Api(status.with_code(answer.code.as_u16()).boxed())).into());
        }
        let text = String::from_utf8(answer.body).map_err(|error| failed(kube::Error::FromUtf8(error)))?;
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// One look at all doors.
    pub async fn look(&self, era: Era, token: &Secret) -> Verdict {
        if token.is_empty() {
            // Never sent: a Rancher of era P may have a blank token in its index for a moment.
            return Verdict::Dead;
        }
        let (first, second) = futures::future::join(self.first_door(token), self.second_door(token)).await;
        let verdict = match (first, second) {
            (Door::Doubt(doubt), _) | (_, Door::Doubt(doubt)) => Verdict::Unknown(doubt),
            (Door::Open(_), Door::Open(cluster)) => Verdict::Live { cluster },
            (Door::Shut, Door::Shut) => Verdict::Dead,
            (Door::Open(_), Door::Shut) | (Door::Shut, Door::Open(_)) => Verdict::Unknown(Doubt::Disagreement),
        };
        let third_is_safe = era == Era::Secret || verdict.is_live();
        if !third_is_safe || matches!(verdict, Verdict::Unknown(_)) {
            return verdict;
        }
        match (self.third_door(token).await, verdict) {
            (Door::Open(_), verdict @ Verdict::Live { .. }) | (Door::Shut, verdict @ Verdict::Dead) => verdict,
            (Door::Doubt(doubt), _) => Verdict::Unknown(doubt),
            _ => Verdict::Unknown(Doubt::Disagreement),
        }
    }

    /// Looks `times` times, one after the other and each over new connections; stops at the first that differs or is in
    /// doubt.
    pub async fn looks(&self, era: Era, token: &Secret, times: u32) -> Verdict {
        let first = self.look(era, token).await;
        for _ in 1..times {
            if matches!(first, Verdict::Unknown(_)) {
                break;
            }
            match (&first, self.look(era, token).await) {
                (Verdict::Live { .. }, Verdict::Live { .. }) | (Verdict::Dead, Verdict::Dead) => {}
                (_, doubt @ Verdict::Unknown(_)) => return doubt,
                _ => return Verdict::Unknown(Doubt::Disagreement),
            }
        }
        first
    }

    async fn first_door(&self, token: &Secret) -> Door {
        let Some(value) = sensitive(token.expose()) else {
            return Door::Doubt(Doubt::Unsendable);
        };
        let answer = match self
            .knock("/v3/connect", HeaderMap::from_iter([(TUNNEL_TOKEN, value)]))
            .await
        {
            Ok(answer) => answer,
            Err(error) => return Door::Doubt(Doubt::NoAnswer(Arc::new(error))),
        };
        let text = answer.text();
        if answer.code == StatusCode::BAD_REQUEST && text.contains("unexpected end of JSON input") {
            Door::Open(None)
        } else if answer.code == StatusCode::BAD_REQUEST && text.contains("cluster not found") {
            Door::Shut
        } else {
            Door::Doubt(answer.odd("/v3/connect"))
        }
    }

    async fn second_door(&self, token: &Secret) -> Door {
        let bearer = Secret::new(format!("Bearer {STV_PREFIX}{}", token.expose()));
        let Some(value) = sensitive(bearer.expose()) else {
            return Door::Doubt(Doubt::Unsendable);
        };
        let answer = match self
            .knock("/v3/connect", HeaderMap::from_iter([(AUTHORIZATION, value)]))
            .await
        {
            Ok(answer) => answer,
            Err(error) => return Door::Doubt(Doubt::NoAnswer(Arc::new(error))),
        };
        let text = answer.text();
        let host = text
            .split_once("Error during upgrade for host [")
            .and_then(|(_, rest)| rest.split_once(']'));
        if let Some((host, _)) = host {
            Door::Open(host.strip_prefix(STV_PREFIX).and_then(|id| id.parse().ok()))
        } else if answer.code == StatusCode::UNAUTHORIZED && text.contains("failed authentication") {
            Door::Shut
        } else {
            Door::Doubt(answer.odd("/v3/connect"))
        }
    }

    async fn third_door(&self, token: &Secret) -> Door {
        let nonce = match generate() {
            Ok(nonce) => nonce.expose().to_owned(),
            Err(_) => return Door::Doubt(Doubt::NotProven),
        };
        let hash = STANDARD.encode(Sha256::digest(token.expose().as_bytes()));
        let (Some(bearer), Some(nonce_value)) = (sensitive(&format!("Bearer {hash}")), sensitive(&nonce)) else {
            return Door::Doubt(Doubt::Unsendable);
        };
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (NONCE, nonce_value)]);
        let answer = match self.knock("/cacerts", headers).await {
            Ok(answer) => answer,
            Err(error) => return Door::Doubt(Doubt::NoAnswer(Arc::new(error))),
        };
        if !answer.code.is_success() {
            return Door::Doubt(answer.odd("/cacerts"));
        }
        match answer.headers.get(HASH) {
            None => Door::Shut,
            Some(hash) if bool::from(proof(token, &nonce, &answer.body).as_bytes().ct_eq(hash.as_bytes())) => {
                Door::Open(None)
            }
            Some(_) => Door::Doubt(Doubt::NotProven),
        }
    }

    async fn knock(&self, path: &'static str, mut headers: HeaderMap) -> Result<Answer, kube::Error> {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(path);
        *request.headers_mut() = headers;
        let (head, body) = self.client.send(request).await?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER)
            .collect()
            .await
            .map_err(kube::Error::Service)?
            .to_bytes();
        Ok(Answer {
            code: head.status,
            headers: head.headers,
            body: body.into(),
        })
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

impl Answer {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    fn odd(&self, path: &'static str) -> Doubt {
        Doubt::Odd {
            path,
            code: self.code.as_u16(),
        }
    }
}

/// A header's value that no log of a transport shows.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What Rancher answers to a nonce if it knows the token (`pkg/cacerts/handler.go` of Rancher 2.15.0).
fn proof(token: &Secret, nonce: &str, ca: &[u8]) -> String {
    let mut mac = Hmac::<Sha512>::new_from_slice(token.expose().as_bytes()).expect("HMAC takes a key of any length");
    for part in [nonce.as_bytes(), &[0], ca, &[0]] {
        mac.update(part);
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Whether two PEM bundles are the same but for white space at their ends.
pub fn same_certificates(one: Option<&str>, other: Option<&str>) -> bool {
    let bare = |pem: Option<&str>| pem.map(str::trim).filter(|pem| !pem.is_empty()).map(str::to_owned);
    bare(one) == bare(other)
}
