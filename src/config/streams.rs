//! `[[stream]]`: the two that exist, changed, and others beside them.

use super::reader::Reader;
use super::{esps, kinds};
use crate::mail::delivery::UnsureThen;
use crate::mail::{StreamKind, StreamName};
use crate::policy::streams::StreamSettings;

const KINDS: &[(&str, StreamKind)] =
    &[("transactional", StreamKind::Transactional), ("broadcast", StreamKind::Broadcast)];

const THEN: &[(&str, UnsureThen)] =
    &[("retry_any", UnsureThen::RetryAny), ("assume_sent", UnsureThen::AssumeSent)];

/// All streams: transactional and broadcast first, then the added ones in the file's order.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<StreamSettings> {
    let mut streams = vec![
        StreamSettings::built_in(StreamKind::Transactional),
        StreamSettings::built_in(StreamKind::Broadcast),
    ];
    let names = esps::names(reader);
    let mut seen: Vec<String> = Vec::new();
    for (n, table) in reader.tables("stream").into_iter().enumerate() {
        let mut t = reader.nth("stream", n, Some(table));
        let name = t.required("name", kinds::name(true), "\"newsletter\"");
        if let Some(name) = &name {
            if seen.contains(name) {
                t.problem("name", format!("there is a [[stream]] {name:?} above"));
            }
            seen.push(name.clone());
        }
        let name = name.unwrap_or_default();
        let existing = streams.iter().position(|stream| stream.name.as_str() == name);
        let kind = match existing.map(|at| streams[at].kind) {
            Some(kind) => {
                if t.read("kind", kinds::one_of(KINDS), kind) != kind {
                    t.problem("kind", format!("the stream {name:?} exists and is of the other kind"));
                }
                kind
            }
            None => t
                .required("kind", kinds::one_of(KINDS), "\"transactional\" or \"broadcast\"")
                .unwrap_or(StreamKind::Transactional),
        };
        let default = StreamSettings::built_in(kind);
        let stream = StreamSettings {
            name: StreamName::new(&name),
            kind,
            retry: t.read("retry", kinds::retry_schedule(), default.retry),
            max_age: t.read("max_age", kinds::duration(), default.max_age),
            unsure_hold: t.read("unsure_hold", kinds::duration(), default.unsure_hold),
            unsure_then: t.optional("unsure_then", kinds::one_of(THEN)).unwrap_or(default.unsure_then),
            esps: t.read("esps", kinds::list_of(esps::named(names.clone())), Vec::new()),
        };
        t.finish(&[]);
        match existing {
            Some(at) => streams[at] = stream,
            None => streams.push(stream),
        }
    }
    streams
}

/// The name of one of these streams.
pub(super) fn named(streams: &[StreamSettings]) -> impl super::reader::Kind<StreamName> {
    kinds::parsed(|text| match streams.iter().find(|stream| stream.name.as_str() == text) {
        Some(stream) => Ok(stream.name.clone()),
        None => {
            let names = streams.iter().map(|stream| stream.name.as_str());
            Err(format!("is no stream{}", super::problem::did_you_mean(text, names)))
        }
    })
}
