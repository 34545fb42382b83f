//! To whom a report about a message goes (RFC 3461): to its sender, or where its client may not mail him, to whom such
//! mail goes instead, or to nobody. A report is mail too.

use crate::address::Address;
use crate::mail::notify::{Asks, ReportTo};
use crate::mail::{Envelope, ReversePath, Terms};

/// To whom reports go about mail of that sender, by what its client is bound to.
pub fn goes_to(terms: &Terms, sender: &ReversePath) -> ReportTo {
    let ReversePath::Mailbox(sender) = sender else { return ReportTo::Sender };
    match terms.goes_to(sender) {
        Some(to) if to.key() == sender.key() => ReportTo::Sender,
        Some(other) => ReportTo::Instead(other.clone()),
        None => ReportTo::Nobody,
    }
}

/// Whom a report about mail with this envelope is for. `Err`: why it is for nobody.
pub fn addressee(envelope: &Envelope) -> Result<&Address, String> {
    let ReversePath::Mailbox(sender) = &envelope.sender else { return Err("it has no sender".into()) };
    match envelope.reports.as_deref().map_or(&ReportTo::Sender, |Asks { to, .. }| to) {
        ReportTo::Sender => Ok(sender),
        ReportTo::Instead(other) => Ok(other),
        ReportTo::Nobody => Err(format!(
            "{sender} is not among those whom its client may mail (only_to); with redirect_to the report would go there"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;
    use crate::mail::BodyKind;
    use crate::mail::terms::Names;

    fn address(text: &str) -> Address {
        Address::parse(text, Grammar::Strict).unwrap()
    }

    fn told(sender: &str, terms: &Terms) -> Result<String, String> {
        let sender = match sender {
            "" => ReversePath::Null,
            text => ReversePath::Mailbox(address(text)),
        };
        let to = goes_to(terms, &sender);
        let envelope = Envelope {
            sender,
            recipients: Vec::new(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: Some(Box::new(Asks { to, ..Asks::default() })),
        };
        addressee(&envelope).map(|to| to.wire().to_owned())
    }

    #[test]
    fn a_report_goes_to_whom_its_client_may_mail() {
        let only = Terms { only_to: Names::of(vec!["@corp.example".into()]), ..Terms::default() };
        let turned = Terms { redirect_to: Some(address("qa@staging.example")), ..only.clone() };
        let all = Terms { only_to: Names::default(), ..turned.clone() };
        for (sender, terms, to) in [
            ("app@x.example", &Terms::default(), Some("app@x.example")),
            ("app@x.example", &only, None),
            ("dev@Corp.example", &only, Some("dev@Corp.example")),
            ("app@x.example", &turned, Some("qa@staging.example")),
            ("dev@corp.example", &turned, Some("dev@corp.example")),
            ("QA@staging.example", &all, Some("QA@staging.example")),
            ("dev@corp.example", &all, Some("qa@staging.example")),
            ("", &all, None),
        ] {
            assert_eq!(told(sender, terms).ok().as_deref(), to, "{sender} {terms:?}");
        }
        let why = told("app@x.example", &only).unwrap_err();
        assert!(why.starts_with("app@x.example is not among") && why.contains("only_to"), "{why}");
    }
}
