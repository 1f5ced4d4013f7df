//! Keeping passwords out of what is printed.

/// `text` with the password of each URL in it, and the values of options named like one, masked.
pub(crate) fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| "/?# '\"`".contains(c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                out.push_str(user.split(':').next().unwrap_or_default());
                out.push_str(if user.contains(':') { ":***@" } else { "@" });
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    mask_options(&out)
}

/// The options of a URL whose values are secrets.
const SECRET_OPTIONS: [&str; 5] =
    ["password=", "sentinel_password=", "passwd=", "token=", "secret="];

fn mask_options(text: &str) -> String {
    let mut out = text.to_owned();
    for option in SECRET_OPTIONS {
        let mut from = 0;
        while let Some(at) = out[from..].find(option).map(|at| from + at) {
            let start = at + option.len();
            let starts_an_option = at == 0 || "?&;, ".contains(char::from(out.as_bytes()[at - 1]));
            let length = out[start..].find(|c: char| "&;, '\"`".contains(c));
            let end = length.map_or(out.len(), |length| start + length);
            if starts_an_option {
                out.replace_range(start..end, "***");
            }
            from = start;
        }
    }
    out
}

/// Whether a store's URL carries a password.
pub(crate) fn has_password(url: &str) -> bool {
    redacted(url) != url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_masked_wherever_they_stand() {
        for (text, shown) in [
            ("postgres://u:pw@h/db", "postgres://u:***@h/db"),
            (
                "unexpected argument 'redis://:p@ss@h:1' found",
                "unexpected argument 'redis://:***@h:1' found",
            ),
            ("postgres://u@h/db?password=pw&x=1", "postgres://u@h/db?password=***&x=1"),
            ("sqlite:/x?namespace=a", "sqlite:/x?namespace=a"),
            (
                "redis+sentinel://:pw@a,b/main?sentinel_password=pw",
                "redis+sentinel://:***@a,b/main?sentinel_password=***",
            ),
            ("http://h/path:a@b", "http://h/path:a@b"),
        ] {
            assert_eq!(redacted(text), shown);
        }
        assert!(has_password("postgres://u:pw@h/db"));
        assert!(!has_password("postgres://u@h/db"));
    }
}
