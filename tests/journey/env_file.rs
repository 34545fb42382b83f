//! What generated passwords hold reaches AUTH octet for octet, through `.env` and both ways of naming a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Client, Relay, Upstream};

#[test]
fn passwords_in_dot_env_are_not_cut_expanded_or_decoded() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "from a file # $HOME\n").unwrap();
    let credentials = format!(
        "[[credential]]\nusername = \"hash\"\npassword = \"env:T_HASH\"\n\
         [[credential]]\nusername = \"single\"\npassword = \"env:T_SINGLE\"\n\
         [[credential]]\nusername = \"double\"\npassword = \"env:T_DOUBLE\"\n\
         [[credential]]\nusername = \"process\"\npassword = \"env:T_PROCESS\"\n\
         [[credential]]\nusername = \"file\"\npassword = \"file:{}\"\n\
         [[credential]]\nusername = \"literal\"\npassword = \"literal:env:x\"\n",
        secret_file.display()
    );
    let dot_env = "# a comment\n\nT_HASH=7#x$HOME%41/+=\"q' \nT_SINGLE='8 \\n$x #y'\nT_DOUBLE=\"a\\\\b\\\"c\"\nT_PROCESS=loses\n";
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"required\"")
        .tables(&credentials)
        .file(".env", dot_env)
        .env("T_PROCESS", "wins")
        .start();
    for (user, password) in [
        ("hash", "7#x$HOME%41/+=\"q'"),
        ("single", "8 \\n$x #y"),
        ("double", "a\\b\"c"),
        ("process", "wins"),
        ("file", "from a file # $HOME"),
        ("literal", "env:x"),
    ] {
        let mut client = Client::hello(relay.smtp());
        let text = STANDARD.encode(format!("\0{user}\0{password}"));
        let reply = client.say(&format!("AUTH PLAIN {text}")).reply();
        assert_eq!(reply.code, 235, "{user}: {}", reply.raw);
    }
    assert!(!relay.log().contains("$HOME"), "a secret in the log");
}

#[test]
fn a_hash_of_a_password_opens_as_the_password_does() {
    let upstream = Upstream::start();
    // argon2id of `correct horse`, as the usual tools print it.
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21l$";
    let Some(hash) = hash_of(hash, "correct horse") else { return };
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"required\"")
        .tables(&format!("[[credential]]\nusername = \"shop\"\npassword_hash = '{hash}'\n"))
        .start();
    assert_eq!(relay.client().auth_plain("shop", "correct horse").code, 235);
    assert_eq!(relay.client().auth_plain("shop", "correct horse").code, 235, "remembered");
    assert_eq!(relay.client().auth_plain("shop", "wrong horse").code, 535);
}

/// The whole PHC text for the parameters and salt in `start`.
fn hash_of(start: &str, password: &str) -> Option<String> {
    use argon2::{Algorithm, Argon2, Params, Version};
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let salt = STANDARD_NO_PAD.decode(start.split('$').nth(4)?).ok()?;
    let mut out = [0; 32];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(19_456, 2, 1, Some(32)).ok()?);
    argon.hash_password_into(password.as_bytes(), &salt, &mut out).ok()?;
    Some(format!("{start}{}", STANDARD_NO_PAD.encode(out)))
}
