//! Deliveries: the relay, as it is built for release, with one ESP. Its queue is filled while sending is paused; the time
//! is from `unpause` until every message was accepted over there.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postroad::clock::monotonic;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{CALLS, Failure, content, cpu_seconds};

/// Connections that hand the mail in.
const APPS: usize = 50;
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// It starts, or is done, within this time.
const BOUND: Duration = Duration::from_secs(120);

/// The lines of each `[[esp]]`, the plain upstream first; the others by their API.
pub fn esps(smtp: SocketAddr, http: SocketAddr) -> Vec<(&'static str, String)> {
    let key = "a-key-of-a-benchmark";
    let api = format!("transport = \"api\"\nendpoint = \"http://{http}\"\nwebhook_auth = \"none\"");
    vec![
        (
            "smtp",
            format!(
                "type = \"smtp\"\naddress = \"{smtp}\"\ntls = \"off\"\nmessages_per_connection = 1000000"
            ),
        ),
        ("sendgrid", format!("type = \"sendgrid\"\napi_key = \"{key}\"\n{api}")),
        ("postmark", format!("type = \"postmark\"\nserver_token = \"{key}\"\n{api}")),
        (
            "ses",
            format!(
                "type = \"ses\"\nregion = \"eu-central-1\"\naccess_key_id = \"AKIDEXAMPLE\"\n\
                 secret_access_key = \"{key}\"\n{api}"
            ),
        ),
    ]
}

/// How long so many messages take through that ESP, and the relay's seconds of CPU meanwhile.
pub async fn drained(esp: &str, messages: usize) -> Result<(Duration, f64), Failure> {
    let relay = Relay::start(esp).await?;
    relay.post("pause", "{\"reason\":\"bench\"}").await?;
    fill(relay.smtp, messages).await?;
    let (began, before) = (monotonic(), relay.cpu_seconds()?);
    relay.post("unpause", "{}").await?;
    let until = began + BOUND;
    while relay.accepted().await? < messages {
        if monotonic() > until {
            return Err("the queue is not drained in time".into());
        }
        sleep(LOOK).await;
    }
    Ok((monotonic().duration_since(began), relay.cpu_seconds()? - before))
}

/// A relay with a folder of its own.
struct Relay {
    process: Child,
    smtp: SocketAddr,
    base: String,
    token: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Relay {
    async fn start(esp: &str) -> Result<Relay, Failure> {
        let folder = tempfile::Builder::new().prefix("postroad-bench").tempdir_in(
            std::env::var_os("BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into_os_string()),
        )?;
        let (smtp, http) = (free_port()?, free_port()?);
        let config = folder.path().join("postroad.toml");
        let data = folder.path().join("data");
        std::fs::write(
            &config,
            format!(
                "[server]\nhostname = \"bench.example\"\ndata_dir = {data:?}\n[[listener]]\naddress = \"{smtp}\"\n\
                 [http]\naddress = \"{http}\"\n[[esp]]\nname = \"up\"\nmax_connections = {CALLS}\n{esp}\n"
            ),
        )?;
        let log = folder.path().join("log");
        let process = Command::new(env!("CARGO_BIN_EXE_postroad"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut relay = Relay {
            process,
            smtp,
            base: format!("http://{http}"),
            token: String::new(),
            client: reqwest::Client::builder().no_proxy().build()?,
            _folder: folder,
        };
        relay.ready(&data, &log).await?;
        Ok(relay)
    }

    async fn ready(&mut self, data: &Path, log: &Path) -> Result<(), Failure> {
        let until = monotonic() + BOUND;
        loop {
            let token = std::fs::read_to_string(data.join("admin.token")).unwrap_or_default();
            if !token.is_empty() && TcpStream::connect(self.smtp).await.is_ok() {
                self.token = token.trim().to_owned();
                return Ok(());
            }
            if self.process.try_wait()?.is_some() || monotonic() > until {
                return Err(format!("the relay does not start: {}", std::fs::read_to_string(log)?).into());
            }
            sleep(LOOK).await;
        }
    }

    async fn post(&self, route: &str, body: &'static str) -> Result<(), Failure> {
        let asked = self.client.post(format!("{}/v1/{route}", self.base)).bearer_auth(&self.token);
        let answer = asked.header("content-type", "application/json").body(body).send().await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("{route}: {} {}", answer.status(), answer.text().await?).into()),
        }
    }

    /// How many messages the ESP has taken. Any other answer ends the measurement.
    async fn accepted(&self) -> Result<usize, Failure> {
        let metrics = self.client.get(format!("{}/metrics", self.base)).send().await?.text().await?;
        let mut accepted = 0;
        for line in metrics.lines().filter(|line| line.starts_with("postroad_attempts_total{")) {
            let count = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
            match line.contains("outcome=\"accepted\"") {
                true => accepted += count,
                false if count > 0 => return Err(line.to_owned().into()),
                false => {}
            }
        }
        Ok(accepted)
    }

    fn cpu_seconds(&self) -> Result<f64, Failure> {
        cpu_seconds(&self.process.id().to_string())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Hands so many messages in.
async fn fill(smtp: SocketAddr, messages: usize) -> Result<(), Failure> {
    let left = Arc::new(AtomicUsize::new(messages));
    let apps: Vec<_> = (0..APPS).map(|_| tokio::spawn(app(smtp, Arc::clone(&left)))).collect();
    for app in apps {
        app.await??;
    }
    Ok(())
}

async fn app(smtp: SocketAddr, left: Arc<AtomicUsize>) -> Result<(), Failure> {
    let mut line = BufReader::new(TcpStream::connect(smtp).await?);
    expect(&mut line, "220").await?;
    line.write_all(b"EHLO app.example\r\n").await?;
    expect(&mut line, "250").await?;
    let labels = "X-Postroad-Tag: receipt\r\nX-Postroad-Metadata-order: 7\r\n";
    let content = format!("{labels}{}.\r\n", content());
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        line.write_all(b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<jane@example.org>\r\nDATA\r\n").await?;
        for code in ["250", "250", "354"] {
            expect(&mut line, code).await?;
        }
        line.write_all(content.as_bytes()).await?;
        expect(&mut line, "250").await?;
    }
    Ok(())
}

/// Reads one reply.
async fn expect(line: &mut BufReader<TcpStream>, code: &str) -> Result<(), Failure> {
    loop {
        let mut text = String::new();
        line.read_line(&mut text).await?;
        match text.strip_prefix(code) {
            Some(rest) if rest.starts_with('-') => {}
            Some(_) => return Ok(()),
            None => return Err(format!("wanted {code}, and got {text:?}").into()),
        }
    }
}
