//! A client that uses one endpoint of etcd at a time, and moves on to the next when a call gets no answer.
//! A load-balancing client would keep calling a dead endpoint.

use std::{
    fs, io, iter,
    path::PathBuf,
    time::{Duration, Instant},
};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc,
    codegen::tokio_stream::{self, StreamExt as _},
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use super::wire::{
    AuthenticateRequest, UnaryRequest, WATCH, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::store::cluster::{Etcd, User};

/// Where etcd is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub etcd: Etcd,
    /// Timeout of one call, after which the next endpoint is used.
    pub deadline: Duration,
    /// How long an append is retried before its outcome is reported as unclear.
    pub patience: Duration,
}

impl Settings {
    pub const DEADLINE: Duration = Duration::from_secs(1);
    pub const PATIENCE: Duration = Duration::from_secs(5);

    pub fn new(etcd: Etcd) -> Self {
        Self { etcd, deadline: Self::DEADLINE, patience: Self::PATIENCE }
    }
}

/// Why a request to etcd has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EtcdError {
    /// The call may have been carried out nevertheless.
    #[error("etcd does not respond: {0}")]
    NoAnswer(String),
    #[error("an etcd member that has fallen behind responds")]
    Stale,
    /// The call was not carried out.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// The user's token is missing or expired. The call was not carried out.
    #[error("etcd refuses: {0}")]
    SignedOut(String),
    /// The answer is larger than this client reads.
    #[error("a response of etcd is too large ({0})")]
    TooLarge(String),
    #[error("etcd has no `{prefix}head`: create the log with `permgate cluster init`")]
    NoLog { prefix: String },
    #[error("{0}")]
    Unusable(String),
}

impl EtcdError {
    /// Whether etcd has answered, so that a retry cannot help.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::NoAnswer(_) | Self::Stale)
    }
}

pub(super) struct Client {
    pub settings: Settings,
    endpoint_state: Mutex<EndpointState>,
}

#[derive(Default)]
struct EndpointState {
    /// Incremented when the endpoint is given up, so that of several calls that fail together only one
    /// moves on.
    generation: usize,
    channel: Option<Channel>,
    token: Option<MetadataValue<Ascii>>,
    /// When and why a sign-in was last refused.
    refused: Option<(Instant, EtcdError)>,
}

/// Pause after a sign-in was refused: it is the most expensive request for etcd.
const SIGN_IN_RETRY: Duration = Duration::from_secs(1);

/// Idle time before a ping, and timeout of its answer.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Maximum bytes of an answer: several entries of the largest size.
const MAX_RESPONSE: usize = 8 << 20;

type Codec<Q, A> = ProstCodec<Q, A>;

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, endpoint_state: Mutex::default() }
    }

    /// Calls once. If the user's token is missing or expired, signs in and calls again.
    pub(super) async fn call<Q: UnaryRequest>(&self, message: Q) -> Result<Q::Answer, EtcdError> {
        let (generation, channel, token) = self.connect()?;
        let token = match (&self.settings.etcd.user, token) {
            (Some(user), None) => Some(self.sign_in(user, generation, &channel).await?),
            (_, token) => token,
        };
        match self.ask(generation, channel.clone(), token, message.clone()).await {
            Err(EtcdError::SignedOut(reason)) => {
                let Some(user) = &self.settings.etcd.user else { return Err(EtcdError::Refused(reason)) };
                tracing::info!(user = user.name, reason, "signing in to etcd again");
                let token = self.sign_in(user, generation, &channel).await?;
                self.ask(generation, channel, Some(token), message).await
            }
            answer => answer,
        }
    }

    /// Opens a stream of events from revision `start` on. It ends with an error if etcd has no leader.
    pub(super) async fn watch(
        &self,
        (key, range_end): (Vec<u8>, Vec<u8>),
        start: i64,
    ) -> Result<Streaming<WatchResponse>, EtcdError> {
        let (generation, channel, token) = self.connect()?;
        let create = WatchCreateRequest { key, range_end, start_revision: start, fragment: true };
        // The request stream stays open: its end would end the watch.
        let requests = tokio_stream::once(WatchRequest { create: Some(create) });
        let mut request = request(requests.chain(tokio_stream::pending()), token);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opened = async {
            let codec = Codec::<WatchRequest, WatchResponse>::default();
            ready(channel).await?.streaming(request, PathAndQuery::from_static(WATCH), codec).await
        };
        self.within_deadline(generation, opened).await
    }

    /// Gives up the current endpoint, for example when its watch has ended.
    pub(super) fn next_endpoint(&self) {
        let generation = self.endpoint_state.lock().generation;
        self.give_up(generation);
    }

    async fn ask<Q: UnaryRequest>(
        &self,
        generation: usize,
        channel: Channel,
        token: Option<MetadataValue<Ascii>>,
        message: Q,
    ) -> Result<Q::Answer, EtcdError> {
        let answered = async {
            let codec = Codec::<Q, Q::Answer>::default();
            let request = request(message, token);
            ready(channel).await?.unary(request, PathAndQuery::from_static(Q::PATH), codec).await
        };
        self.within_deadline(generation, answered).await
    }

    async fn within_deadline<T>(
        &self,
        generation: usize,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, EtcdError> {
        match timeout(self.settings.deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.map_status(generation, &status)),
            Err(_) => {
                self.give_up(generation);
                let reason = format!("nothing arrived within {:?}", self.settings.deadline);
                Err(EtcdError::NoAnswer(self.with_endpoints(&reason)))
            }
        }
    }

    async fn sign_in(
        &self,
        user: &User,
        generation: usize,
        channel: &Channel,
    ) -> Result<MetadataValue<Ascii>, EtcdError> {
        if let Some((at, error)) = &self.endpoint_state.lock().refused
            && at.elapsed() < SIGN_IN_RETRY
        {
            return Err(error.clone());
        }
        let path = &user.password_file;
        let refused = |reason: String| EtcdError::Refused(self.with_endpoints(&reason));
        let password = fs::read_to_string(path)
            .map_err(|e| refused(format!("the password in {} cannot be read: {e}", path.display())))?;
        let request = AuthenticateRequest {
            name: user.name.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        };
        let answer = self.ask(generation, channel.clone(), None, request).await;
        let mut endpoint_state = self.endpoint_state.lock();
        endpoint_state.refused = match &answer {
            Err(error @ (EtcdError::Refused(_) | EtcdError::SignedOut(_))) => {
                Some((Instant::now(), error.clone()))
            }
            _ => None,
        };
        let token = MetadataValue::try_from(answer?.token);
        let token = token.map_err(|_| refused("its token is not text".to_owned()))?;
        endpoint_state.token = Some(token.clone());
        Ok(token)
    }

    /// The current channel, which connects on first use.
    fn connect(&self) -> Result<(usize, Channel, Option<MetadataValue<Ascii>>), EtcdError> {
        let mut endpoint_state = self.endpoint_state.lock();
        let channel = match &endpoint_state.channel {
            Some(channel) => channel.clone(),
            None => match self.open(endpoint_state.generation) {
                Ok(channel) => endpoint_state.channel.insert(channel).clone(),
                Err(reason) => {
                    endpoint_state.generation += 1;
                    return Err(EtcdError::NoAnswer(self.with_endpoints(&reason)));
                }
            },
        };
        Ok((endpoint_state.generation, channel, endpoint_state.token.clone()))
    }

    fn open(&self, generation: usize) -> Result<Channel, String> {
        let endpoints = &self.settings.etcd.endpoints;
        let url = endpoints.get(generation % endpoints.len().max(1)).ok_or("no endpoint is configured")?;
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| format!("{url}: {e}"))?;
        let endpoint = endpoint
            .connect_timeout(self.settings.deadline)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.settings.etcd.tls else { return Ok(endpoint.connect_lazy()) };
        let read = |path: &PathBuf| {
            let named = |e: io::Error| format!("{} cannot be read: {e}", path.display());
            fs::read(path).map_err(named)
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&tls.ca)?));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        let endpoint = endpoint.tls_config(config).map_err(|e| format!("{url}: {e}"))?;
        Ok(endpoint.connect_lazy())
    }

    /// Maps a status to an error, and gives up the endpoint where the status says that it is at fault.
    fn map_status(&self, generation: usize, status: &Status) -> EtcdError {
        let reason = self.with_endpoints(&format!("{} ({})", status.message(), describe(status)));
        match status.code() {
            Code::OutOfRange if status.message().contains("too large") => EtcdError::TooLarge(reason),
            Code::Unauthenticated => EtcdError::SignedOut(reason),
            // etcd also reports an old token as an invalid argument.
            Code::InvalidArgument | Code::PermissionDenied if status.message().contains("token") => {
                EtcdError::SignedOut(reason)
            }
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented => EtcdError::Refused(reason),
            _ => {
                self.give_up(generation);
                EtcdError::NoAnswer(reason)
            }
        }
    }

    fn with_endpoints(&self, reason: &str) -> String {
        format!("{reason} ({})", self.settings.etcd.endpoints.join(", "))
    }

    fn give_up(&self, generation: usize) {
        let mut endpoint_state = self.endpoint_state.lock();
        if endpoint_state.generation == generation {
            endpoint_state.generation += 1;
            endpoint_state.channel = None;
        }
    }
}

fn request<T>(message: T, token: Option<MetadataValue<Ascii>>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE);
    grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
    Ok(grpc)
}

/// The status code, and the connection's error if there is one.
fn describe(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{:?}: {}", status.code(), causes(source)),
        None => format!("{:?}", status.code()),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let causes = iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
