//! How an `[[esp]]` of type smtp is logged in to: `auth`, with a password or by OAuth 2.0, and what `provider` knows of
//! it.

use std::path::PathBuf;

use super::kinds;
use super::reader::TableReader;
use crate::esp::settings::{SmtpLogin, SmtpProof};
use crate::mail::{Grant, GrantKind};
use crate::secret::Secret;

/// Keys that `auth = "oauth2"` has.
pub(super) const OAUTH2_KEYS: [&str; 6] =
    ["token_url", "tenant", "client_id", "client_secret", "scope", "refresh_token"];
/// Words that stand for any tenant at Microsoft: they know no program by itself.
const MANY_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    Password,
    OAuth2,
}

const AUTH: &[(&str, Auth)] = &[("password", Auth::Password), ("oauth2", Auth::OAuth2)];

/// A mail service that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Microsoft365,
    Gmail,
}

pub(super) const PROVIDERS: &[(&str, Provider)] =
    &[("microsoft365", Provider::Microsoft365), ("gmail", Provider::Gmail)];

impl Provider {
    fn word(self) -> &'static str {
        PROVIDERS.iter().find(|(_, known)| *known == self).map_or("", |(word, _)| word)
    }

    /// Where it takes mail, by STARTTLS.
    pub(super) fn address(self) -> (&'static str, u16) {
        match self {
            Provider::Microsoft365 => ("smtp.office365.com", 587),
            Provider::Gmail => ("smtp.gmail.com", 587),
        }
    }

    /// What its tokens are to be good for. Microsoft takes no scope by name from a program by itself, and gives the next
    /// refresh token only where it is asked to.
    fn scope(self, refreshes: bool) -> &'static str {
        match self {
            Provider::Microsoft365 if refreshes => "https://outlook.office365.com/SMTP.Send offline_access",
            Provider::Microsoft365 => "https://outlook.office365.com/.default",
            Provider::Gmail => "https://mail.google.com/",
        }
    }
}

/// The login, and what is wrong with it. A token is never asked for with the ESP's own CA at a provider's endpoint.
pub(super) fn read(
    t: &mut TableReader<'_, '_>,
    provider: Option<Provider>,
    ca_file: Option<&PathBuf>,
) -> Option<SmtpLogin> {
    let auth = t.optional("auth", kinds::one_of(AUTH));
    if t.is_wrong("auth") || t.is_wrong("provider") {
        t.pass_over(&OAUTH2_KEYS);
        t.pass_over(&["username", "password"]);
        return None;
    }
    if auth == Some(Auth::OAuth2) {
        return oauth2(t, provider, ca_file);
    }
    if provider == Some(Provider::Microsoft365) {
        t.warning("provider", "Microsoft ends logins with passwords; write auth = \"oauth2\"");
    }
    strangers(t, &OAUTH2_KEYS, "auth = \"oauth2\"");
    password(t)
}

/// Keys that belong to another case; set to nothing they do no harm.
fn strangers(t: &mut TableReader<'_, '_>, keys: &[&'static str], case: &str) {
    for key in keys {
        if t.is_set(key) {
            t.problem(key, format!("is a key for {case} only"));
        }
    }
    t.pass_over(keys);
}

fn password(t: &mut TableReader<'_, '_>) -> Option<SmtpLogin> {
    let username = t.optional("username", kinds::text);
    let password = t.optional("password", kinds::secret);
    match (t.is_set("username"), t.is_set("password")) {
        (true, false) => t.problem("username", "has no password beside it; write password = \"env:NAME\""),
        (false, true) => t.problem("password", "has no username beside it"),
        _ => {}
    }
    Some(SmtpLogin { username: username?, proof: SmtpProof::Password(password?) })
}

fn oauth2(
    t: &mut TableReader<'_, '_>,
    provider: Option<Provider>,
    ca_file: Option<&PathBuf>,
) -> Option<SmtpLogin> {
    strangers(t, &["password"], "auth = \"password\"");
    let username = t.required("username", kinds::text, "\"relay@example.com\", the mailbox");
    let client_id = t.required("client_id", kinds::text, "\"env:NAME\"");
    let kind = grant_kind(t, provider);
    let refreshes = t.is_set("refresh_token");
    let written = t.optional("scope", kinds::text);
    let scope = written.or_else(|| provider.map(|provider| provider.scope(refreshes).to_owned()));
    let token_url = token_url(t, provider, refreshes)?;
    let own_endpoint = provider.is_none() || kinds::on_loopback(&token_url);
    let ca_file = ca_file.filter(|_| own_endpoint).cloned();
    let grant = Grant { token_url, ca_file, client_id: client_id?, scope, kind: kind? };
    Some(SmtpLogin { username: username?, proof: SmtpProof::OAuth2(Box::new(grant)) })
}

/// Which of the two grants, by what there is for it.
fn grant_kind(t: &mut TableReader<'_, '_>, provider: Option<Provider>) -> Option<GrantKind> {
    let client_secret: Option<Secret> = t.optional("client_secret", kinds::secret);
    let refresh_token: Option<Secret> = t.optional("refresh_token", kinds::secret);
    if !t.is_set("refresh_token") && provider == Some(Provider::Gmail) {
        let why = "Google lets no program into a mailbox by itself";
        t.problem("refresh_token", format!("is missing: {why}; write refresh_token = \"env:NAME\""));
    } else if !t.is_set("refresh_token") && !t.is_set("client_secret") {
        t.problem(
            "client_secret",
            "is missing, and no refresh_token is there; write client_secret = \"env:NAME\"",
        );
    }
    match (t.is_set("refresh_token"), refresh_token, client_secret) {
        (true, refresh_token, client_secret) => {
            Some(GrantKind::RefreshToken { refresh_token: refresh_token?, client_secret })
        }
        (false, _, client_secret) => Some(GrantKind::ClientCredentials { client_secret: client_secret? }),
    }
}

/// Written out, or the provider's.
fn token_url(t: &mut TableReader<'_, '_>, provider: Option<Provider>, refreshes: bool) -> Option<String> {
    if provider != Some(Provider::Microsoft365) {
        strangers(t, &["tenant"], "provider = \"microsoft365\"");
    }
    match provider {
        None => t.required("token_url", kinds::token_url(), "\"https://login.example.com/oauth2/token\""),
        Some(Provider::Gmail) => {
            let google = "https://oauth2.googleapis.com/token".to_owned();
            if t.is_set("token_url") { t.optional("token_url", kinds::token_url()) } else { Some(google) }
        }
        Some(Provider::Microsoft365) => {
            let written = t.optional("token_url", kinds::token_url());
            let tenant = t.optional("tenant", kinds::parsed(tenant));
            if t.is_set("token_url") {
                if t.is_set("tenant") {
                    t.problem(
                        "tenant",
                        "is part of a token_url, and that is written too; leave one of them out",
                    );
                }
                return written;
            }
            if !t.is_set("tenant") {
                let such_as = "\"example.com\", a domain of the directory, or its id";
                t.problem("tenant", format!("is missing; write tenant = {such_as}"));
            }
            let tenant = tenant?;
            if !refreshes && MANY_TENANTS.contains(&tenant.as_str()) {
                t.problem(
                    "tenant",
                    format!("{tenant:?} works with a refresh_token only; name the directory"),
                );
            }
            Some(format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"))
        }
    }
}

/// A directory at Microsoft: one part of a path.
fn tenant(text: &str) -> Result<String, String> {
    const CHARS_MAX: usize = 253;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if text.len() <= CHARS_MAX && text.bytes().all(good) && text.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err("is neither the id of a directory nor a domain of it".into())
}

/// Whether the address and TLS are those of the provider; what is wrong is noted.
pub(super) fn check_provider(
    t: &mut TableReader<'_, '_>,
    provider: Provider,
    starttls: bool,
    address: Option<&(String, u16)>,
) {
    let (host, port) = provider.address();
    let word = provider.word();
    if address.is_some_and(|(other, at)| (other.as_str(), *at) != (host, port)) {
        t.problem("address", format!("is not {word}'s, {host}:{port}; leave it out, or provider"));
    }
    if !starttls {
        t.problem("tls", format!("{host}:{port} has tls = \"starttls\"; leave it out, or provider"));
    }
    if !t.is_set("username") && !t.is_set("auth") {
        t.problem("username", format!("is missing: {word} takes no mail without a login"));
    }
}
