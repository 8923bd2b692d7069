//! The messages of etcd's gRPC API (`etcdserverpb`, `mvccpb`) that are used here, reduced to the fields
//! that are used. A `oneof` is a set of optional fields here, which is the same on the wire.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseHeader {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Empty: the key alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// 0: no limit.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0: the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Whether the member may answer from its own state, without the others.
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Exactly one of the fields is set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestOp {
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeRequest>,
    #[prost(message, optional, tag = "2")]
    pub put: Option<PutRequest>,
    #[prost(message, optional, tag = "3")]
    pub delete: Option<DeleteRangeRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeResponse>,
}

/// Compares the revision that last changed the key; 0: the key does not exist.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    /// EQUAL is 0.
    #[prost(int32, tag = "1")]
    pub result: i32,
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(int64, optional, tag = "6")]
    pub mod_revision: Option<i64>,
}

/// The target of a [`Compare`]: the revision by which a key was last changed.
const MOD: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Whether large revisions may be split over several responses.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// If not 0, the start was compacted: events before this revision are gone.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// PUT is 0, DELETE is 1.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub token: String,
}

/// A unary request, with its path and its answer.
pub(super) trait UnaryRequest: Message + Clone + Default + 'static {
    const PATH: &'static str;
    type Answer: Message + Default + 'static;
}

impl UnaryRequest for RangeRequest {
    const PATH: &'static str = "/etcdserverpb.KV/Range";
    type Answer = RangeResponse;
}

impl UnaryRequest for PutRequest {
    const PATH: &'static str = "/etcdserverpb.KV/Put";
    type Answer = ();
}

impl UnaryRequest for DeleteRangeRequest {
    const PATH: &'static str = "/etcdserverpb.KV/DeleteRange";
    type Answer = DeleteRangeResponse;
}

impl UnaryRequest for TxnRequest {
    const PATH: &'static str = "/etcdserverpb.KV/Txn";
    type Answer = TxnResponse;
}

impl UnaryRequest for AuthenticateRequest {
    const PATH: &'static str = "/etcdserverpb.Auth/Authenticate";
    type Answer = AuthenticateResponse;
}

/// The path on which a stream of [`WatchRequest`]s is answered by a stream of [`WatchResponse`]s.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The revision of an answer.
pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

impl Compare {
    pub(super) fn last_changed_by(key: Vec<u8>, revision: i64) -> Self {
        Self { result: 0, target: MOD, key, mod_revision: Some(revision) }
    }
}

impl RangeRequest {
    /// Requests a single key.
    pub(super) fn of(key: Vec<u8>) -> Self {
        Self { key, ..Self::default() }
    }
}

impl RequestOp {
    pub(super) fn get(key: Vec<u8>) -> Self {
        Self::range(RangeRequest::of(key))
    }

    pub(super) fn range(range: RangeRequest) -> Self {
        Self { range: Some(range), ..Self::default() }
    }

    pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { put: Some(PutRequest { key, value }), ..Self::default() }
    }

    pub(super) fn delete(key: Vec<u8>, range_end: Vec<u8>) -> Self {
        Self { delete: Some(DeleteRangeRequest { key, range_end }), ..Self::default() }
    }
}

impl TxnResponse {
    /// The result of the first get among the operations.
    pub(super) fn found(&self) -> Option<&KeyValue> {
        self.ranges().next()?.kvs.first()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = &RangeResponse> {
        self.responses.iter().filter_map(|op| op.range.as_ref())
    }
}
