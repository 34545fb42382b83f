//! `[[esp]]`: what it means, and what is odd about it.

use super::*;
use crate::esp::settings::SmtpLogin;
use crate::mail::{Grant, GrantKind};

#[test]
fn a_wait_for_an_answer_beyond_the_hold_is_warned_of_where_it_is_written() {
    let warnings = |hold: &str, esp: &str| {
        let stream = format!("[[stream]]\nname = \"transactional\"\nunsure_hold = \"{hold}\"\n");
        let toml = format!(
            "{stream}[[esp]]\nname = \"main\"\ntype = \"smtp\"\naddress = \"mx.example.com:25\"\n{esp}"
        );
        let loaded = Folder::with(&[("postroad.toml", &toml)]).load().unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = warnings("2m", "data_timeout = \"10m\"\n");
    assert_eq!(told.len(), 1, "{told:?}");
    for words in
        ["postroad.toml:8: esp[0].data_timeout: 10m is longer", "stream transactional", "may arrive twice"]
    {
        assert!(told[0].contains(words), "{words} is not in {told:?}");
    }
    assert_eq!(warnings("10m", "data_timeout = \"10m\"\n"), [""; 0]);
    assert_eq!(warnings("2m", ""), [""; 0], "the default is told beside the key");
}

#[test]
fn a_guard_past_which_an_esp_would_bounce_is_warned_of() {
    let warnings = |more: &str| {
        let toml = format!(
            "[[listener]]\nonly_to = [\"@corp.example\"]\n[[credential]]\nusername = \"a\"\npassword = \"p\"\n\
             redirect_to = \"qa@corp.example\"\n[[esp]]\nname = \"main\"\n{more}"
        );
        let loaded = Folder::with(&[("postroad.toml", &toml)]).load().unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let smtp = "type = \"smtp\"\naddress = \"mx.example.com:25\"\n";
    let told = warnings(smtp);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("postroad.toml:2: listener[0].only_to: does not reach the bounces"),
        "{told:?}"
    );
    assert!(told[1].starts_with("postroad.toml:6: credential[0].redirect_to: "), "{told:?}");
    assert!(told[0].ends_with("to: main"), "{told:?}");
    assert_eq!(warnings(&format!("{smtp}envelope_from = \"b@corp.example\"\n")), [""; 0]);
    assert_eq!(warnings("type = \"sandbox\"\n"), [""; 0]);
}

#[test]
fn where_tls_is_misspelt_nothing_is_said_as_if_it_were_off() {
    let toml = "[[listener]]\naddress = \"0.0.0.0:25\"\nauth = \"required\"\ntls = \"startls\"\ncert = \"x\"\n\
                [[credential]]\nusername = \"u\"\npassword = \"p\"\n";
    let problems = Folder::with(&[("postroad.toml", toml)]).load().unwrap_err();
    assert!(problems.to_string().contains("did you mean starttls?") && problems.warnings().is_empty());
}

#[test]
fn a_password_on_loopback_needs_no_tls() {
    let smtp = |address: &str| {
        format!(
            "[[esp]]\nname = \"a\"\ntype = \"smtp\"\naddress = \"{address}\"\ntls = \"off\"\nusername = \"u\"\npassword = \"p\"\n"
        )
    };
    for loopback in ["127.0.0.1:26", "[::1]:26", "localhost:26"] {
        read(&smtp(loopback));
    }
    for other in ["10.0.0.1:26", "localhost.example.com:26", "smtp.example.net:26"] {
        assert!(wrong(&smtp(other)).contains("postroad.toml:5: esp[0].tls: \"off\" would send the password"));
    }
}

/// The login of the one ESP in this file, which is by OAuth 2.0.
fn grant(toml: &str) -> (String, String, u16, Grant) {
    let config = read(&format!("[[esp]]\nname = \"main\"\ntype = \"smtp\"\nauth = \"oauth2\"\n{toml}"));
    let EspKind::Smtp(smtp) = config.esps[0].kind.clone() else { panic!("{:?}", config.esps[0]) };
    match smtp.login {
        Some(SmtpLogin { username, proof: SmtpProof::OAuth2(grant) }) => {
            (username, smtp.host, smtp.port, *grant)
        }
        other => panic!("{other:?}"),
    }
}

const CLIENT: &str = "username = \"relay@example.com\"\nclient_id = \"id\"\nclient_secret = \"s3cret\"\n";

#[test]
fn a_provider_fills_in_what_is_known_of_it() {
    let microsoft = format!("provider = \"microsoft365\"\ntenant = \"example.onmicrosoft.com\"\n{CLIENT}");
    let by_itself = grant(&microsoft);
    assert_eq!(
        (by_itself.0.as_str(), by_itself.1.as_str(), by_itself.2),
        ("relay@example.com", "smtp.office365.com", 587)
    );
    let Grant { token_url, scope, client_id, kind, ca_file } = by_itself.3;
    assert_eq!(token_url, "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token");
    assert_eq!(scope.as_deref(), Some("https://outlook.office365.com/.default"));
    assert_eq!((client_id.as_str(), ca_file), ("id", None));
    assert_eq!(kind, GrantKind::ClientCredentials { client_secret: Secret::new("s3cret") });

    let agreed = grant(&format!("{microsoft}refresh_token = \"r\"\n")).3;
    assert_eq!(agreed.scope.as_deref(), Some("https://outlook.office365.com/SMTP.Send offline_access"));
    let (refresh_token, client_secret) = (Secret::new("r"), Some(Secret::new("s3cret")));
    assert_eq!(agreed.kind, GrantKind::RefreshToken { refresh_token, client_secret });
    let public = microsoft
        .replace("client_secret = \"s3cret\"", "refresh_token = \"r\"")
        .replace("example.onmicrosoft.com", "common");
    assert_eq!(grant(&public).3.kind.client_secret(), None);

    let gmail = grant(&format!("provider = \"gmail\"\n{CLIENT}refresh_token = \"r\"\n"));
    assert_eq!((gmail.1.as_str(), gmail.2), ("smtp.gmail.com", 587));
    assert_eq!(gmail.3.token_url, "https://oauth2.googleapis.com/token");
    assert_eq!(gmail.3.scope.as_deref(), Some("https://mail.google.com/"));
    let own = grant(&format!("provider = \"gmail\"\nscope = \"mine\"\ntoken_url = \"http://[::1]:80/t\"\n{CLIENT}refresh_token = \"r\"\n")).3;
    assert_eq!((own.token_url.as_str(), own.scope.as_deref()), ("http://[::1]/t", Some("mine")));
}

#[test]
fn a_private_ca_counts_for_an_endpoint_of_one_s_own_and_not_for_a_provider_s() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let with_ca = format!("{CLIENT}ca_file = {:?}\n", ca.to_str().unwrap());
    let own = grant(&format!(
        "address = \"smtp.corp.example:587\"\ntoken_url = \"https://login.corp.example/t\"\n{with_ca}"
    ));
    assert_eq!((own.3.ca_file, own.3.scope), (Some(ca.clone()), None));
    let microsoft = format!("provider = \"microsoft365\"\n{with_ca}");
    assert_eq!(grant(&format!("{microsoft}tenant = \"example.com\"\n")).3.ca_file, None);
    assert_eq!(grant(&format!("{microsoft}token_url = \"https://localhost:99/t\"\n")).3.ca_file, Some(ca));
}

#[test]
fn microsoft_s_logins_with_passwords_are_warned_of() {
    let toml = "[[esp]]\nname = \"main\"\ntype = \"smtp\"\nprovider = \"microsoft365\"\nusername = \"u\"\npassword = \"p\"\n";
    let loaded = Folder::with(&[("postroad.toml", toml)]).load().unwrap();
    assert!(loaded.warnings[0].to_string().contains("auth = \"oauth2\""), "{}", loaded.warnings[0]);
}

#[test]
fn only_an_esp_that_can_be_asked_tells_its_own_rate() {
    let ses =
        "[[esp]]\nname = \"a\"\ntype = \"ses\"\nregion = \"eu-west-1\"\nrate = \"auto\"\ndaily_limit = 100\n";
    let limits = read(ses).esps[0].limits;
    assert_eq!((limits.told, limits.rate, limits.windows.daily), (true, None, Some(100)));
    let keys = "access_key_id = \"AKIAEXAMPLE\"\nsecret_access_key = \"hunter2\"\ntransport = \"smtp\"\n";
    assert!(wrong(&format!("{ses}{keys}")).contains("\"auto\" asks the API"));
    let grid = "[[esp]]\nname = \"a\"\ntype = \"sendgrid\"\napi_key = \"hunter2\"\nrate = \"auto\"\n";
    let told = wrong(grid);
    assert!(told.contains("postroad.toml:5: esp[0].rate: \"auto\" is for type = \"ses\""), "{told}");
}

#[test]
fn memory_that_keeps_large_messages_from_an_api_alone_is_warned_of() {
    let warnings = |limits: &str, esp: &str| {
        let toml = format!(
            "[server]\nhostname = \"a.example\"\nlong_lines = \"refuse\"\n[limits]\n{limits}\n[[esp]]\nname = \"up\"\n\
             {esp}\n"
        );
        let loaded = Folder::with(&[("postroad.toml", &toml)]).load().unwrap();
        let of_memory = loaded.warnings.iter().filter(|w| w.key == "limits.memory");
        of_memory.map(|w| w.what.clone()).collect::<Vec<_>>()
    };
    let sendgrid = "type = \"sendgrid\"\napi_key = \"k\"";
    let postmark = "type = \"postmark\"\nserver_token = \"t\"\ntransport = \"api\"";
    let alone = format!("{sendgrid}\ntransport = \"api\"");
    // What a listener takes by default fits the default.
    for (limits, esp) in
        [("", alone.as_str()), ("memory = \"100MB\"", sendgrid), ("memory = \"100MB\"", postmark)]
    {
        let told = warnings(limits, esp);
        assert!(told.is_empty(), "it is carried: {told:?}");
    }
    for (memory, esp) in [("100MB", alone.as_str()), ("80MB", postmark)] {
        let told = warnings(&format!("memory = \"{memory}\""), esp);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("[[esp]] up") && told[0].contains("max_message_size"), "{told:?}");
    }
}
