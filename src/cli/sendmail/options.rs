//! The options of `sendmail`, as cron, PHP, mutt, git and old scripts give them. Single letters, their values attached
//! or apart; what only steers a queue or an SMTP client that is not here is taken and does nothing.

/// What a call asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    /// `-t`: recipients are those of To, Cc and Bcc, besides those of the command line.
    pub from_headers: bool,
    /// `-i`, `-oi`: a line with a dot alone is a line like any other.
    pub dot_is_text: bool,
    /// `-f`, `-r`: MAIL FROM; empty or `<>` is the null sender.
    pub sender: Option<String>,
    /// `-F`: the name in a From that is added.
    pub full_name: Option<String>,
    /// Those of the command line.
    pub recipients: Vec<String>,
    /// What is to be done.
    pub mode: Mode,
}

/// `-b`, and what its letters stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// `-bm`: submit a message.
    #[default]
    Submit,
    /// `-bs`: an SMTP dialogue on standard input and output.
    Dialogue,
    /// `-bp`: list the queue.
    List,
    /// `-bi`, `-I`, `-bh`, `-bH`, and `-q` with a time: make the aliases anew, show or forget what is known of hosts,
    /// look at the queue so often. There are none, or the relay does it by itself.
    Nothing,
    /// `-bv`: say whether the recipients would be taken; no message is read or sent.
    Verify,
    /// `-q`: try now what waits; `-qI` and an id: this message.
    Flush(Option<String>),
}

/// Letters with a value that changes nothing here: kind of submission, body type, configuration file, log, what becomes
/// of errors, hop count, label, delivery by DSN, options by name, protocol, how much of the message a DSN returns, log.
const VALUES_PASSED_OVER: &str = "ABCDehLNOpRX";
/// Letters without a value that change nothing here.
const PASSED_OVER: &str = "cGmnUvx";

impl Options {
    /// Reads the arguments behind the program's name. `Err` says what is wrong.
    pub fn read(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.strip_prefix('-') {
                Some("-") => {
                    options.recipients.extend(rest.by_ref().cloned());
                    break;
                }
                Some(word) if word.starts_with('-') => {
                    return Err(format!("{argument}: there is no such option; they are single letters"));
                }
                Some(letters) if !letters.is_empty() => options.letters(letters, &mut rest)?,
                Some(_) | None => options.recipients.push(argument.clone()),
            }
        }
        let reads_none = matches!(options.mode, Mode::List | Mode::Flush(_) | Mode::Nothing);
        if options.from_headers && reads_none {
            return Err(
                "-t: a message is read and sent, which -bp, -q, -bi and -I do not do; leave one out".into()
            );
        }
        Ok(options)
    }

    /// One argument: letters without a value may stand together, as in `-it`.
    fn letters<'a>(
        &mut self,
        letters: &str,
        rest: &mut (impl Iterator<Item = &'a String> + Clone),
    ) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let attached = &letters[at + letter.len_utf8()..];
            match letter {
                't' => self.from_headers = true,
                'i' => self.dot_is_text = true,
                'o' => return self.option(&value(letter, attached, rest)?),
                'b' => {
                    self.mode = mode(&value(letter, attached, rest)?)?;
                    return Ok(());
                }
                'f' | 'r' => {
                    self.sender = Some(value(letter, attached, rest)?);
                    return Ok(());
                }
                'F' => {
                    self.full_name = Some(value(letter, attached, rest)?);
                    return Ok(());
                }
                'I' => self.mode = Mode::Nothing,
                'q' => {
                    self.mode = queue(attached)?;
                    return Ok(());
                }
                'V' => return envelope_id(attached, rest),
                'd' => return Ok(()),
                _ if PASSED_OVER.contains(letter) => {}
                _ if VALUES_PASSED_OVER.contains(letter) => {
                    value(letter, attached, rest)?;
                    return Ok(());
                }
                _ => return Err(format!("-{letter}: there is no such option")),
            }
        }
        Ok(())
    }

    /// `-oi` alone means something here; `-odi`, `-oem`, `-om`, `-o7` and the like do not.
    fn option(&mut self, value: &str) -> Result<(), String> {
        self.dot_is_text |= value == "i";
        Ok(())
    }
}

/// `-V ID`: the envelope id in a DSN. Long ago the letter stood alone and asked for VERP: what comes behind it then is an
/// option or a recipient, and no recipient is to be lost by that.
fn envelope_id<'a>(
    attached: &str,
    rest: &mut (impl Iterator<Item = &'a String> + Clone),
) -> Result<(), String> {
    let apart = rest.clone().next().filter(|_| attached.is_empty());
    match apart {
        Some(next) if next.starts_with('-') => {}
        Some(next) if next.contains('@') => {
            return Err(format!(
                "-V {next}: an envelope id or a recipient? Write the id behind the letter, as in -Vid, or leave -V out"
            ));
        }
        Some(_) => drop(rest.next()),
        None => {}
    }
    Ok(())
}

/// What stands behind `-q`: nothing, a time, or `I` and a message's id.
fn queue(value: &str) -> Result<Mode, String> {
    match value.split_at_checked(1) {
        None => Ok(Mode::Flush(None)),
        Some((digit, _)) if digit.bytes().all(|b| b.is_ascii_digit()) => Ok(Mode::Nothing),
        Some(("I", id)) if !id.is_empty() => Ok(Mode::Flush(Some(id.to_owned()))),
        Some(_) => Err(format!(
            "-q{value}: only all that waits (-q) or one message (-qI and its id) can be tried now"
        )),
    }
}

fn value<'a>(
    letter: char,
    attached: &str,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<String, String> {
    if !attached.is_empty() {
        return Ok(attached.to_owned());
    }
    rest.next().cloned().ok_or_else(|| format!("-{letter}: its value is missing"))
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "m" => Ok(Mode::Submit),
        "s" => Ok(Mode::Dialogue),
        "p" => Ok(Mode::List),
        "v" => Ok(Mode::Verify),
        "i" | "h" | "H" => Ok(Mode::Nothing),
        other => Err(format!("-b{other}: not a daemon; run the relay with: postroad serve")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        Options::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_calls_of_well_known_programs_are_understood() {
        let cron = read("-FCronDaemon -i -odi -oem -oi -t").unwrap();
        assert!(cron.from_headers && cron.dot_is_text && cron.recipients.is_empty());
        assert_eq!(cron.full_name.as_deref(), Some("CronDaemon"));
        let php = read("-t -i -fbounce@example.com").unwrap();
        assert_eq!(php.sender.as_deref(), Some("bounce@example.com"));
        let mutt = read("-oem -oi -f me@example.org -- a@example.com b@example.com").unwrap();
        assert_eq!(mutt.recipients, ["a@example.com", "b@example.com"]);
        assert!(mutt.dot_is_text && !mutt.from_headers);
        let git = read("-i a@example.com b@example.com").unwrap();
        assert_eq!(git.recipients.len(), 2);
        let together = read("-ti -N never -R hdrs -V id -B 8BITMIME -Ac -em -c -U x@example.com").unwrap();
        assert!(together.from_headers && together.dot_is_text);
        assert_eq!(together.recipients, ["x@example.com"]);
        assert_eq!(Options::read(&["-f".into(), String::new()]).unwrap().sender.as_deref(), Some(""));
    }

    #[test]
    fn other_modes_are_told_apart_and_what_is_unknown_is_told() {
        assert_eq!(read("-bs").unwrap().mode, Mode::Dialogue);
        assert_eq!(read("-bp").unwrap().mode, Mode::List);
        assert_eq!(read("-bv a@example.com").unwrap().mode, Mode::Verify);
        assert_eq!(read("-q").unwrap().mode, Mode::Flush(None));
        for line in ["-t -q", "-q5m -t", "-bp -t", "-t -bi"] {
            assert!(read(line).unwrap_err().starts_with("-t: "), "{line}: a mail would be dropped");
        }
        assert_eq!(read("-qI06z3sp6dng800").unwrap().mode, Mode::Flush(Some("06z3sp6dng800".into())));
        for line in ["-I", "-bi", "-bh", "-q1h"] {
            assert_eq!(read(line).unwrap().mode, Mode::Nothing, "{line}");
        }
        for (line, told) in [
            ("-bd", "postroad serve"),
            ("-qRexample.com", "-qI"),
            ("-qI", "-qI"),
            ("-Z", "-Z"),
            ("-t -f", "missing"),
            ("--verbose a@x", "--verbose: there is no such option"),
            ("-t --to=a@x", "--to=a@x: there is no such option"),
        ] {
            let said = read(line).unwrap_err();
            assert!(said.contains(told), "{line}: {said}");
        }
    }

    #[test]
    fn no_recipient_is_taken_for_an_envelope_id() {
        for line in ["-Vid a@x b@x", "-V id a@x b@x", "-V -i a@x b@x", "-V -- a@x b@x", "a@x b@x -V"] {
            assert_eq!(read(line).unwrap().recipients, ["a@x", "b@x"], "{line}");
        }
        assert!(read("-V a@x b@x").unwrap_err().contains("-V a@x"));
    }
}
