//! A POST to a URL of the relay's own, from outside as it were: by name, over TLS, without redirects, proxy or patience.

use std::future::pending;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::timeout;

use super::http::{Client, causes, read, told};
use crate::mail::HttpReply;
use crate::secret::Secret;

/// Name, connect, TLS and the answer.
const WITHIN: Duration = Duration::from_secs(15);

/// What to do where no public CA signed: no key of the configuration is about the relay's own URL.
const PRIVATE_CA: &str = " (its CA is unknown on this machine, and an ESP will not know it either: public_url wants a \
    certificate of a public CA. To try it behind a private one all the same, put that CA among the system's, or name a PEM \
    file with it in SSL_CERT_FILE, in the relay's environment)";

/// Posts JSON there with these fields; the answer, whatever its status.
///
/// Errors: there was none; in words, without the fields.
pub async fn knock(url: &str, fields: &[(String, Secret)], body: String) -> Result<HttpReply, String> {
    let knocking = async {
        let client = Client::new(None, 0, WITHIN);
        let mut request = client.get().await?.post(url).header(CONTENT_TYPE, "application/json").body(body);
        for (name, value) in fields {
            let (Ok(field), Ok(mut value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.expose()))
            else {
                return Err(format!("the field {name} cannot be written into a request"));
            };
            value.set_sensitive(true);
            request = request.header(field, value);
        }
        let answer = request.send().await.map_err(|error| failed(&error))?;
        Ok(read(answer, pending()).await)
    };
    let late = |_| Err(format!("no answer for {} s", WITHIN.as_secs()));
    timeout(WITHIN, knocking).await.unwrap_or_else(late)
}

fn failed(error: &reqwest::Error) -> String {
    let words = causes(std::error::Error::source(error));
    if words.contains("UnknownIssuer") { words + PRIVATE_CA } else { told(error) }
}
