//! The contract: the OpenAPI document, made from the same table as the router, and what is read back from it: the scope
//! that each route wants, and the lines of the front page.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::App;
use super::error::{ErrorBody, ErrorDetail, FieldProblem};
use super::hooks::HookTaken;
use super::scope::{SCOPES, Scope};
use super::send::SEND_PATH;

use crate::mail::asks::VALUE_OCTETS_MAX;

/// The methods of OpenAPI that we have.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// The name of the one security scheme.
const BEARER: &str = "bearer";

/// The document before any route is in it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postroad",
        description = "One local SMTP door to every email service provider. Every error is an ErrorBody.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(ErrorBody, ErrorDetail, FieldProblem, HookTaken))
)]
pub(super) struct Blank;

/// A route as the document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// In capitals.
    pub(super) method: String,
    /// With `{name}` where a part varies.
    pub(super) path: String,
    /// What it is for.
    pub(super) what: String,
    /// What a token needs; `None`: no token is asked for.
    pub(super) scope: Option<Scope>,
}

/// What the document says, ready to be served and asked.
pub(super) struct Contract {
    document: Bytes,
    lines: Vec<Line>,
    scopes: HashMap<(String, String), Option<Scope>>,
}

impl Contract {
    /// From the document that the router gathered.
    pub(super) fn of(api: &utoipa::openapi::OpenApi) -> Self {
        let mut document = serde_json::to_value(api).unwrap_or_default();
        let lines = lines(&document);
        complete(&mut document, &lines);
        let scopes = lines.iter().map(|l| ((l.method.clone(), l.path.clone()), l.scope)).collect();
        Contract { document: Bytes::from(document.to_string()), lines, scopes }
    }

    /// Every route, by path.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What a token needs for this method of this path: `None` where the document has no such method; `Some(None)`
    /// where none is asked for.
    pub(super) fn scope(&self, method: &str, path: &str) -> Option<Option<Scope>> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.scopes.get(&(method.to_owned(), path.to_owned())).copied()
    }

    /// Whether any method of this path asks for a token.
    pub(super) fn is_guarded(&self, path: &str) -> bool {
        self.lines.iter().any(|line| line.path == path && line.scope.is_some())
    }
}

fn lines(document: &Value) -> Vec<Line> {
    let Some(paths) = document["paths"].as_object() else { return Vec::new() };
    let mut lines = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let what = operation["summary"].as_str().unwrap_or_default().trim_end_matches('.').to_owned();
            lines.push(Line {
                method: method.to_uppercase(),
                path: path.clone(),
                what,
                scope: scope_of(operation),
            });
        }
    }
    lines
}

/// The scope that an operation's `security` names. One that names what is no scope wants the most.
fn scope_of(operation: &Value) -> Option<Scope> {
    let named = operation["security"].as_array()?.first()?.get(BEARER)?;
    let word = named.as_array().and_then(|names| names.first()).and_then(Value::as_str);
    Some(word.and_then(|word| word.parse().ok()).unwrap_or(Scope::Admin))
}

/// What holds for all routes is said once, here: the token, and the shape of errors.
fn complete(document: &mut Value, lines: &[Line]) {
    let scopes = SCOPES.map(Scope::word).join(", ");
    document["components"]["securitySchemes"] = json!({ BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": format!(
            "The token in admin.token in the data directory (or http.admin_token), which may do everything, or one made \
             with POST /v1/tokens, which has scopes of {scopes}; admin has all."
        ),
    }});
    let error = |what: &str| {
        json!({
            "description": what,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/ErrorBody" } } },
        })
    };
    for line in lines {
        let operation = &mut document["paths"][&line.path][line.method.to_lowercase()];
        operation["operationId"] = json!(operation_id(line));
        let responses = &mut operation["responses"];
        responses["default"] = error("It was not done; code and message say why");
        if let Some(scope) = line.scope {
            responses["401"] = error("No token, or one that is not known");
            responses["429"] = error("Asked too often; Retry-After says when to come again");
            responses["403"] = error(&format!("The token has not the scope {scope}"));
            if line.method == "POST" && line.path != SEND_PATH {
                responses["409"] =
                    error("Not possible now; or the first request with this key is being done");
                responses["422"] = error("The key was another request's");
                add_key(operation);
            }
        }
    }
}

fn add_key(operation: &mut Value) {
    let key = json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "schema": { "type": "string", "minLength": 1, "maxLength": VALUE_OCTETS_MAX },
        "description": "Done once: the same key of the same token gets the first answer for 24 h, until the relay starts again",
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(key),
        None => operation["parameters"] = json!([key]),
    }
}

/// One name for each method of each path: two handlers may have the same.
fn operation_id(line: &Line) -> String {
    let words = line.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(line.method.to_lowercase(), |id, word| format!("{id}_{word}"))
}

/// this document, in OpenAPI 3.1
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "The document", body = Object, content_type = "application/json"))
)]
pub(super) async fn document(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.contract.document.clone())
}
