//! The body of a call that takes none: fields in it are refused as in any other body.

use axum::extract::{FromRequest, Request};
use serde::Deserialize;

use super::{
    ApiResult, Problem,
    guard::{FORM, is_form},
    wire::{collect, read},
};

/// No body, or one without fields. A form may repeat the CSRF token.
pub(super) struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let (headers, bytes) = collect(request).await?;
        if !bytes.is_empty() && !is_form(&headers, FORM) {
            read::<NoFields>(&headers, &bytes)?;
        }
        Ok(Self)
    }
}
