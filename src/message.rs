//! Requests and answers on their way through the gateway, whatever protocol brought them.

pub mod buffer;
mod fields;
mod line;
mod sixteen;
mod target;

use std::ops::{Deref, DerefMut};

use http::{Method, StatusCode, Uri, Version};

pub use self::{
    fields::{Fields, Names},
    line::{Line, length_of, put_field},
    sixteen::text_length,
    target::Target,
};

/// A head and a body. The head is on the heap: it goes through many hands, and each would copy it.
#[derive(Debug)]
pub struct Message<H, B> {
    head: Box<H>,
    pub body: B,
}

pub type Request<B> = Message<RequestHead, B>;
pub type Response<B> = Message<ResponseHead, B>;

#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    pub version: Version,
    pub fields: Fields,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub fields: Fields,
}

impl<H, B> Message<H, B> {
    pub fn from_parts(head: H, body: B) -> Self {
        Self { head: Box::new(head), body }
    }

    pub fn into_parts(self) -> (H, B) {
        (*self.head, self.body)
    }

    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Message<H, C> {
        Message { head: self.head, body: change(self.body) }
    }
}

impl<B> Response<B> {
    /// Status 200, no fields.
    pub fn new(body: B) -> Self {
        Self::from_parts(ResponseHead { status: StatusCode::OK, fields: Fields::default() }, body)
    }
}

impl<H, B> Deref for Message<H, B> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.head
    }
}

impl<H, B> DerefMut for Message<H, B> {
    fn deref_mut(&mut self) -> &mut H {
        &mut self.head
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let fields = Fields::from(&parts.headers);
        let target = Target::from(&parts.uri);
        let head = RequestHead { method: parts.method, target, version: parts.version, fields };
        Self::from_parts(head, body)
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let mut http = Self::new(body);
        *http.method_mut() = head.method;
        // Whatever is a target is a URI; an empty one is that of a request without a path.
        *http.uri_mut() = Uri::try_from(head.target.as_str()).unwrap_or_default();
        *http.version_mut() = head.version;
        *http.headers_mut() = (&head.fields).into();
        http
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let fields = Fields::from(&parts.headers);
        Self::from_parts(ResponseHead { status: parts.status, fields }, body)
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let mut http = Self::new(body);
        *http.status_mut() = head.status;
        *http.headers_mut() = (&head.fields).into();
        http
    }
}
