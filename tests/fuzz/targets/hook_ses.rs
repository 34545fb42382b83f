//! Any octets as a body of Amazon SES's, in SNS's envelope webhook: it is read or refused, within its bounds, and always alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad::esp::webhook::ProvenBy;
use postroad_fuzz::hooks;

const TOPIC: &str = "arn:aws:sns:us-east-1:111111111111:ses";
fuzz_target!(|data: &[u8]| hooks::hear(
    ProvenBy::Sns { topics: vec![TOPIC.to_owned()], require_v2: false, endpoint: None },
    data
));
