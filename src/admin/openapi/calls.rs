//! The operations of the API, which `calls.toml` lists, with example bodies and responses, which
//! `examples.json` has.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::openapi::{
    ArrayBuilder, Content, ContentBuilder, HttpMethod, ObjectBuilder, PathItem, Ref, RefOr, Required, Schema,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::{RequestBody, RequestBodyBuilder},
    response::ResponseBuilder,
    schema::{SchemaType, Type},
    security::SecurityRequirement,
};

use super::of_type;

/// A method on a path, with its parameters, body and answer.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Call {
    summary: String,
    /// Name, description and type of each parameter of the query.
    query: Vec<(String, String, Type)>,
    /// Takes the parameters of a page.
    paged: bool,
    /// Takes the revision that the caller has read.
    conditional: bool,
    /// Makes a record once, however often the request is repeated.
    idempotent: bool,
    body: Option<String>,
    optional_body: bool,
    /// Takes the form of OAuth's introspection and revocation.
    token_form: bool,
    returns: Option<String>,
    creates: Option<String>,
    lists: Option<String>,
    fields: Vec<(String, Type)>,
    schema: Option<Schema>,
    media_type: Option<String>,
    errors: Vec<u16>,
    /// Needs no authentication.
    open: bool,
}

const JSON: &str = "application/json";

/// The path and the operation of every call.
pub(super) fn all() -> impl Iterator<Item = (String, PathItem)> {
    let calls: BTreeMap<String, Call> =
        toml::from_str(include_str!("calls.toml")).expect("a test reads the calls with the document");
    calls.into_iter().map(|(route, call)| {
        let (method, path) = route.split_once(' ').expect("a route is a method and a path");
        let method = serde_json::from_value(method.to_ascii_lowercase().into());
        let method: HttpMethod = method.expect("a route begins with a method");
        (path.to_owned(), PathItem::new(method, call.build(&route)))
    })
}

impl Call {
    /// `route` is the method and the path: `GET /v1/users`.
    fn build(self, route: &str) -> Operation {
        let (method, path) = route.split_once(' ').unwrap_or_default();
        let mut segments = path.split('/').skip(1);
        let (first, second) = (segments.next(), segments.next());
        let mut operation = OperationBuilder::new()
            .operation_id(Some(route))
            .summary(Some(&self.summary))
            .tag(second.or(first).unwrap_or_default())
            .parameters(Some(self.parameters(path)).filter(|all| !all.is_empty()))
            .request_body(self.request_body());
        let (status, content) = self.answer(route);
        let media_type = self.media_type.as_deref().unwrap_or(JSON);
        if self.idempotent {
            let mut record = content.clone();
            record.example.as_mut().and_then(Value::as_object_mut).map(|fields| fields.remove("token"));
            let repeated = ResponseBuilder::new().description("The record of the first request");
            operation = operation.response("200", repeated.content(media_type, record));
        }
        let answer = ResponseBuilder::new().description("As asked").content(media_type, content);
        operation = operation.response(status, answer);
        let errors = self.error_statuses(method, path);
        for (status, about) in statuses().filter(|(status, _)| errors.contains(status)) {
            let example = problem_example(status, about);
            let problem = || {
                let schema = Ref::from_schema_name("Problem");
                ContentBuilder::new().schema(Some(schema)).example(Some(example.clone())).build()
            };
            let refusal = ResponseBuilder::new()
                .description(about)
                .content(JSON, problem())
                .content("application/problem+json", problem());
            operation = operation.response(status.to_string(), refusal);
        }
        if self.open {
            operation = operation.security(SecurityRequirement::default());
        }
        operation.build()
    }

    fn parameters(&self, path: &str) -> Vec<Parameter> {
        let parameter = |place: ParameterIn, name: &str, about: Option<&str>, schema: ObjectBuilder| {
            let required = if place == ParameterIn::Path { Required::True } else { Required::False };
            let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
            parameter.description(about).schema(Some(schema)).build()
        };
        let text = || of_type(Type::String);
        let in_path =
            names_in(path).map(|name| parameter(ParameterIn::Path, name, None, text().min_length(Some(1))));
        let in_query = self.query.iter().map(|(name, about, kind)| {
            parameter(ParameterIn::Query, name, Some(about), of_type(kind.clone()))
        });
        let mut parameters: Vec<_> = in_path.chain(in_query).collect();
        if self.paged {
            let limit = of_type(Type::Integer).minimum(Some(1)).maximum(Some(1000));
            let about = "`next` of the page before";
            parameters.push(parameter(ParameterIn::Query, "cursor", Some(about), text()));
            let about = "Rows on a page; 100 by default";
            parameters.push(parameter(ParameterIn::Query, "limit", Some(about), limit));
        }
        if self.conditional {
            let about = "The record's `ETag` as it was read: 412 if it has changed since";
            parameters.push(parameter(ParameterIn::Header, "If-Match", Some(about), text()));
        }
        if self.idempotent {
            let about = "1 to 255 visible characters: the same request with the same key gets the first record for a \
                         day, with 200 and without the text";
            parameters.push(parameter(ParameterIn::Header, "Idempotency-Key", Some(about), text()));
        }
        parameters
    }

    fn request_body(&self) -> Option<RequestBody> {
        let (media_type, schema, example): (_, RefOr<Schema>, _) = match &self.body {
            Some(name) => (JSON, Ref::from_schema_name(name).into(), example_of("bodies", name)),
            None if self.token_form => {
                let form = ObjectBuilder::new()
                    .property("token", of_type(Type::String))
                    .property("token_type_hint", of_type(Type::String))
                    .required("token");
                ("application/x-www-form-urlencoded", form.into(), Some(json!({"token": TOKEN_TEXT})))
            }
            None => return None,
        };
        let content = ContentBuilder::new().schema(Some(schema)).example(example).build();
        let required = if self.optional_body { Required::False } else { Required::True };
        Some(RequestBodyBuilder::new().content(media_type, content).required(Some(required)).build())
    }

    /// The status of a success, and its body.
    fn answer(&self, route: &str) -> (&'static str, Content) {
        let named = |name: &String| RefOr::<Schema>::from(Ref::from_schema_name(name));
        let (status, schema, example) = match (&self.returns, &self.creates, &self.lists) {
            (Some(name), ..) => ("200", named(name), example_of("schemas", name)),
            (_, Some(name), _) => ("201", named(name), created_example(name)),
            (.., Some(name)) => {
                let cursor =
                    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
                let page = ObjectBuilder::new()
                    .property("items", ArrayBuilder::new().items(named(name)))
                    .property("next", cursor)
                    .required("items")
                    .required("next");
                let example = example_of("schemas", name).map(|item| json!({"items": [item], "next": null}));
                ("200", page.into(), example)
            }
            (None, None, None) => {
                let fields = || {
                    let object = self.fields.iter().fold(ObjectBuilder::new(), |object, (name, kind)| {
                        object.property(name, of_type(kind.clone())).required(name)
                    });
                    object.into()
                };
                ("200", self.schema.clone().unwrap_or_else(fields).into(), None)
            }
        };
        let example = example.or_else(|| example_of("calls", route));
        (status, ContentBuilder::new().schema(Some(schema)).example(example).build())
    }

    fn error_statuses(&self, method: &str, path: &str) -> Vec<u16> {
        // Removals are not rate limited.
        let of_parts: [(bool, &[u16]); 6] = [
            (true, &[400, 401, 403, 421, 503]),
            (path.contains('{'), &[404]),
            (matches!(method, "POST" | "PUT" | "PATCH"), &[429]),
            (self.body.is_some(), &[413, 415, 422]),
            (self.token_form, &[413, 415]),
            (self.conditional, &[412]),
        ];
        let of_parts = of_parts.iter().filter(|(applies, _)| *applies).flat_map(|(_, statuses)| *statuses);
        of_parts.chain(&self.errors).copied().collect()
    }
}

/// The names in the braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples.json")).expect("a test reads the examples with the document")
});

/// The body of a request (`bodies`) or a response (`schemas`) by the name of its schema, or the response to
/// a call such as `GET /v1/whoami` whose schema has no name (`calls`).
fn example_of(of: &str, name: &str) -> Option<Value> {
    EXAMPLES[of].get(name).cloned()
}

/// The example of a response that creates a record; a token's also has its text.
fn created_example(schema: &str) -> Option<Value> {
    let mut example = example_of("schemas", schema)?;
    if schema == "Token" {
        example["token"] = TOKEN_TEXT.into();
        example["cut"] = 0.into();
    }
    Some(example)
}

/// Every status of a refusal, with the codes that come with it.
fn statuses() -> impl Iterator<Item = (u16, &'static str)> {
    let statuses = EXAMPLES["statuses"].as_object().into_iter().flatten();
    statuses.filter_map(|(status, codes)| Some((status.parse().ok()?, codes.as_str()?)))
}

/// The body of a refusal, with the first of the codes that `codes` lists for its status.
fn problem_example(status: u16, codes: &str) -> Value {
    let code = codes.split('`').nth(1).unwrap_or("internal");
    let description = EXAMPLES["problems"][code].as_str().unwrap_or("What is wrong, in a sentence");
    json!({"error": code, "error_description": description, "status": status, "request_id": REQUEST})
}

const TOKEN_TEXT: &str = "pgt_A1iceYt00001_...";
const REQUEST: &str = "019b76daa80070008000000000000002";
