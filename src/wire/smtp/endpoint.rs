//! A token endpoint (RFC 6749 section 3.2): one POST over HTTP/1.1, without redirects or proxies, its answer bounded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::tokens::{Denied, Endpoint, Granted};
use crate::mail::{Answer, Grant};
use crate::secret::Secret;
use crate::wire::trust::{client_config, hint};

/// A larger answer is none.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;
/// AUTH carries no more (RFC 4954 section 4), in base64 and with what stands around it.
const TOKEN_OCTETS_MAX: usize = 8 * 1024;

/// A token endpoint on the network. Its client is made at the first use: reading CAs blocks.
#[derive(Debug, Clone)]
pub(super) struct Http {
    url: String,
    ca_file: Option<PathBuf>,
    client: Arc<OnceCell<reqwest::Client>>,
}

impl Http {
    /// Where this grant's tokens come from.
    pub fn of(grant: &Grant) -> Self {
        Http { url: grant.token_url.clone(), ca_file: grant.ca_file.clone(), client: Arc::default() }
    }

    async fn exchange(self, form: Secret) -> Result<Granted, Denied> {
        let client = self.client.get_or_try_init(|| client(self.ca_file.clone())).await.map_err(lost)?;
        let request = client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.expose().to_owned());
        let mut response = request.send().await.map_err(|e| lost(reasons(e)))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| lost(reasons(e)))? {
            if body.len() + chunk.len() > ANSWER_OCTETS_MAX {
                return Err(lost(format!("it answered more than {} KiB", ANSWER_OCTETS_MAX / 1024)));
            }
            body.extend_from_slice(&chunk);
        }
        read(status, &body, retry_after.as_deref())
    }
}

impl Endpoint for Http {
    fn ask(&self, form: Secret, within: Duration) -> BoxFuture<'static, Result<Granted, Denied>> {
        let endpoint = self.clone();
        async move {
            let met = timeout(within, endpoint.exchange(form)).await;
            met.unwrap_or_else(|_| Err(lost(format!("no answer for {within:?}"))))
        }
        .boxed()
    }
}

async fn client(ca_file: Option<PathBuf>) -> Result<reqwest::Client, String> {
    let tls = client_config(ca_file).await?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // It is asked once an hour.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(reasons)
}

fn lost(what: impl std::fmt::Display) -> Denied {
    Denied::Lost(format!("the token endpoint: {what}"))
}

/// An error with its causes; the URL is the operator's own.
fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let hint = hint(&text);
    text + hint
}

/// What an answer says. Nothing of one that may hold a token is repeated.
fn read(status: u16, body: &[u8], retry_after: Option<&str>) -> Result<Granted, Denied> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    match status {
        200..=299 => granted(&json).map_err(|what| lost(format!("it answered {status}, {what}"))),
        400..=599 => {
            let answer = Answer { code: status, enhanced: None, text: words(&json) };
            Err(Denied::Said(match retry_after {
                Some(value) => answer.with_retry_after(value),
                None => answer,
            }))
        }
        _ => Err(lost(format!("it answered {status}, which is neither a token nor a refusal"))),
    }
}

/// RFC 6749 section 5.1.
fn granted(json: &Value) -> Result<Granted, &'static str> {
    let kind = json["token_type"].as_str();
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("with a token that is no bearer token");
    }
    let Some(access_token) = json["access_token"].as_str() else { return Err("without an access token") };
    let access_token = token(access_token).ok_or("with an access token that no AUTH can carry")?;
    // As text: servers of an older kind.
    let life = &json["expires_in"];
    let seconds = life.as_u64().or_else(|| life.as_f64().map(|s| s as u64));
    let seconds = seconds.or_else(|| life.as_str()?.trim().parse().ok());
    Ok(Granted {
        access_token,
        life: seconds.map(Duration::from_secs),
        refresh_token: json["refresh_token"].as_str().and_then(token),
    })
}

/// Visible ASCII (RFC 6749 appendix A.12), in a size that can be sent on.
fn token(text: &str) -> Option<Secret> {
    let good = (1..=TOKEN_OCTETS_MAX).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    good.then(|| Secret::new(text))
}

/// RFC 6749 section 5.2, in one line.
fn words(json: &Value) -> String {
    let Some(error) = json["error"].as_str() else {
        return "from the token endpoint, which names no error".into();
    };
    let told = json["error_description"].as_str().map(|told| format!(": {told}")).unwrap_or_default();
    let all = format!("from the token endpoint: {error}{told}");
    let line: String = all.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    line.truncate(line.floor_char_boundary(Answer::TEXT_OCTETS_MAX));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_with_its_life_however_that_is_written() {
        for (life, seconds) in [
            (",\"expires_in\":3599", Some(3599)),
            (",\"expires_in\":\"3599\"", Some(3599)),
            (",\"expires_in\":3599.0", Some(3599)),
            (",\"expires_in\":-1", Some(0)),
            (",\"expires_in\":null", None),
            ("", None),
        ] {
            let body = format!(
                "{{\"access_token\":\"t.-_~+/=\",\"token_type\":\"bearer\"{life},\"refresh_token\":\"r\"}}"
            );
            let granted = read(200, body.as_bytes(), None).unwrap();
            assert_eq!(granted.access_token.expose(), "t.-_~+/=");
            assert_eq!(granted.life, seconds.map(Duration::from_secs), "{life}");
            assert_eq!(granted.refresh_token, Some(Secret::new("r")));
        }
    }

    #[test]
    fn an_answer_that_may_hold_a_token_is_not_repeated() {
        let long = format!("{{\"access_token\":\"{}\"}}", "hunter2".repeat(2000));
        for body in [
            "hunter2",
            "{\"token\":\"hunter2\"}",
            "{\"access_token\":\"\"}",
            "{\"access_token\":\"hunter2\\u0001\"}",
            "{\"access_token\":\"hunter2\\r\\nRSET\"}",
            "{\"access_token\":\"hunter2\",\"token_type\":\"mac\"}",
            &long,
        ] {
            match read(200, body.as_bytes(), None) {
                Err(Denied::Lost(said)) => {
                    assert!(said.contains("it answered 200") && !said.contains("hunter2"), "{said}")
                }
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(matches!(read(302, b"", None), Err(Denied::Lost(_))));
    }

    #[test]
    fn a_refusal_has_the_endpoint_s_words() {
        let described = "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret.\\r\\nTrace ID: 1\"}";
        for (status, body, text) in [
            (
                401,
                described,
                "from the token endpoint: invalid_client: AADSTS7000215: Invalid client secret. Trace ID: 1",
            ),
            (400, "{\"error\":\"invalid_grant\"}", "from the token endpoint: invalid_grant"),
            (503, "<html>busy</html>", "from the token endpoint, which names no error"),
        ] {
            for (retry_after, told) in
                [(None, text.to_owned()), (Some("120"), format!("{text} (Retry-After: 120)"))]
            {
                let Err(Denied::Said(answer)) = read(status, body.as_bytes(), retry_after) else {
                    panic!("{body}")
                };
                assert_eq!((answer.code, &answer.text, answer.retry_after()), (status, &told, retry_after));
            }
        }
    }
}
