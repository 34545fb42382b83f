//! Addresses as the ESPs judge them: lists with display names, and what each takes for a mailbox.

/// One entry of an address list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    pub name: String,
    pub address: String,
}

/// Reads `Name <a@b>, "N, M" <c@d>, e@f`; `Err` holds the entry that is none. Empty entries are passed over.
pub fn list(text: &str) -> Result<Vec<Mailbox>, String> {
    split(text).iter().map(|e| e.trim()).filter(|e| !e.is_empty()).map(one).collect()
}

/// The entries, cut at the commas that stand outside of quotes and angle brackets.
fn split(text: &str) -> Vec<String> {
    let (mut entries, mut entry) = (Vec::new(), String::new());
    let (mut quoted, mut escaped, mut angled) = (false, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angled = true,
            '>' if !quoted => angled = false,
            ',' if !quoted && !angled => {
                entries.push(std::mem::take(&mut entry));
                continue;
            }
            _ => {}
        }
        entry.push(c);
    }
    entries.push(entry);
    entries
}

/// One entry.
pub fn one(entry: &str) -> Result<Mailbox, String> {
    let bad = || entry.to_owned();
    let entry = entry.trim();
    let Some((name, rest)) = entry.rsplit_once('<') else {
        return match is_mailbox(entry) {
            true => Ok(Mailbox { name: String::new(), address: entry.to_owned() }),
            false => Err(bad()),
        };
    };
    let address = rest.strip_suffix('>').ok_or_else(bad)?;
    let name = name.trim();
    let name = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None if name.contains(['"', '(', ')', '<', '>', '[', ']', ':', ';', '@', '\\', ',']) => {
            return Err(bad());
        }
        None => name.to_owned(),
    };
    if is_mailbox(address) { Ok(Mailbox { name, address: address.to_owned() }) } else { Err(bad()) }
}

/// Whether this is `local@domain` in visible characters, with the domain in letters, digits, hyphens and dots.
pub fn is_mailbox(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let visible = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,;".contains(c);
    !local.is_empty() && local.chars().all(visible) && is_domain(domain)
}

/// Whether this is a domain in letters, digits, hyphens and dots; other letters than ASCII's pass here.
fn is_domain(domain: &str) -> bool {
    let label = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_alphanumeric() || c == '-');
    domain.contains('.') && domain.split('.').all(label)
}

/// The domain of an address, folded.
pub fn domain(address: &str) -> String {
    address.rsplit('@').next().unwrap_or_default().to_lowercase()
}
