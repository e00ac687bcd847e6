//! A proxy between a program and its servers. It counts the requests, and injects the faults that a test plans: it
//! kills the program right before or right after its n-th write, loses a response, or simulates an outage. The program
//! has no hook for any of this.

mod carry;
mod journal;
mod rules;
pub(crate) mod tls;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, CONTENT_TYPE, DATE, HOST, RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::ControlPlane;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, KeyPairPem};

use carry::{cut, live};
pub use journal::Request;
use journal::is_write;
use rules::{Begun, Rule};
pub use rules::{Fault, Moment, On, Outage, Planned};
use tls::{Dialer, acceptor};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ProxyResponse = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// A server behind the proxy.
#[derive(Clone)]
pub struct Upstream {
    /// Its base URL, https.
    pub url: String,
    /// The CA that signed its certificate.
    pub ca_pem: String,
    /// A client certificate for the proxy's connection to the server. A client certificate of the program ends at the
    /// proxy.
    pub identity: Option<KeyPairPem>,
}

impl Upstream {
    /// The API server of a control plane. All requests through the proxy are those of the admin.
    pub fn admin_of(plane: &ControlPlane) -> Self {
        let ca_pem = plane.authority().ca_pem().to_owned();
        Self {
            url: plane.url().to_owned(),
            ca_pem,
            identity: Some(plane.admin().clone()),
        }
    }
}

/// The proxy. Everything ends when it is dropped. All upstreams share one count of writes and one set of rules.
pub struct FaultProxy {
    shared: Arc<Shared>,
    ca_pem: String,
    fronts: Vec<Front>,
    _listeners: JoinSet<()>,
}

struct Front {
    upstream: String,
    url: String,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    victim: watch::Sender<Option<Pid>>,
    // Increases when an outage begins, so that open streams check whether it applies to them.
    outages_begun: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    writes: usize,
    rules: Vec<Rule>,
    outages: Vec<Begun>,
    /// The delay in each direction. The last match counts.
    delays: Vec<(On, Duration)>,
    /// How far the servers' clocks are ahead.
    ahead: Duration,
}

impl FaultProxy {
    /// Starts it in front of these servers, with one port of 127.0.0.1 for each.
    pub async fn start(upstreams: impl IntoIterator<Item = Upstream>) -> Result<Self> {
        let authority = Authority::new("fault proxy CA")?;
        let pair = authority.server("fault-proxy", &[])?;
        Self::start_as(&pair, authority.ca_pem(), upstreams).await
    }

    /// The same with this certificate, which clients trust by this CA.
    pub(crate) async fn start_as(
        pair: &KeyPairPem,
        ca_pem: &str,
        upstreams: impl IntoIterator<Item = Upstream>,
    ) -> Result<Self> {
        let acceptor = acceptor(pair)?;
        let shared = Arc::new(Shared::default());
        let (mut fronts, mut listeners) = (Vec::new(), JoinSet::new());
        for upstream in upstreams {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            fronts.push(Front {
                upstream: upstream.url.clone(),
                url: format!("https://{}", listener.local_addr()?),
            });
            let dialer = Arc::new(Dialer::new(&upstream)?);
            listeners.spawn(listen(listener, acceptor.clone(), dialer, Arc::clone(&shared)));
        }
        Ok(Self {
            shared,
            ca_pem: ca_pem.to_owned(),
            fronts,
            _listeners: listeners,
        })
    }

    /// The proxy's address for the first upstream.
    pub fn url(&self) -> &str {
        self.fronts.first().map_or("", |front| &front.url)
    }

    /// The CA that clients of the proxy must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The same contexts, through the proxy where they lead to one of its upstreams.
    pub fn redirect(&self, kubeconfig: Kubeconfig) -> Kubeconfig {
        self.fronts.iter().fold(kubeconfig, |kubeconfig, front| {
            kubeconfig.moved(&front.upstream, &front.url, &self.ca_pem)
        })
    }

    /// Sets the process for [`Fault::Kill`] and [`Fault::Stop`]. A fault that happens before waits for it.
    pub fn victim(&self, pid: u32) {
        self.shared
            .victim
            .send_replace(i32::try_from(pid).ok().and_then(Pid::from_raw));
    }

    /// Plans a fault. If several match a request, the first planned one applies.
    pub fn plan(&self, on: On, fault: Fault) -> Planned {
        let (rule, planned) = Rule::new(on, fault);
        self.shared.state().rules.push(rule);
        planned
    }

    /// Begins an outage now.
    pub fn away(&self, outage: Outage) {
        self.shared.begin(outage);
    }

    /// Makes the servers' clocks seem ahead of the client's, by the `Date` of every response.
    pub fn clock_ahead(&self, ahead: Duration) {
        self.shared.state().ahead = ahead;
    }

    /// Delays these requests, and their responses, each way: `On::request()` for all,
    /// `On::request().path("/k8s/clusters/*")` for one side. The number of matches does not matter. The events of a
    /// watch have the same delay and keep their order. A new connection takes two more round trips, for TCP and TLS.
    /// The last match counts, so zero ends a delay.
    pub fn delay(&self, on: On, each_way: Duration) {
        self.shared.state().delays.push((on, each_way));
    }

    /// Clears the planned faults and ends the outages. The recorded requests and the delays stay.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.outages.clear();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// All writes so far.
    pub fn writes(&self) -> Vec<Request> {
        self.shared
            .state()
            .requests
            .iter()
            .filter(|request| request.write.is_some())
            .cloned()
            .collect()
    }

    /// All requests as text, one per line.
    pub fn transcript(&self) -> String {
        self.requests()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, outage: Outage) {
        let until = Instant::now() + outage.lasts;
        self.state().outages.push(Begun { outage, until });
        self.outages_begun.send_modify(|count| *count += 1);
    }

    /// The current outage of this path, if any.
    fn outage(&self, path: &str) -> Option<Outage> {
        let mut state = self.state();
        state.outages.retain(|begun| begun.until > Instant::now());
        state
            .outages
            .iter()
            .find(|begun| path.starts_with(&begun.outage.prefix))
            .map(|begun| begun.outage.clone())
    }

    /// The delay of this request in each direction.
    fn delay_of<B>(&self, request: &http::Request<B>) -> Duration {
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        let state = self.state();
        let fitting = state.delays.iter().rev();
        fitting
            .filter(|(on, _)| on.fits(request.method(), uri.path(), query))
            .map(|(_, delay)| *delay)
            .next()
            .unwrap_or_default()
    }

    /// Records the request, and finds the fault that is planned for it.
    fn arrive<B>(&self, request: &http::Request<B>) -> (Ticket<'_>, Option<(Fault, Planned)>) {
        let (method, path, query) = (
            request.method(),
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        let mut state = self.state();
        let write = is_write(method, path, query).then(|| {
            state.writes += 1;
            state.writes
        });
        let agent = request
            .headers()
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        state.requests.push(Request {
            at: SystemTime::now(),
            method: method.clone(),
            path: path.to_owned(),
            query: query.to_owned(),
            user_agent: agent.to_owned(),
            write,
            status: None,
            fault: None,
        });
        // Every rule counts every request, even if another rule applies.
        let strikes: Vec<_> = state
            .rules
            .iter_mut()
            .filter_map(|rule| rule.strike(method, path, query))
            .collect();
        (
            Ticket {
                shared: self,
                index: state.requests.len() - 1,
            },
            strikes.into_iter().next(),
        )
    }

    /// A signal takes effect some time after it was sent. Until then the victim runs, and must not get its answer.
    async fn stop_victim(&self, planned: &Planned) {
        self.signal_victim(Signal::STOP).await;
        let _ = planned.released.subscribe().wait_for(|released| *released).await;
    }

    async fn signal_victim(&self, signal: Signal) {
        let mut victim = self.victim.subscribe();
        if let Ok(pid) = victim.wait_for(Option::is_some).await
            && let Some(pid) = *pid
        {
            // An ended process needs no signal.
            let _ = kill_process(pid, signal);
        }
    }
}

/// The index of a recorded request.
struct Ticket<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Ticket<'_> {
    fn note(&self, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.shared.state().requests.get_mut(self.index) {
            change(request);
        }
    }

    fn struck(&self, what: String, planned: &Planned) {
        self.note(|request| request.fault = Some(what));
        self.shared
            .state()
            .rules
            .iter()
            .filter(|rule| rule.is(planned))
            .for_each(Rule::has_struck);
    }
}

async fn listen(listener: TcpListener, acceptor: TlsAcceptor, dialer: Arc<Dialer>, shared: Arc<Shared>) {
    // Dropped with this task, together with its connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (acceptor, dialer, shared) = (acceptor.clone(), Arc::clone(&dialer), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            // HTTP/1.1 has one request at a time, so each client connection has its own server connection.
            let line = Arc::new(Line::new(None));
            let service = service_fn(|request| handle(request, &line, &dialer, &shared));
            // Broken connections are expected, from faults and from clients.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Line = tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>;

/// Forwards a request. An error breaks the client's connection.
async fn handle(
    request: http::Request<Incoming>,
    line: &Arc<Line>,
    dialer: &Arc<Dialer>,
    shared: &Arc<Shared>,
) -> Result<ProxyResponse> {
    let (parts, body) = request.into_parts();
    let request = http::Request::from_parts(parts, body.collect().await?.to_bytes());
    let delay = shared.delay_of(&request);
    if delay.is_zero() {
        return arrived(request, delay, line, dialer, shared).await;
    }
    let (line, dialer, shared) = (Arc::clone(line), Arc::clone(dialer), Arc::clone(shared));
    // A sent request arrives even if the client disconnects.
    let carried = tokio::spawn(async move {
        let is_new = line.lock().await.is_none();
        // A round trip for TCP, and one for TLS 1.3.
        tokio::time::sleep(if is_new { delay * 5 } else { delay }).await;
        let answer = arrived(request, delay, &line, &dialer, &shared).await;
        tokio::time::sleep(delay).await;
        answer
    });
    carried.await?
}

/// Handles a request that has arrived at the server's side.
async fn arrived(
    request: http::Request<Bytes>,
    delay: Duration,
    line: &Line,
    dialer: &Dialer,
    shared: &Arc<Shared>,
) -> Result<ProxyResponse> {
    let path = request.uri().path().to_owned();
    let (ticket, planned) = shared.arrive(&request);
    if let Some((Fault::Away(outage), planned)) = &planned {
        shared.begin(outage.clone());
        ticket.struck(format!("{} away for {:?}", outage.prefix, outage.lasts), planned);
    }
    if let Some(outage) = shared.outage(&path) {
        ticket.note(|request| request.fault = Some("away".to_owned()));
        let status = outage.status.context("away")?;
        ticket.note(|request| request.status = Some(status));
        return refusal(status, None);
    }
    let Some((fault, planned)) = planned else {
        return Ok(live(
            forward(request, line, dialer, &ticket).await?,
            path,
            delay,
            shared,
        ));
    };
    if let Fault::Say { status, body } = fault {
        ticket.struck("another answer".to_owned(), &planned);
        ticket.note(|request| request.status = Some(status));
        return said(status, body);
    }
    let after = fault.is_after();
    if !after {
        ticket.struck(format!("{fault:?}"), &planned);
    }
    match fault {
        Fault::Kill(Moment::Before) => {
            shared.signal_victim(Signal::KILL).await;
            bail!("the client was killed")
        }
        Fault::Stop(Moment::Before) => shared.stop_victim(&planned).await,
        Fault::Answer { status, retry_after } => {
            ticket.note(|request| request.status = Some(status));
            return refusal(status, retry_after);
        }
        Fault::Stall(pause) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let answer = forward(request, line, dialer, &ticket).await?;
    if after {
        // Now, and not before: a test that waits for it looks at what the server has done.
        ticket.struck(format!("{fault:?}"), &planned);
    }
    match fault {
        Fault::Kill(Moment::After) => {
            shared.signal_victim(Signal::KILL).await;
            bail!("the client was killed")
        }
        Fault::Stop(Moment::After) => shared.stop_victim(&planned).await,
        Fault::LoseAnswer => bail!("the answer is lost"),
        Fault::Cut => return cut(answer),
        _ => {}
    }
    Ok(live(answer, path, delay, shared))
}

/// Forwards the request unchanged except for the host, and records the status of the response.
async fn forward(
    mut request: http::Request<Bytes>,
    line: &Line,
    dialer: &Dialer,
    ticket: &Ticket<'_>,
) -> Result<Response<Incoming>> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    *request.uri_mut() = path.parse()?;
    request.headers_mut().insert(HOST, dialer.host.clone());
    let mut line = line.lock().await;
    let usable = match line.as_mut() {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !usable {
        *line = Some(
            dialer
                .dial()
                .await
                .inspect_err(|error| ticket.note(|r| r.fault = Some(format!("{error:#}"))))?,
        );
    }
    let sender = line.as_mut().context("no connection to the server")?;
    let mut answer = sender.send_request(request.map(Full::new)).await?;
    ticket.note(|request| request.status = Some(answer.status().as_u16()));
    for hop_by_hop in [CONNECTION, TRANSFER_ENCODING] {
        answer.headers_mut().remove(hop_by_hop);
    }
    let ahead = ticket.shared.state().ahead;
    if !ahead.is_zero() {
        let shifted = Timestamp::now() + ahead;
        let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&shifted)?;
        answer.headers_mut().insert(DATE, date.parse()?);
    }
    Ok(answer)
}

fn said(status: u16, body: String) -> Result<ProxyResponse> {
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    Ok(answer.body(Full::from(body).map_err(|never| match never {}).boxed_unsync())?)
}

/// The response of an API server that rejects a request: a `kind: Status`, and `Retry-After` if given.
fn refusal(status: u16, retry_after: Option<Duration>) -> Result<ProxyResponse> {
    let (reason, message) = match status {
        409 => (
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => (
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        _ => (
            "InternalError",
            "an error on the server has prevented the request from succeeding",
        ),
    };
    let mut body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status,
    });
    let mut answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    if let Some(pause) = retry_after {
        body["details"] = serde_json::json!({ "retryAfterSeconds": pause.as_secs() });
        answer = answer.header(RETRY_AFTER, pause.as_secs());
    }
    Ok(answer.body(
        Full::from(body.to_string())
            .map_err(|never| match never {})
            .boxed_unsync(),
    )?)
}
