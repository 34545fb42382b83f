//! The secrets of a configuration, which nothing that the relay or a command prints may hold.

use super::esps::{ses, sigv4};

/// Keys of the configuration whose values are secret.
const KEYS: [&str; 6] =
    ["password", "api_key", "server_token", "secret_access_key", "client_secret", "refresh_token"];
/// Words in the names of variables whose values are.
const WORDS: [&str; 4] = ["PASSWORD", "SECRET", "TOKEN", "KEY"];
/// Shorter ones are words that stand in any text.
const SHORTEST: usize = 8;

/// The secrets in a configuration's text and in the variables beside it.
pub fn of(toml: &str, variables: &[(String, String)]) -> Vec<String> {
    let lines = toml.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        let named = value.starts_with("env:") || value.starts_with("file:");
        (KEYS.contains(&key.trim()) && !named).then(|| value.trim_start_matches("literal:").to_owned())
    });
    let variables =
        variables.iter().filter(|(name, _)| WORDS.iter().any(|w| name.to_ascii_uppercase().contains(w)));
    let mut all: Vec<String> = lines.chain(variables.map(|(_, value)| value.clone())).collect();
    if all.iter().any(|secret| secret == ses::SECRET) {
        all.push(sigv4::smtp_password(ses::SECRET, ses::REGION));
    }
    all.retain(|secret| secret.len() >= SHORTEST);
    all
}

/// Fails where `text` holds one of them.
#[track_caller]
pub fn assert_none_in(secrets: &[String], what: &str, text: &str) {
    let told = secrets.iter().find(|secret| text.contains(secret.as_str()));
    assert!(told.is_none(), "{what} tells the secret {told:?}");
}
