//! Requests and answers on their way through the gateway, whatever protocol brought them.

mod fields;
mod line;
mod sixteen;

use http::{Method, StatusCode, Uri, Version};

pub use self::{
    fields::{Fields, Names},
    line::{Line, length_of, put_field},
    sixteen::text_length,
};

#[derive(Debug)]
pub struct Request<B> {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub fields: Fields,
    pub body: B,
}

#[derive(Debug)]
pub struct Response<B> {
    pub status: StatusCode,
    pub fields: Fields,
    pub body: B,
}

impl<B> Request<B> {
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Request<C> {
        let Self { method, uri, version, fields, body } = self;
        Request { method, uri, version, fields, body: change(body) }
    }
}

impl<B> Response<B> {
    /// Status 200, no fields.
    pub fn new(body: B) -> Self {
        Self { status: StatusCode::OK, fields: Fields::default(), body }
    }

    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        Response { status: self.status, fields: self.fields, body: change(self.body) }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let fields = Fields::from(&parts.headers);
        Self { method: parts.method, uri: parts.uri, version: parts.version, fields, body }
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        let mut http = Self::new(request.body);
        *http.method_mut() = request.method;
        *http.uri_mut() = request.uri;
        *http.version_mut() = request.version;
        *http.headers_mut() = (&request.fields).into();
        http
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, fields: Fields::from(&parts.headers), body }
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let mut http = Self::new(response.body);
        *http.status_mut() = response.status;
        *http.headers_mut() = (&response.fields).into();
        http
    }
}
