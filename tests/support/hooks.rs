//! What ESPs post to a webhook, with the proof that each sends: signed by keys of our own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use postroad::clock::{Clock as _, System, Timestamp};

use crate::support::http::{Answer, post_with};
use crate::support::tls::Pki;

/// What a P-256 key in SPKI begins with.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Seconds since the epoch.
pub fn now_secs() -> u64 {
    System.now().millis().unsigned_abs() / 1000
}

/// SendGrid's side of its webhook.
pub struct Grid(EcdsaKeyPair);

impl Grid {
    pub fn new() -> Self {
        Grid(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    /// As SendGrid shows it.
    pub fn public_key(&self) -> String {
        STANDARD.encode([&SPKI[..], self.0.public_key().as_ref()].concat())
    }

    pub fn post(&self, at: SocketAddr, path: &str, events: &Value) -> Answer {
        self.try_post(at, path, events).unwrap()
    }

    /// `None`: nobody answered.
    pub fn try_post(&self, at: SocketAddr, path: &str, events: &Value) -> Option<Answer> {
        let (body, stamp) = (format!("{events}\r\n"), now_secs().to_string());
        let signature = self.0.sign(&SystemRandom::new(), format!("{stamp}{body}").as_bytes()).unwrap();
        let signature = STANDARD.encode(signature.as_ref());
        let fields = [
            ("Content-Type", "application/json"),
            ("X-Twilio-Email-Event-Webhook-Signature", signature.as_str()),
            ("X-Twilio-Email-Event-Webhook-Timestamp", stamp.as_str()),
        ];
        post_with(at, path, None, &fields, &body)
    }
}

/// Amazon SNS: a topic that signs, and the host that has its certificate.
pub struct Sns {
    key: rsa::KeyPair,
    /// Of the authority that signed its certificate and that of its host.
    pub ca_pem: String,
    /// Where the certificate is.
    pub at: SocketAddr,
    asked: Arc<std::sync::Mutex<Vec<String>>>,
}

pub const TOPIC: &str = "arn:aws:sns:us-east-1:111111111111:ses-events";
const CERTIFICATE: &str = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem";

impl Sns {
    pub fn start() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "Postroad test SNS authority");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let signer = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let leaf = CertificateParams::new(vec!["sns.amazonaws.com".to_owned()]).unwrap();
        let pem = leaf.signed_by(&signer, &issuer).unwrap().pem();
        let key = rsa::KeyPair::from_pkcs8(&signer.serialize_der()).unwrap();
        let host_key = KeyPair::generate().unwrap();
        let host = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let host = host.signed_by(&host_key, &issuer).unwrap();
        let tls =
            Pki { ca_pem: ca_pem.clone(), leaf_pem: host.pem(), key_pem: host_key.serialize_pem() }.server();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(tls.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let (mut head, mut octet) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|n| n > 0) {
                    head.push(octet[0]);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                seen.lock().unwrap().push(line.clone());
                let there = !line.contains(".pem ") || line.contains("-0a1b.pem ");
                let (status, body) = if there { ("200 OK", &pem[..]) } else { ("404 Not Found", "") };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Sns { key, ca_pem, at, asked }
    }

    /// The requests that its host had, each by its first line.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A call of that type, signed.
    pub fn signed(&self, kind: &str, more: &Value) -> Value {
        let mut call = json!({
            "Type": kind, "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": TOPIC,
            "Timestamp": Timestamp::from_millis(System.now().millis()).to_string(),
            "SignatureVersion": "2", "SigningCertURL": CERTIFICATE,
        });
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
        let part = |name: &&str| Some(format!("{name}\n{}\n", call.get(*name)?.as_str()?));
        let text: String = names.iter().filter_map(part).collect();
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        call["Signature"] = json!(STANDARD.encode(signature));
        call
    }

    pub fn post(&self, at: SocketAddr, path: &str, call: &Value) -> Answer {
        let kind = call["Type"].as_str().unwrap();
        let fields = [("Content-Type", "text/plain; charset=UTF-8"), ("x-amz-sns-message-type", kind)];
        post_with(at, path, None, &fields, &call.to_string()).unwrap()
    }
}
