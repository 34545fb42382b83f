//! Every metric's name, once, with the operator's reading of it. Labels come from the configuration and from words in
//! the code, never from an address, a domain or anything else that a client says: the number of series is bounded.
//!
//! The doc comment of a name is also its `# HELP` text in `/metrics`.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// What a metric counts or measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only rises; read its rate.
    Counter,
    /// A level; read it as it is.
    Gauge,
    /// A distribution, in the fixed buckets given.
    Histogram(&'static [f64]),
}

/// One row of [`ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The name as Prometheus has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The keys of its labels.
    pub labels: &'static [&'static str],
    /// The operator's reading of it.
    pub meaning: &'static str,
}

/// From a commit on a fast disk to an ESP that takes its time, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Operations in one commit.
const OPERATIONS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

macro_rules! declare {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal [$($label:literal),*] $kind:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every metric there is.
        pub const ALL: &[Metric] = &[$(
            Metric { name: $text, kind: $kind, labels: &[$($label),*], meaning: concat!($($doc),+) },
        )+];
    };
}

declare! {
    /// Messages that got their 250: committed and synced. Its rate is what apps hand in; zero while apps send means
    /// that they are refused (see postroad_smtp_refusals_total) or do not reach the listener.
    MESSAGES_ACCEPTED = "postroad_messages_accepted_total" ["listener", "stream"] Kind::Counter;
    /// Recipients that were refused at RCPT for who they are, by reason. suppressed: the recipient may not be mailed.
    /// relay_denied: the client may not send to others; an app that lost its login, or somebody who tries the door.
    /// What else is refused counts in postroad_smtp_refusals_total.
    RECIPIENTS_REFUSED = "postroad_recipients_refused_total" ["stream", "reason"] Kind::Counter;
    /// Logins that were refused, by reason. wrong: name or password; a few are a forgotten password, a lasting rate is
    /// somebody who guesses, and the log has the address. limited: too many failures from that address. undecided:
    /// could not be checked now. The others (off, no_tls, mechanism, for_another, malformed, order, cancelled) are an
    /// app that is set up otherwise than the listener.
    LOGINS_REFUSED = "postroad_logins_refused_total" ["listener", "reason"] Kind::Counter;
    /// Commands refused and connections cut at the SMTP door, by reason: relay_denied, too_large, full,
    /// too_many_errors, …. The log has the client's address. A rate of full or made_room asks for more max_connections,
    /// one of not_now for room on the disk or memory.
    SMTP_REFUSALS = "postroad_smtp_refusals_total" ["listener", "reason"] Kind::Counter;
    /// Attempts by outcome, one for each recipient of a call: accepted, refused (for good or for now), unfit (that ESP
    /// cannot carry the message), unsure (the answer was lost). Any lasting rate of unsure is worth a look: each is
    /// held and may arrive twice.
    ATTEMPTS = "postroad_attempts_total" ["esp", "outcome"] Kind::Counter;
    /// Seconds from the start of a call to an ESP, connecting included, to its answer. Rising at one ESP alone: it is
    /// slow; at all of them: our line or this machine is.
    ATTEMPT_SECONDS = "postroad_attempt_seconds" ["esp"] Kind::Histogram(SECONDS);
    /// Whether an ESP gets mail: 1 it is open; 0.5 it was shut and is on trial, with one message (probing) or ever more
    /// of them (recovering); 0 it is shut, because its calls failed or hung, or suspended by an operator. The others
    /// carry its mail meanwhile; all at 0: mail waits. `postroad esp list` and /esp-status say why.
    ESP_GATE = "postroad_esp_gate" ["esp"] Kind::Gauge;
    /// Recipients that an ESP may still be given before the first of its hourly_limit, daily_limit and monthly_limit is
    /// reached; only for ESPs that have one. At 0 its mail goes to the others, or waits until some of it counts no more.
    ESP_ALLOWANCE_REMAINING = "postroad_esp_allowance_remaining" ["esp"] Kind::Gauge;
    /// Deliveries (one message to one recipient) that are not done, by state: waiting for their turn or the next try,
    /// out at an ESP, unsure (held because an answer was lost), paused by an operator. Waiting that only grows: the
    /// ESPs take less than comes in.
    QUEUE_DELIVERIES = "postroad_queue_deliveries" ["state", "stream"] Kind::Gauge;
    /// Seconds since the oldest message of a stream was taken in that has a delivery which is not done, whatever its
    /// state; zero when there is none. The one to alert on: above the waits of the stream's retry, mail is stuck; at
    /// max_age it is given up.
    QUEUE_OLDEST_SECONDS = "postroad_queue_oldest_seconds" ["stream"] Kind::Gauge;
    /// Whether all sending is paused: 1 an operator paused it, or a backup was restored; mail is taken and waits until
    /// `postroad unpause`. 0 it is not. /readyz says why.
    SENDING_PAUSED = "postroad_sending_paused" [] Kind::Gauge;
    /// Seconds that a commit of the database took, its sync included; what waits for it is not. Above 0.1 the disk is
    /// what apps wait for.
    COMMIT_SECONDS = "postroad_commit_seconds" [] Kind::Histogram(SECONDS);
    /// Operations of mail (an accept, a begin, a settle) that shared one commit; commits without any are not counted.
    /// Near 1 under load means that nothing is grouped.
    COMMIT_BATCH_SIZE = "postroad_commit_batch_size" [] Kind::Histogram(OPERATIONS);
    /// Open SMTP connections. At the listener's max_connections the longest silent client without an accepted recipient
    /// makes room for a newcomer; where there is none, the newcomer is told 421.
    SMTP_CONNECTIONS = "postroad_smtp_connections" ["listener"] Kind::Gauge;
    /// Octets of memory that messages in flight take, those that arrive and those that leave. At limits.memory new
    /// mail is told 452.
    MEMORY_OCTETS = "postroad_memory_octets" [] Kind::Gauge;
    /// Alerts by kind: one each time that something turned bad, not while it stays so. Each has an error line in the log
    /// that says more. no_room, not_stored: the database does not take mail. esp_shut: an ESP's calls fail or hang, or it
    /// refuses the account; it gets no mail. esp_refuses_everybody: it refuses one recipient after the other, which is taken for its own fault.
    /// esp_refuses_every_message: it refuses one message after the other for its content, and takes none between; each is bounced.
    /// sender_refused: it refuses an envelope sender or a From domain, which is to be set up there. esp_missing: mail waits
    /// for an ESP that is not configured. no_esp: none is configured any more, all sending is paused. restored: the database is one that was restored, all sending is paused.
    /// unfit_everywhere: mail waits that no ESP can carry; it is over when none of it waits any more.
    /// request_refused: an ESP says that what it was asked is not as it should be, which only its configuration or Postroad can mend.
    /// assumed: an ESP gave no answer for a transactional mail, twice; it was taken as sent, and nobody knows whether it arrived.
    /// limits_untold: an ESP with rate = "auto" does not tell its limits, what it told last holds.
    /// notify_away, notify_gone: a receiver of `[[notify]]` takes no events, or wants none any more.
    ALERTS = "postroad_alerts_total" ["kind"] Kind::Counter;
    /// Lines of the log that were dropped because standard error did not take them in time. Mail went on; what reads
    /// the log is slow or stands still.
    LOG_LINES_DROPPED = "postroad_log_lines_dropped_total" [] Kind::Counter;
    /// Events that ESPs told by webhook, each once, by kind: sent, deferred, delivered, bounced, dropped (its own list
    /// has the address), rejected, complained, opened, clicked, unsubscribed, …. An ESP whose mail is accepted and whose
    /// delivered stands still: its webhook does not come through; see postroad_webhook_rejected_total.
    WEBHOOK_EVENTS = "postroad_webhook_events_total" ["esp", "kind"] Kind::Counter;
    /// POSTs to a webhook that were not taken, by reason. no_key, wrong, missing, topic, certificate: it could not be
    /// proven that the ESP sent it, because of a setting or because somebody else did. no_certificate: what would prove it
    /// cannot be fetched now. stale: a clock is wrong, or it was recorded and sent again. malformed: it cannot be read. The
    /// log has a line a minute for each.
    WEBHOOK_REJECTED = "postroad_webhook_rejected_total" ["esp", "reason"] Kind::Counter;
    /// Attempts to tell events to a receiver of `[[notify]]`, by outcome: taken; again, it was not taken and is told later;
    /// failed, it is told no more. A rate of again and none of taken: the receiver is away, see
    /// postroad_notifications_waiting and `postroad notify list`.
    NOTIFICATIONS = "postroad_notifications_total" ["receiver", "outcome"] Kind::Counter;
    /// Events that wait for a receiver of `[[notify]]`. Rising: it is away or slow. Mail is never held up by it; what is
    /// older than 24 h ends, and `postroad notify replay --failed` tells it once more.
    NOTIFICATIONS_WAITING = "postroad_notifications_waiting" ["receiver"] Kind::Gauge;
    /// Requests answered at the HTTP port (health, metrics, commands), by class of their status: 2xx (all below 400),
    /// 4xx (the client's mistake, a wrong token too), 5xx (the relay could not answer; /readyz that says not ready).
    HTTP_REQUESTS = "postroad_http_requests_total" ["class"] Kind::Counter;
}

/// What `/metrics` reads.
#[derive(Clone)]
pub struct Handle(PrometheusHandle);

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}")]
pub struct SetUpError(String);

impl Handle {
    /// All metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what histograms gathered since the last call; without it they grow until the next [`Handle::render`].
    /// Call it every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// Makes this process's metrics go to one recorder, each described. Once a process.
pub fn install() -> Result<Handle, SetUpError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| SetUpError(e.to_string()))?;
    Ok(Handle(handle))
}

/// The one recorder of the test process: tests share it, so each looks at labels of its own.
#[cfg(test)]
pub(crate) fn for_tests() -> Handle {
    static HANDLE: std::sync::LazyLock<Handle> = std::sync::LazyLock::new(|| install().unwrap());
    HANDLE.clone()
}

fn recorder() -> Result<PrometheusRecorder, SetUpError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .map_err(|e| SetUpError(e.to_string()))?;
        }
    }
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, describe);
    Ok(recorder)
}

fn describe() {
    for metric in ALL {
        let meaning = metric.meaning.trim();
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, meaning),
            Kind::Gauge => metrics::describe_gauge!(metric.name, meaning),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_ours_has_a_meaning_and_bounded_labels() {
        let from_configuration = ["listener", "stream", "esp", "receiver"];
        let words_in_the_code = ["reason", "outcome", "state", "kind", "class"];
        for metric in ALL {
            assert!(metric.name.starts_with("postroad_"), "{}", metric.name);
            assert!(metric.meaning.trim().len() > 60, "{} says too little", metric.name);
            for (ending, unit) in [("_seconds", "Seconds"), ("_octets", "Octets")] {
                let starts = metric.meaning.trim().starts_with(unit);
                assert_eq!(metric.name.ends_with(ending), starts, "{} begins with its unit", metric.name);
            }
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            for label in metric.labels {
                assert!(
                    from_configuration.contains(label) || words_in_the_code.contains(label),
                    "{} has a label that clients could make: {label}",
                    metric.name
                );
            }
            assert_eq!(ALL.iter().filter(|m| m.name == metric.name).count(), 1, "{} twice", metric.name);
        }
    }

    #[test]
    fn what_is_counted_is_shown_with_its_meaning_and_in_fixed_buckets() {
        let recorder = recorder().unwrap();
        let handle = Handle(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!(MESSAGES_ACCEPTED, "listener" => "127.0.0.1:2525", "stream" => "transactional")
                .increment(3);
            metrics::histogram!(ATTEMPT_SECONDS, "esp" => "sandbox").record(0.004);
        });
        handle.upkeep();
        let text = handle.render();
        assert!(
            text.contains("# HELP postroad_messages_accepted_total Messages that got their 250"),
            "{text}"
        );
        assert!(
            text.contains(
                r#"postroad_messages_accepted_total{listener="127.0.0.1:2525",stream="transactional"} 3"#
            ),
            "{text}"
        );
        assert!(text.contains(r#"postroad_attempt_seconds_bucket{esp="sandbox",le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"postroad_attempt_seconds_bucket{esp="sandbox",le="0.002"} 0"#), "{text}");
    }
}
