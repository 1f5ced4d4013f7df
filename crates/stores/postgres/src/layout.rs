//! Sharing names with another system that keeps its entries in the same database.

use std::fmt;
use std::time::Duration;

use tenure_core::error::Error;

/// By how much a neighbour's clock may differ from the server's, unless the URL says otherwise.
pub const SKEW_DEFAULT: Duration = Duration::from_secs(5);
/// The most that `skew_ms` can say.
pub const SKEW_MAX: Duration = Duration::from_secs(300);
/// The longest identifier, in bytes, of a server as it is built by default.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// The table of HAMode's leases, as `?layout=hamode` shares it: `"public"."app_runtime_leases"`
/// unless the URL says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hamode {
    schema: String,
    table: String,
    pub(crate) skew: Duration,
}

impl Default for Hamode {
    fn default() -> Self {
        let (schema, table) = ("public".to_owned(), "app_runtime_leases".to_owned());
        Self { schema, table, skew: SKEW_DEFAULT }
    }
}

impl fmt::Display for Hamode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl Hamode {
    /// The word of `?layout=`.
    pub(crate) const WORD: &'static str = "hamode";

    /// The same in another table. Upper and lower case differ, as they do for HAMode.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): one of the two can't be an identifier.
    pub fn with_table(self, schema: &str, table: &str) -> Result<Self, Error> {
        for part in [schema, table] {
            if part.is_empty() || part.len() > IDENTIFIER_BYTES_MAX || part.contains('\0') {
                return Err(Error::invalid(format!(
                    "{part:?} can't be the name of a schema or table: 1 to \
                     {IDENTIFIER_BYTES_MAX} bytes without NUL can"
                )));
            }
        }
        Ok(Self { schema: schema.to_owned(), table: table.to_owned(), ..self })
    }

    /// The same for neighbours whose clocks differ from the server's by at most so much.
    ///
    /// # Errors
    /// [`Invalid`](tenure_core::ErrorKind::Invalid): more than [`SKEW_MAX`].
    pub fn with_skew(self, skew: Duration) -> Result<Self, Error> {
        if skew > SKEW_MAX {
            return Err(Error::invalid(format!(
                "a skew of {skew:?} is more than {SKEW_MAX:?}; set the clocks instead"
            )));
        }
        Ok(Self { skew, ..self })
    }

    /// The table by `SCHEMA.TABLE` or `TABLE`. A part with a dot or a quote in it stands in
    /// double quotes, as in SQL.
    pub(crate) fn with_table_named(self, text: &str) -> Result<Self, Error> {
        let parts = parts(text).ok_or_else(|| {
            Error::invalid(format!(
                "table={text} can't be read; SCHEMA.TABLE can, with double quotes around a part \
                 that has a dot in it"
            ))
        })?;
        match &parts[..] {
            [table] => self.with_table("public", table),
            [schema, table] => self.with_table(schema, table),
            _ => Err(Error::invalid(format!("table={text} has more parts than SCHEMA.TABLE"))),
        }
    }

    /// The table's own name.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// The table as it stands in a statement.
    pub(crate) fn quoted(&self) -> String {
        let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }

    /// The first arguments of the functions in `sql/hamode.sql`.
    pub(crate) fn arguments(&self) -> String {
        // Escapes mean the same in these, whatever `standard_conforming_strings` says.
        let literal = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let millis = self.skew.as_millis();
        format!("E'{}', E'{}', {millis}, ", literal(&self.schema), literal(&self.table))
    }
}

/// The parts of a name with dots between them, where quotes may be around each. None: no such.
fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = 0;
            loop {
                end += quoted[end..].find('"')?;
                if !quoted[end + 1..].starts_with('"') {
                    break;
                }
                end += 2;
            }
            part = quoted[..end].replace("\"\"", "\"");
            rest = &quoted[end + 1..];
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            part = rest[..end].to_owned();
            rest = &rest[end..];
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_as_in_sql_and_taken_as_it_is() {
        for (text, quoted) in [
            ("ops.Leases", r#""ops"."Leases""#),
            ("leases", r#""public"."leases""#),
            (r#""a.b".c"#, r#""a.b"."c""#),
            (r#""say ""hi""".t"#, r#""say ""hi"""."t""#),
            ("it's.a\\b", r#""it's"."a\b""#),
        ] {
            assert_eq!(Hamode::default().with_table_named(text).unwrap().quoted(), quoted);
        }
        for text in ["", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\".a", &"x".repeat(64)] {
            assert!(Hamode::default().with_table_named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_in_a_name_ends_its_literal() {
        let odd = Hamode::default().with_table_named(r"it's.a\'b").unwrap();
        assert_eq!(odd.arguments(), r"E'it\'s', E'a\\\'b', 5000, ");
    }
}
