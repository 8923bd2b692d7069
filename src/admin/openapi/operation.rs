//! One operation of the OpenAPI document.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, Content, ContentBuilder, HttpMethod, ObjectBuilder, Ref, RefOr, Required, Schema,
        path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        response::ResponseBuilder,
        schema::{SchemaType, Type},
        security::SecurityRequirement,
    },
};

use super::examples;

/// A method on a path, with its parameters, body, answer and refusals.
#[derive(Default)]
pub(super) struct Operation {
    call: &'static str,
    summary: &'static str,
    parameters: Vec<Parameter>,
    body: Option<RequestBody>,
    answer: Option<(u16, &'static str, Content)>,
    example: Option<Value>,
    error_statuses: Vec<u16>,
    idempotent: bool,
    open: bool,
    /// The schemas that it refers to, by name.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

const JSON: &str = "application/json";

/// Every status of a refusal, with the codes that come with it.
const ERROR_STATUSES: [(u16, &str); 12] = [
    (400, "`invalid_request`: the target, a parameter or the body cannot be read"),
    (401, "`unauthorized`, `invalid_token`, `sign_in_failed`: not signed in, or no longer"),
    (
        403,
        "`permission_denied`, `insufficient_scope`, `would_escalate`, `service_not_readable`, \
         `exceeds_parent_token`, `csrf`, `cross_origin`, `wrong_password`",
    ),
    (404, "`not_found`"),
    (409, "`name_taken`, `user_banned`, `token_revoked`, `cannot_ban_self`, `last_admin`, `too_many_tokens`"),
    (412, "`precondition_failed`: `If-Match` names another revision"),
    (413, "`content_too_large`: over 1 MiB"),
    (415, "`unsupported_media_type`"),
    (421, "`misdirected_request`: a host name that the admin listener does not accept"),
    (
        422,
        "`invalid_name`, `invalid_value`, `empty_scope`, `duplicate_service`, `expiry_in_past`, \
         `lifetime_too_long`, `cannot_widen`, `idempotency_key_reused`, `invalid_configuration`",
    ),
    (
        429,
        "`too_many_attempts`: `Retry-After` says how many seconds to wait; `too_many_tokens`: the user has \
         10,000 revoked or replaced tokens; `too_many_changes`: the account makes them faster than `admin.write_rate`",
    ),
    (503, "`store_unavailable`, `not_durable`, `fence_incomplete`, `busy`"),
];

/// `call` is the method and the path: `GET /v1/users`.
pub(super) fn call(call: &'static str, summary: &'static str) -> Operation {
    let mut operation =
        Operation { call, summary, error_statuses: vec![400, 401, 403, 421, 503], ..Operation::default() };
    for name in call.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let text = of_type(Type::String).min_length(Some(1));
        operation = operation.parameter(ParameterIn::Path, name, None, text).errors(&[404]);
    }
    // Removals are not rate limited.
    match operation.method() {
        HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch => operation.errors(&[429]),
        _ => operation,
    }
}

impl Operation {
    pub(super) fn method(&self) -> HttpMethod {
        match self.call.split(' ').next() {
            Some("POST") => HttpMethod::Post,
            Some("PUT") => HttpMethod::Put,
            Some("PATCH") => HttpMethod::Patch,
            Some("DELETE") => HttpMethod::Delete,
            _ => HttpMethod::Get,
        }
    }

    pub(super) fn path(&self) -> &'static str {
        self.call.split(' ').nth(1).unwrap_or_default()
    }

    /// Requires a JSON body of this type.
    pub(super) fn body<T: ToSchema>(mut self) -> Self {
        let schema = self.schema_ref::<T>();
        self.content(JSON, schema, examples::body(&T::name())).errors(&[413, 415, 422])
    }

    pub(super) fn optional_body<T: ToSchema>(self) -> Self {
        let mut operation = self.body::<T>();
        if let Some(body) = &mut operation.body {
            body.required = Some(Required::False);
        }
        operation
    }

    /// Takes the form of OAuth's introspection and revocation.
    pub(super) fn token_form_body(self) -> Self {
        let form = ObjectBuilder::new()
            .property("token", of_type(Type::String))
            .property("token_type_hint", of_type(Type::String))
            .required("token");
        let example = json!({"token": examples::TEXT});
        self.content("application/x-www-form-urlencoded", form, example).errors(&[413, 415])
    }

    fn content(mut self, form: &str, schema: impl Into<RefOr<Schema>>, example: Value) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
        let body = RequestBodyBuilder::new().content(form, content).required(Some(Required::True));
        self.body = Some(body.build());
        self
    }

    pub(super) fn returns<T: ToSchema>(self) -> Self {
        Self { example: examples::example(&T::name()), ..self }.json_response::<T>(200)
    }

    pub(super) fn creates<T: ToSchema>(self) -> Self {
        Self { example: examples::created_example(&T::name()), ..self }.json_response::<T>(201)
    }

    /// Answers with a page of a list.
    pub(super) fn returns_page<T: ToSchema>(mut self) -> Self {
        let item = self.schema_ref::<T>();
        let cursor = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        let page = ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(item))
            .property("next", cursor)
            .required("items")
            .required("next");
        self.answer = Some((200, JSON, ContentBuilder::new().schema(Some(page)).build()));
        self.example = examples::example(&T::name()).map(|item| json!({"items": [item], "next": null}));
        self
    }

    /// Answers with an object that its example describes.
    pub(super) fn returns_object(self) -> Self {
        self.response(200, JSON, of_type(Type::Object))
    }

    /// Answers with another media type, or with a schema that has no name.
    pub(super) fn response(
        mut self,
        status: u16,
        form: &'static str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        self.answer = Some((status, form, ContentBuilder::new().schema(Some(schema)).build()));
        self
    }

    /// Answers with an object of these fields, all of them required.
    pub(super) fn returns_fields(self, fields: &[(&str, Type)]) -> Self {
        let object = fields.iter().fold(ObjectBuilder::new(), |object, (name, kind)| {
            object.property(*name, of_type(kind.clone())).required(*name)
        });
        self.response(200, JSON, object)
    }

    pub(super) fn errors(mut self, statuses: &[u16]) -> Self {
        self.error_statuses.extend(statuses);
        self
    }

    pub(super) fn query(self, name: &str, about: &str, kind: Type) -> Self {
        self.parameter(ParameterIn::Query, name, Some(about), of_type(kind))
    }

    pub(super) fn paged(self) -> Self {
        let limit = of_type(Type::Integer).minimum(Some(1)).maximum(Some(1000));
        self.query("cursor", "`next` of the page before", Type::String).parameter(
            ParameterIn::Query,
            "limit",
            Some("Rows on a page; 100 by default"),
            limit,
        )
    }

    /// Takes the revision that the caller has read.
    pub(super) fn conditional(self) -> Self {
        let about = "The record's `ETag` as it was read: 412 if it has changed since";
        self.parameter(ParameterIn::Header, "If-Match", Some(about), of_type(Type::String)).errors(&[412])
    }

    /// Makes a record once, however often the request is repeated.
    pub(super) fn idempotent(self) -> Self {
        let about = "1 to 255 visible characters: the same request with the same key gets the first record for a \
                     day, with 200 and without the text";
        let text = of_type(Type::String);
        let operation = self.parameter(ParameterIn::Header, "Idempotency-Key", Some(about), text);
        Self { idempotent: true, ..operation }
    }

    fn parameter(
        mut self,
        place: ParameterIn,
        name: &str,
        about: Option<&str>,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let required = if place == ParameterIn::Path { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
        self.parameters.push(parameter.description(about).schema(Some(schema)).build());
        self
    }

    /// Needs no authentication.
    pub(super) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    pub(super) fn build(self) -> utoipa::openapi::path::Operation {
        let mut segments = self.path().split('/').skip(1);
        let (first, second) = (segments.next(), segments.next());
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.call))
            .summary(Some(self.summary))
            .tag(second.or(first).unwrap_or_default())
            .parameters(Some(self.parameters).filter(|all| !all.is_empty()))
            .request_body(self.body);
        if let Some((status, form, mut content)) = self.answer {
            content.example = self.example.or_else(|| examples::response(self.call));
            if self.idempotent {
                let mut record = content.clone();
                record.example.as_mut().and_then(Value::as_object_mut).map(|fields| fields.remove("token"));
                let repeated = ResponseBuilder::new().description("The record of the first request");
                operation = operation.response("200", repeated.content(form, record));
            }
            let answer = ResponseBuilder::new().description("As asked").content(form, content);
            operation = operation.response(status.to_string(), answer);
        }
        for (status, about) in
            ERROR_STATUSES.iter().filter(|(status, _)| self.error_statuses.contains(status))
        {
            let example = examples::problem(*status, about);
            let problem = || {
                let schema = Ref::from_schema_name("Problem");
                ContentBuilder::new().schema(Some(schema)).example(Some(example.clone())).build()
            };
            let refusal = ResponseBuilder::new()
                .description(*about)
                .content(JSON, problem())
                .content("application/problem+json", problem());
            operation = operation.response(status.to_string(), refusal);
        }
        if self.open {
            operation = operation.security(SecurityRequirement::default());
        }
        operation.build()
    }

    fn json_response<T: ToSchema>(mut self, status: u16) -> Self {
        let schema = self.schema_ref::<T>();
        self.response(status, JSON, schema)
    }

    fn schema_ref<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
        T::schemas(&mut self.schemas);
        Ref::from_schema_name(T::name()).into()
    }
}

pub(super) fn of_type(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}
