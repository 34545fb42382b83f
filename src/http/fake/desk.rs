//! The ESPs, as routes and commands ask about them.

use super::*;

impl Fake {
    pub(super) fn status(&self, esp: &str) -> Result<EspStatus, DeskError> {
        let esps = self.esps.lock().unwrap();
        let Some(n) = esps.iter().position(|known| known == esp) else {
            return Err(DeskError::NoSuchEsp { name: esp.into(), known: esps.join(", ") });
        };
        let suspension = self.suspended.lock().unwrap().get(esp).cloned();
        Ok(EspStatus {
            name: esp.into(),
            priority: n as u32 + 1,
            weight: 100,
            gate: if suspension.is_some() { "suspended" } else { "open" },
            why: suspension.as_ref().map(|s| format!("suspended: {}", s.reason)),
            suspension,
            begun: n,
            max_connections: 10,
            learnt_connections: None,
            allowance_remaining: (n == 0).then_some(42),
            usual_seconds: 0.012_345,
            rate_opens_at: (n == 1).then_some(DUE),
            closed_senders: if n == 1 { vec![("mail From shop.example".into(), DUE)] } else { Vec::new() },
            alerts: match n {
                1 => vec![("esp_refuses_every_message", "b: refuses one message after the other".into())],
                _ => Vec::new(),
            },
            last_error: (n == 1).then(|| (ACCEPTED, "connection refused\u{1b}[2J".into())),
        })
    }

    fn standings(&self) -> Vec<Standing> {
        let standing = |(n, esp): (usize, &String)| {
            let suspension = self.suspended.lock().unwrap().get(esp).cloned();
            Standing {
                name: esp.clone(),
                priority: n as u32 + 1,
                weight: 100,
                rank: suspension.is_none().then_some(n),
                why: suspension.map(|s| PassedOver::Suspended { reason: s.reason, until: s.until }),
                rate_opens_at: (n == 1).then_some(DUE),
            }
        };
        self.esps.lock().unwrap().iter().enumerate().map(standing).collect()
    }
}

impl Desk for Fake {
    fn statuses(&self) -> Vec<EspStatus> {
        let esps = self.esps.lock().unwrap().clone();
        esps.iter().map(|esp| self.status(esp).unwrap()).collect()
    }

    fn suspend<'a>(
        &'a self,
        esp: &'a str,
        reason: &'a str,
        for_how_long: Option<Duration>,
    ) -> BoxFuture<'a, Result<EspStatus, DeskError>> {
        let until = for_how_long.map(|time| DUE.plus(time));
        let suspend = |_| {
            let suspension = Suspension { reason: reason.into(), since: DUE, until };
            self.suspended.lock().unwrap().insert(esp.into(), suspension);
            self.status(esp)
        };
        std::future::ready(self.status(esp).and_then(suspend)).boxed()
    }

    fn resume<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<EspStatus, DeskError>> {
        self.suspended.lock().unwrap().remove(esp);
        std::future::ready(self.status(esp)).boxed()
    }

    fn try_esp<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<Tried, DeskError>> {
        let step =
            |name, told: &str| Step { name, ok: true, told: told.into(), took: Duration::from_millis(3) };
        let tried = |status: EspStatus| Tried {
            steps: vec![step("connect", "192.0.2.1:587"), step("auth", "no login configured")],
            met: status.last_error.map_or(Ok(()), |(_, said)| Err(said)),
            in_part: false,
            from: None,
            took: Duration::from_millis(12),
        };
        std::future::ready(self.status(esp).map(tried)).boxed()
    }

    fn pause_all<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, Result<Vec<EspStatus>, DeskError>> {
        let suspension = Suspension { reason: reason.into(), since: DUE, until: None };
        let esps = self.esps.lock().unwrap().clone();
        self.suspended.lock().unwrap().extend(esps.into_iter().map(|esp| (esp, suspension.clone())));
        std::future::ready(Ok(self.statuses())).boxed()
    }

    fn unpause_all(&self) -> BoxFuture<'_, Result<Vec<EspStatus>, DeskError>> {
        self.suspended.lock().unwrap().clear();
        std::future::ready(Ok(self.statuses())).boxed()
    }

    fn resolve(&self, whose: Whose<'_>, to: &Address, stream: Option<&str>) -> Result<Resolved, DeskError> {
        match stream {
            Some(name) if name != "transactional" => {
                Err(DeskError::NoSuchStream { name: name.into(), known: "transactional".into() })
            }
            // What was asked shows in the answer.
            _ => Ok(Resolved {
                stream: format!("{} to {to}", whose.from_domain.unwrap_or("nobody")),
                kind: StreamKind::Transactional,
                suppressed: (to.key() == "gone@example.net").then(|| "550 5.1.1 suppressed".to_owned()),
                standings: self.standings(),
            }),
        }
    }

    fn outlook<'a>(&'a self, view: &'a MessageView) -> BoxFuture<'a, Result<Vec<Outlook>, StoreError>> {
        let waits = matches!(view.deliveries[0].state, QueueState::Waiting { .. });
        let outlook = waits.then(|| Outlook { recipients: vec![0], standings: self.standings() });
        std::future::ready(self.ok(outlook.into_iter().collect())).boxed()
    }
}
