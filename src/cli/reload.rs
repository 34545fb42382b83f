//! `postroad reload`

use std::io::Write;

use serde_json::json;

use super::failure::field_json;
use super::reach;
use super::text::{json_line, shown};
use super::{Common, Failure};
use crate::http::error::FieldProblem;
use crate::http::reload::Reloaded;

/// Has the relay read its configuration again, and says what is in force now.
pub(super) async fn reload(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    let relay = reach::relay(common).await.map_err(|failure| elsewhere(failure, common))?;
    let done: Reloaded = relay.post("/v1/reload", &json!({})).await?;
    match common.json {
        true => {
            let warnings: Vec<_> = done.warnings.iter().map(field_json).collect();
            Ok(json_line(
                out,
                &json!({ "changed": done.changed, "restart": done.restart, "warnings": warnings }),
            )?)
        }
        false => Ok(tell(&done, out)?),
    }
}

/// The relay is looked for where the file says now.
fn elsewhere(failure: Failure, common: &Common) -> Failure {
    match failure {
        Failure::NoRelay(said) if common.url.is_none() => Failure::NoRelay(format!(
            "{said}. Where [server] data_dir was changed, the relay that runs keeps the one before until a restart: \
             restart it, or send it SIGHUP for the rest"
        )),
        failure => failure,
    }
}

fn tell(done: &Reloaded, out: &mut impl Write) -> std::io::Result<()> {
    for change in &done.changed {
        writeln!(out, "{}: {}", shown(&change.key), shown(&change.what))?;
    }
    if done.changed.is_empty() && done.restart.is_empty() {
        writeln!(out, "nothing has changed")?;
    }
    for change in &done.restart {
        writeln!(
            out,
            "{}: {}, and stays as it was until a restart",
            shown(&change.key),
            shown(&change.what)
        )?;
    }
    let told = |warning: &FieldProblem| shown(&format!("{}: {}", warning.field, warning.message));
    done.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {}", told(warning)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::cli::queue_tests::relay;

    #[tokio::test]
    async fn it_says_what_changed_and_what_wants_a_restart_or_what_is_wrong() {
        let relay = relay().await;
        let mut out = Vec::new();
        reload(&relay.common, &mut out).await.unwrap();
        let told = String::from_utf8(out).unwrap();
        assert_eq!(
            told,
            "esp.a.rate: changed\nhttp.address: changed, and stays as it was until a restart\n\
             warning: esp.a.rate: postroad.toml:3: is odd\n"
        );
        let mut out = Vec::new();
        reload(&Common { json: true, ..relay.common.clone() }, &mut out).await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            told["warnings"],
            json!([{ "key": "esp.a.rate", "message": "is odd", "file": "postroad.toml", "line": 3 }]),
            "as check has them"
        );

        let only_later = Reloaded {
            restart: vec![crate::http::reload::Change::new("http.address", "changed")],
            ..Reloaded::default()
        };
        for (done, told) in [
            (Reloaded::default(), "nothing has changed\n"),
            (only_later, "http.address: changed, and stays as it was until a restart\n"),
        ] {
            let mut out = Vec::new();
            tell(&done, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), told);
        }

        relay.queue.broken.store(true, Ordering::SeqCst);
        let failure = reload(&relay.common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.message().unwrap().ends_with("\n  esp[0].rate: postroad.toml:12: no rate"));
        let mut err = Vec::new();
        failure.tell(true, &mut err).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&err).unwrap();
        assert_eq!(
            (&told["error"]["code"], &told["error"]["problems"][0]["key"]),
            (&json!("configuration"), &json!("esp[0].rate"))
        );
        let keys: Vec<&String> = told["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "problems"], "as every command has it");
    }
}
