//! `postroad new-config`: a file to start from.

use std::io::Write;

use super::Failure;

/// Every key with its default and why one would change it.
const WHOLE: &str = include_str!("../../config/postroad.toml");

/// An ESP that the usual variables in the environment speak of.
struct Known {
    /// The variable that says that it is used.
    variable: &'static str,
    /// Its table.
    table: &'static str,
}

/// Keys of ESPs are used at their SMTP endpoints. SendGrid: the user is the word `apikey`; Postmark: user and password
/// are the server's token; SES: the password is made from the secret key, for one region.
const KNOWN: [Known; 4] = [
    Known {
        variable: "SENDGRID_API_KEY",
        table: "[[esp]]\nname = \"sendgrid\"\ntype = \"smtp\"\naddress = \"smtp.sendgrid.net:587\"\nusername = \"apikey\"\n\
                password = \"env:SENDGRID_API_KEY\"\n",
    },
    Known {
        variable: "POSTMARK_API_KEY",
        table: "[[esp]]\nname = \"postmark\"\ntype = \"smtp\"\naddress = \"smtp.postmarkapp.com:587\"\n\
                username = \"env:POSTMARK_API_KEY\"\npassword = \"env:POSTMARK_API_KEY\"\n",
    },
    Known {
        variable: "AWS_ACCESS_KEY_ID",
        table: "# Amazon SES takes no secret key by SMTP, but a password that its console makes from one, for a region\n\
                # (SMTP settings, Create SMTP credentials). Put it in SES_SMTP_PASSWORD, and set the region in address.\n\
                #[[esp]]\n#name = \"ses\"\n#type = \"smtp\"\n#address = \"email-smtp.us-east-1.amazonaws.com:587\"\n\
                #username = \"env:AWS_ACCESS_KEY_ID\"\n#password = \"env:SES_SMTP_PASSWORD\"\n",
    },
    Known {
        variable: "SMTP_HOST",
        table: "# The port: 587 with STARTTLS, 465 with tls = \"implicit\".\n[[esp]]\nname = \"smarthost\"\ntype = \"smtp\"\n\
                address = \"@SMTP_HOST@:@SMTP_PORT@\"\n@LOGIN@",
    },
];

/// Prints the whole file or, `from_env`, one with an `[[esp]]` for each key that `variable` finds in the environment.
pub(super) fn new_config(
    from_env: bool,
    variable: impl Fn(&str) -> Option<String>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if !from_env {
        return Ok(out.write_all(WHOLE.as_bytes())?);
    }
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let mut found: Vec<String> = Vec::new();
    for known in KNOWN {
        if let Some(value) = set(known.variable) {
            found.push(filled(known.table, value.trim(), &set));
        }
    }
    if found.is_empty() {
        let names = KNOWN.map(|known| known.variable).join(", ");
        return Err(Failure::Failed(format!("none of these is set in the environment: {names}")));
    }
    let head = "# Made from the environment. `postroad check` reads it, `postroad new-config` prints every other key.\n";
    Ok(write!(out, "{head}\n{}", found.join("\n"))?)
}

/// Host, port and login of any server, by the names that most libraries read.
fn filled(table: &str, host: &str, set: &impl Fn(&str) -> Option<String>) -> String {
    let first = |names: [&'static str; 2]| names.into_iter().find(|name| set(name).is_some());
    let user = first(["SMTP_USERNAME", "SMTP_USER"]);
    let password = first(["SMTP_PASSWORD", "SMTP_PASS"]);
    let login = match user.zip(password) {
        Some((user, password)) => format!("username = \"env:{user}\"\npassword = \"env:{password}\"\n"),
        None => String::new(),
    };
    let port = set("SMTP_PORT").filter(|port| port.parse::<u16>().is_ok()).unwrap_or_else(|| "587".into());
    let implicit = if port == "465" { "tls = \"implicit\"\n" } else { "" };
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(*c)).collect();
    let login = format!("{implicit}{login}");
    table.replace("@SMTP_HOST@", &host).replace("@SMTP_PORT@", &port).replace("@LOGIN@", &login)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn made(variables: &[(&str, &str)]) -> Result<String, Failure> {
        let mut out = Vec::new();
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        new_config(true, variable, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// The names of the ESPs of a file, read with these variables.
    fn esps(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postroad.toml");
        std::fs::write(&file, text).unwrap();
        let environment = Environment {
            variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect(),
            working_dir: folder.path().to_owned(),
            ..Environment::of_process()
        };
        let loaded = Config::load(Some(&file), &environment);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        loaded.config.esps.iter().map(|esp| esp.name.clone()).collect()
    }

    #[test]
    fn what_is_made_from_the_environment_is_a_configuration_that_works() {
        let variables = [
            ("SENDGRID_API_KEY", "SG.k3y"),
            ("POSTMARK_API_KEY", "t0ken"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("SMTP_HOST", "mail.example.net"),
            ("SMTP_PORT", "465"),
            ("SMTP_USER", "u"),
            ("SMTP_PASS", "s3cret"),
        ];
        let text = made(&variables).unwrap();
        assert_eq!(esps(&text, &variables), ["sendgrid", "postmark", "smarthost"]);
        for secret in ["SG.k3y", "t0ken", "s3cret"] {
            assert!(!text.contains(secret), "keys stay in the environment: {text}");
        }
        assert!(text.contains("\"mail.example.net:465\"\ntls = \"implicit\"\n"), "{text}");
        let variables = [("SMTP_HOST", "mail.example.net")];
        assert_eq!(esps(&made(&variables).unwrap(), &variables), ["smarthost"]);
    }

    #[test]
    fn where_the_environment_names_none_that_is_told() {
        let failure = made(&[("SENDGRID_API_KEY", " ")]).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.message().unwrap().contains("SENDGRID_API_KEY, POSTMARK_API_KEY"));
    }
}
