//! Statements with their values written into them, for a client that sends a statement in one
//! round trip only without parameters.

use std::error::Error as StdError;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Type};

use crate::link::Params;

type Misfit = Box<dyn StdError + Send + Sync>;

/// Puts a literal of the same type in the place of each `$1`, `$2` …, but for those that stand
/// within quotes.
pub(crate) fn written_out(statement: &str, params: Params<'_>) -> Result<String, Misfit> {
    let mut text = String::with_capacity(statement.len() + 64 * params.len());
    let mut rest = statement;
    while let Some(at) = rest.find(['$', '\'', '"']) {
        let (before, special) = rest.split_at(at);
        text.push_str(before);
        let mark = special.as_bytes()[0];
        if mark == b'$' {
            let digits = special[1..].bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = special[1..=digits].parse()?;
            let (value, of) =
                number.checked_sub(1).and_then(|at| params.get(at)).ok_or("there is no such")?;
            let mut binary = BytesMut::new();
            match value.to_sql_checked(of, &mut binary)? {
                IsNull::Yes => text.push_str("NULL"),
                IsNull::No => push_literal(&mut text, of, &binary)?,
            }
            text.push_str("::pg_catalog.");
            text.push_str(of.name());
            rest = &special[1 + digits..];
        } else {
            let length = quoted_length(special.as_bytes(), before.ends_with('E'));
            text.push_str(&special[..length]);
            rest = &special[length..];
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// How long the quoted part is that `text` begins with, quotes included. One that is doubled ends
/// it and begins the next, which comes to the same.
fn quoted_length(text: &[u8], escapes: bool) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != text[0] {
        at += if escapes && text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The literal of a value, which is read back from the form that clients send it in: so no
/// statement needs to know how many there are.
fn push_literal(text: &mut String, of: &Type, binary: &[u8]) -> Result<(), Misfit> {
    match *of {
        Type::TEXT => push_quoted(text, <&str>::from_sql(of, binary)?),
        // Quoted: a minus in front would bind less than the type behind.
        Type::INT8 => push_quoted(text, &i64::from_sql(of, binary)?.to_string()),
        Type::TEXT_ARRAY => push_array(text, Vec::<Option<&str>>::from_sql(of, binary)?, |one| {
            format!("\"{}\"", one.replace('\\', "\\\\").replace('"', "\\\""))
        }),
        Type::INT8_ARRAY => {
            push_array(text, Vec::<Option<i64>>::from_sql(of, binary)?, |one| one.to_string())
        }
        _ => Err(format!("no statement has a {of} as yet").into()),
    }
}

fn push_array<T>(
    text: &mut String,
    values: Vec<Option<T>>,
    spell: impl Fn(T) -> String,
) -> Result<(), Misfit> {
    let mut array = String::from("{");
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            array.push(',');
        }
        array.push_str(&value.map_or_else(|| "NULL".to_owned(), &spell));
    }
    array.push('}');
    push_quoted(text, &array)
}

/// A literal that means the same whatever `standard_conforming_strings` and `backslash_quote` are.
fn push_quoted(text: &mut String, value: &str) -> Result<(), Misfit> {
    if value.contains('\0') {
        return Err("a text has a NUL in it, which PostgreSQL can't keep".into());
    }
    text.push_str("E'");
    text.push_str(&value.replace('\\', "\\\\").replace('\'', "''"));
    text.push('\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_as_literals_of_their_types() {
        let (name, absent, number) = ("it's a \\ $2", None::<String>, i64::MIN);
        let params: Params<'_> =
            &[(&name, Type::TEXT), (&absent, Type::TEXT), (&number, Type::INT8)];
        assert_eq!(
            written_out("SELECT f($1, $2, $3), $1", params).unwrap(),
            concat!(
                r"SELECT f(E'it''s a \\ $2'::pg_catalog.text, NULL::pg_catalog.text, ",
                r"E'-9223372036854775808'::pg_catalog.int8), E'it''s a \\ $2'::pg_catalog.text",
            ),
        );
    }

    #[test]
    fn arrays_do_too_whatever_is_in_them() {
        let texts = [Some("a,b"), None, Some("NULL"), Some(r#"say "\'" "#), Some("")];
        let numbers = vec![Some(-1_i64), None];
        let none: Vec<String> = Vec::new();
        let params: Params<'_> = &[
            (&&texts[..], Type::TEXT_ARRAY),
            (&numbers, Type::INT8_ARRAY),
            (&none, Type::TEXT_ARRAY),
        ];
        assert_eq!(
            written_out("$1 $2 $3", params).unwrap(),
            concat!(
                r#"E'{"a,b",NULL,"NULL","say \\"\\\\''\\" ",""}'::pg_catalog._text "#,
                "E'{-1,NULL}'::pg_catalog._int8 ",
                "E'{}'::pg_catalog._text",
            ),
        );
    }

    #[test]
    fn what_stands_in_quotes_is_left_as_it_is() {
        let one = 1_i64;
        let params: Params<'_> = &[(&one, Type::INT8)];
        let kept = r#""a$1" '$1''$1' E'\'$1\\' "$1""$1" '\'"#;
        let given = format!("{kept}, $1");
        let expected = format!("{kept}, E'1'::pg_catalog.int8");
        assert_eq!(written_out(&given, params).unwrap(), expected);
    }

    #[test]
    fn a_nul_and_a_number_without_a_value_are_refused() {
        let nul = "a\0b";
        assert!(written_out("$1", &[(&nul, Type::TEXT)]).is_err());
        assert!(written_out("$2", &[(&nul, Type::TEXT)]).is_err());
        assert!(written_out("$0", &[(&nul, Type::TEXT)]).is_err());
        assert!(written_out("$", &[(&nul, Type::TEXT)]).is_err());
    }
}
