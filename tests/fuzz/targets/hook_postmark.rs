//! Any octets as a body of Postmark's webhook: it is read or refused, within its bounds, and always alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad::esp::webhook::{PostmarkProof, PostmarkStreams, ProvenBy};
use postroad_fuzz::hooks;

fuzz_target!(|data: &[u8]| hooks::hear(ProvenBy::Postmark {
        proof: PostmarkProof::default(),
        streams: PostmarkStreams::default()
    }, data));
