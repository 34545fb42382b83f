//! The SMTP password of an access key: made of its secret, for one region.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;

/// What the key is signed for, one after the other; the region comes second.
const DATE: &str = "11111111";
const THEN: [&str; 3] = ["ses", "aws4_request", "SendRawEmail"];
/// Of this way to make it.
const VERSION: u8 = 4;

/// The password in that region.
pub(super) fn of(secret: &Secret, region: &str) -> Secret {
    let first = format!("AWS4{}", secret.expose()).into_bytes();
    let steps = [DATE, region].into_iter().chain(THEN);
    let signature =
        steps.fold(first, |key, step| sign(&Key::new(HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec());
    Secret::new(STANDARD.encode([&[VERSION], &signature[..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_amazons_for_its_example_key() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        for (region, password) in [
            ("us-east-1", "BLBM/9hSUELfq8Gw+rU1YcBjkOxGbhT2XG763xVLGWL9"),
            ("eu-west-1", "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk"),
            ("us-west-2", "BF2PynzbSCAjX08zhZZnP/kW+T9P5zs/1Er0pi5vTEmd"),
        ] {
            assert_eq!(of(&secret, region).expose(), password, "{region}");
        }
    }
}
