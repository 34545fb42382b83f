//! What holds for any configuration: no panic, and no secret in an error.

use proptest::prelude::*;

use super::files::keys_of_config_file;
use super::*;

/// What may stand at the value of a key: good, bad, and worse.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\"env:SECRET\"".to_string()),
        Just("\"file:secret\"".to_string()),
        Just("\"literal:x\"".to_string()),
        Just("[\"env:SECRET\", 1]".to_string()),
        Just("{ a = \"env:SECRET\" }".to_string()),
        Just("[[1], {}]".to_string()),
        Just("1979-05-27".to_string()),
        Just("-1".to_string()),
        Just("99999999999999999999".to_string()),
        Just("true".to_string()),
        Just("1.5".to_string()),
        "\"[a-z0-9:./@*, -]{0,12}\"",
        "'[a-z]{1,6}",
    ]
}

/// A document of known sections and keys with any values; valid TOML, and mostly of the right shape.
fn any_document() -> impl Strategy<Value = String> {
    let keys: Vec<(String, String)> = keys_of_config_file().into_iter().collect();
    let written = proptest::collection::btree_map(proptest::sample::select(keys), any_value(), 0..12);
    (written, proptest::bool::weighted(0.1)).prop_map(|(written, of_other_shape)| {
        let mut document = String::new();
        let mut current = String::new();
        for ((section, key), value) in written {
            if section != current {
                let shape = reader::SECTIONS.iter().find(|(name, _)| *name == section).unwrap().1;
                let many = (shape == reader::Shape::Many) != of_other_shape;
                document += &if many { format!("[[{section}]]\n") } else { format!("[{section}]\n") };
                current = section;
            }
            document += &format!("{key} = {value}\n");
        }
        document
    })
}

const SECRET: &str = "hunter2-Zq9";

proptest! {
    #[test]
    fn arbitrary_text_never_panics(toml in "\\PC{0,200}|([a-z]{0,4}[\\[\\]{}=\"'.,#\\n \\\\]{0,3}){0,30}", dotenv in "\\PC{0,60}") {
        let _ = Folder::with(&[("postroad.toml", &toml), (".env", &dotenv)]).load();
    }

    #[test]
    fn no_error_shows_a_secret_and_each_has_a_line(
        toml in any_document(),
        twin in "POSTROAD__(SERVER|ESP__A|LISTENER__0|HTTP)__[A-Z_]{1,12}",
        quote in "'?",
    ) {
        let folder = Folder::with(&[
            ("postroad.toml", &toml),
            (".env", &format!("SECRET={SECRET}\nOTHER={quote}{SECRET}")),
            ("secret", SECRET),
        ]).set(&twin, SECRET);
        match folder.load() {
            Err(problems) => {
                prop_assert!(!problems.to_string().contains(SECRET), "{}", problems);
                for problem in problems.iter() {
                    prop_assert!(matches!(problem.place, Place::Line { .. } | Place::Variable(_)), "{problem}");
                }
            }
            Ok(loaded) => {
                let warnings: String = loaded.warnings.iter().map(ToString::to_string).collect();
                prop_assert!(!warnings.contains(SECRET));
            }
        }
    }

    #[test]
    fn a_password_typed_into_the_file_is_never_repeated(password in "[!-~]{6,20}", before in any_document()) {
        prop_assume!(!password.contains('\'') && !["env:", "file:", "literal:"].iter().any(|p| password.starts_with(p)));
        let password = format!("Zq9{password}");
        for key in ["password = '", "password_hash = '", "password = 1\npassword_hash = '", "password = "] {
            let end = if key.ends_with('\'') { "'" } else { "" };
            let table = |section: &str| format!("[[{section}]]\n{key}{password}{end}\n");
            let toml = format!("{before}{}{}", table("credential"), table("esp"));
            let problems = Folder::with(&[("postroad.toml", &toml)]).problems();
            prop_assert!(!problems.contains(&password), "{}", problems);
        }
    }
}
