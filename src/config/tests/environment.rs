//! Where the configuration is found, and what variables say in its place.

use super::*;
use crate::address::{Address, Grammar};

#[test]
fn the_file_is_looked_for_in_order() {
    let named = |name: &str| format!("[server]\nhostname = \"{name}.test\"");
    let (a, b, c, d) = (named("a"), named("b"), named("c"), named("d"));
    let mut folder = Folder::with(&[
        ("postroad.toml", &a),
        ("config/postroad.toml", &b),
        ("etc.toml", &c),
        ("x.toml", &d),
    ]);
    folder.environment.system_file = folder.dir.path().join("etc.toml");
    let host = |folder: &Folder, path: Option<&str>| {
        Config::load(path.map(Path::new), &folder.environment).unwrap().config.server.hostname
    };
    assert_eq!(host(&folder, Some("x.toml")), "d.test");
    let folder = folder.set("POSTROAD_CONFIG", "x.toml");
    assert_eq!(host(&folder, None), "d.test");
    assert_eq!(host(&folder, Some("etc.toml")), "c.test");
    let folder = folder.set("POSTROAD_CONFIG", "");
    for (file, expected) in
        [("postroad.toml", "a.test"), ("config/postroad.toml", "b.test"), ("etc.toml", "c.test")]
    {
        assert_eq!(host(&folder, None), expected);
        std::fs::remove_file(folder.dir.path().join(file)).unwrap();
    }
    assert_eq!(host(&folder, None), "relay.test");
}

#[test]
fn a_dot_env_that_cannot_be_read_is_told() {
    let mut folder =
        Folder::with(&[("postroad.toml", "[[credential]]\nusername = \"a\"\npassword = \"env:SHOP\"\n")]);
    std::os::unix::fs::symlink("gone", folder.dir.path().join(".env")).unwrap();
    let error = Config::load(None, &folder.environment).unwrap_err();
    assert!(error.to_string().contains("SHOP is not set in the process, and .env does not exist"), "{error}");
    assert!(error.warnings()[0].to_string().contains(".env: does not exist; it was passed over"));
    folder = folder.set("SHOP", "sesame-of-the-shop");
    let warnings = Config::load(None, &folder.environment).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.to_string().contains("passed over")), "{warnings:?}");
}

#[test]
fn an_explicit_file_must_be_there() {
    let folder = Folder::with(&[("postroad.toml", ""), ("dir/x", "")]);
    let error = Config::load(Some(Path::new("no.toml")), &folder.environment).unwrap_err().to_string();
    assert_eq!(error, "no.toml: there is no such file; it was named by --config");
    let error = Config::load_again(Path::new("no.toml"), &folder.environment).unwrap_err().to_string();
    assert_eq!(error, "no.toml: there is no such file; the relay was started with it");
    let error = Config::load(Some(Path::new("dir")), &folder.environment).unwrap_err().to_string();
    assert!(error.starts_with("dir: cannot be read"), "{error}");
    let error = folder.set("POSTROAD_CONFIG", "/no/such").problems();
    assert_eq!(error, "/no/such: there is no such file; it was named by $POSTROAD_CONFIG");
}

#[test]
fn twins_stand_in_for_keys() {
    let toml = "[server]\nhostname = \"file.test\"\n[[listener]]\n[[esp]]\nname = \"ses-main\"\ntype = \"sandbox\"\n[[esp]]\nname = \"ses\"\ntype = \"sandbox\"\n";
    let folder = Folder::with(&[
        ("postroad.toml", toml),
        (".env", "POSTROAD__HTTP__ADDRESS=127.0.0.1:1\nPOSTROAD__SERVER__HOSTNAME=dotenv.test"),
    ])
    .set("POSTROAD__SERVER__HOSTNAME", "twin.test")
    .set("POSTROAD__LISTENER__0__ADDRESS", "127.0.0.1:26")
    .set("POSTROAD__LISTENER__0__ALLOW", "127.0.0.1, ::1")
    .set("POSTROAD__LISTENER__0__FROM_REWRITE", "@web1.local = app@example.com, root=ops@example.com")
    .set("POSTROAD__LISTENER__1__MAX_ERRORS", "7")
    .set("POSTROAD__LISTENER__1__ADDRESS", "127.0.0.1:27")
    .set("POSTROAD__LISTENER__1__STRICT_ENVELOPE", "true")
    .set("POSTROAD__ESP__SES_MAIN__KEEP", "env:KEEP")
    .set("KEEP", "8")
    .set("POSTROAD__CREDENTIAL__0__USERNAME", "shop")
    .set("POSTROAD__CREDENTIAL__0__PASSWORD", "pa,ss")
    .set("POSTROAD__SERVER__ORIGIN", "")
    .set("POSTROAD__ESP__SES__KEEP", "9");
    let config = folder.config();
    assert_eq!(config.server.hostname, "twin.test");
    assert_eq!(config.http.address.port(), 1);
    assert_eq!(config.listeners[0].allow.len(), 2);
    let root = Address::bare("root", Grammar::Strict).unwrap();
    let rewritten = config.listeners[0].terms.from_rewrite.instead_of(&root).map(Address::wire);
    assert_eq!(rewritten, Some("ops@example.com"));
    assert_eq!((config.listeners[1].max_errors, config.listeners[1].strict_envelope), (7, true));
    assert_eq!(config.esps[0].kind, EspKind::Sandbox { keep: 8 });
    assert_eq!(config.esps[1].kind, EspKind::Sandbox { keep: 9 });
    assert_eq!(plain(&config, 0), "pa,ss");
}

#[test]
fn ten_tables_by_twins_come_in_the_order_of_their_numbers() {
    let mut folder = Folder::with(&[]);
    for n in 0..12 {
        folder = folder.set(&format!("POSTROAD__LISTENER__{n}__ADDRESS"), &format!("127.0.0.1:{}", 100 + n));
    }
    let ports: Vec<u16> = folder.config().listeners.iter().map(|l| l.address.port()).collect();
    assert_eq!(ports, (100..112).collect::<Vec<_>>());
}

#[test]
fn a_wrong_twin_is_named_by_its_variable() {
    let toml = "[[esp]]\nname = \"main\"\ntype = \"sandbox\"\n";
    let folder = Folder::with(&[("postroad.toml", toml)])
        .set("POSTROAD__SERVR__HOSTNAME", "x")
        .set("POSTROAD__SERVER__HOSTNAM", "x")
        .set("POSTROAD__SERVER", "x")
        .set("POSTROAD__LISTENER__2__ADDRESS", "127.0.0.1:1")
        .set("POSTROAD__LISTENER__ADDRESS", "127.0.0.1:1")
        .set("POSTROAD__ESP__MIAN__KEEP", "1")
        .set("POSTROAD__ESP__MAIN__KEEP", "many")
        .set("POSTROAD__ESP__MAIN__PULL", "1h")
        .set("POSTROAD__HTTP__ADDRESS", "hunter2");
    let problems = folder.problems();
    for expected in [
        "$POSTROAD__SERVR__HOSTNAME: there is no section servr; did you mean server?",
        "$POSTROAD__SERVER__HOSTNAM: server.hostnam: unknown key; did you mean hostname?",
        "$POSTROAD__SERVER: names no key of server",
        "$POSTROAD__LISTENER__2__ADDRESS: there are 0 [[listener]] tables; the next one's number is 0",
        "$POSTROAD__LISTENER__ADDRESS: wants the number of a [[listener]], from 0, and a key, such as POSTROAD__LISTENER__0__KEY",
        "$POSTROAD__ESP__MIAN__KEEP: no [[esp]] in the file has the name mian; did you mean main?",
        "$POSTROAD__ESP__MAIN__KEEP: esp[0].keep: must be a whole number from 1 to 1000000",
        "$POSTROAD__ESP__MAIN__PULL: esp[0].pull: is not available in this version",
        "$POSTROAD__HTTP__ADDRESS: http.address: the value of $POSTROAD__HTTP__ADDRESS is not an IP address",
    ] {
        assert!(problems.contains(expected), "{expected}\nis not in\n{problems}");
    }
    assert_eq!(problems.lines().count(), 9, "{problems}");
}

#[test]
fn a_misspelt_word_by_environment_gets_its_hint_and_is_not_repeated() {
    let problems = Folder::with(&[("postroad.toml", "[[esp]]\nname = \"main\"\ntype = \"env:TYPE\"\n")])
        .set("POSTROAD__LISTENER__0__TLS", "startls")
        .set("POSTROAD__SERVER__LONG_LINES", "hunter2")
        .set("TYPE", "sandbx")
        .problems();
    let expected = "postroad.toml:3: esp[0].type: the value of env:TYPE is not one of \"smtp\", \"ses\", \"sendgrid\", \"postmark\", \"sandbox\"; did you mean sandbox?\n\
        $POSTROAD__LISTENER__0__TLS: listener[0].tls: the value of $POSTROAD__LISTENER__0__TLS is not one of \"off\", \"starttls\", \"implicit\"; did you mean starttls?\n\
        $POSTROAD__SERVER__LONG_LINES: server.long_lines: the value of $POSTROAD__SERVER__LONG_LINES is not one of \"reencode\", \"refuse\"";
    assert_eq!(problems, expected);
}

#[test]
fn a_variable_that_is_nearly_a_twin_is_warned_of_unless_it_is_asked_for() {
    let folder =
        Folder::with(&[("postroad.toml", "[http]\nadmin_token = \"env:POSTROAD_HTTP_ADMIN_TOKEN\"\n")])
            .set("POSTROAD_HTTP_ADMIN_TOKEN", "hunter2")
            .set("POSTROAD_CONFIG", "")
            .set("POSTROAD_HTTP__ADDRESS", "hunter2");
    let warnings = folder.load().unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = "$POSTROAD_HTTP__ADDRESS: has no effect; did you mean POSTROAD__HTTP__ADDRESS?";
    assert_eq!(warnings[0].to_string(), expected);
}

#[test]
fn a_command_finds_the_relay_whatever_else_is_wrong() {
    let toml = "[server]\nhostname = \"env:NO\"\nnonsense = 1\ndata_dir = \"env:DIR\"\n[http]\naddress = \"127.0.0.1:0\"\n[[credential]]\npassword = \"env:NO\"\n";
    let folder = Folder::with(&[("postroad.toml", toml)]).set("DIR", "/srv");
    let location = Config::load_location(None, &folder.environment).unwrap();
    assert_eq!(location.data_dir, Path::new("/srv"));
    assert_eq!(location.http.address.port(), 0);
    assert_eq!(location.path.as_deref(), Some(Path::new("postroad.toml")));
    assert!(folder.load().is_err());
    let folder = Folder::with(&[("postroad.toml", toml)]);
    let problems = Config::load_location(None, &folder.environment).unwrap_err().to_string();
    assert!(
        problems.starts_with("postroad.toml:4: server.data_dir:") && problems.contains(" DIR is not set")
    );
}
