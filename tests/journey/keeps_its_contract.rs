//! The contract that `/openapi.json` tells is a valid document, and the relay keeps to it whatever it is sent.

use std::process::Command;

use crate::support::{Relay, Upstream};

/// Cases of each route and phase.
const CASES: &str = "30";
/// What no answer may do. What a client sent that fits the document may still be refused: an id that names nothing does.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// `POSTROAD_SCHEMATHESIS` names the folder with the programs `st` and `openapi-spec-validator`.
#[test]
fn no_answer_is_outside_the_contract() {
    let Ok(programs) = std::env::var("POSTROAD_SCHEMATHESIS") else {
        println!("SKIPPED: POSTROAD_SCHEMATHESIS names no folder with st and openapi-spec-validator");
        return;
    };
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let document = relay.folder().join("openapi.json");
    std::fs::write(&document, relay.get("/openapi.json").unwrap().body).unwrap();
    let valid = Command::new(format!("{programs}/openapi-spec-validator")).arg(&document).output().unwrap();
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stdout));

    let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
    let ran = Command::new(format!("{programs}/st"))
        .current_dir(relay.folder())
        .env("NO_PROXY", "*")
        .args(["run", "--no-color", "--continue-on-failure", "--phases", "examples,coverage,fuzzing"])
        .args(["-n", CASES, "-c", CHECKS])
        // It takes no mail while it is being asked so much: 503 is its answer then, and in the contract.
        .args(["--exclude-path", "/readyz"])
        // It would make files all over the disk.
        .args(["--exclude-path", "/v1/backup"])
        .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
        .arg(format!("http://{}/openapi.json", relay.http().unwrap()))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(relay.is_ready(), "it takes mail still");
}
