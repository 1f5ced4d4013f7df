//! The client's values as what the scripts meant by them.

use redis::Value;

/// A value as text.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// A value as a list.
pub(crate) fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// A value as keys and values, those that are text.
pub(crate) fn pairs(value: &Value) -> Vec<(&str, &str)> {
    match value {
        Value::Array(values) => values
            .chunks_exact(2)
            .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
            .collect(),
        Value::Map(entries) => {
            entries.iter().filter_map(|(key, value)| Some((text(key)?, text(value)?))).collect()
        }
        _ => Vec::new(),
    }
}

/// What one script call said.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// It isn't the store that the caller believes in; nothing was done.
    Reset,
    /// Done: the bucket's count of tokens, the server's clock in µs, an answer for each item, and
    /// names to look at, whether their leases are gone.
    Done { tokens: u64, now: i64, answers: Vec<Value>, drawn: Vec<Value> },
}

impl Said {
    pub(crate) fn read(value: Value) -> Option<Self> {
        let Value::Array(mut parts) = value else { return None };
        match text(parts.first()?)? {
            "reset" => Some(Self::Reset),
            "done" => {
                let now = text(parts.get(2)?)?.parse().ok()?;
                let tokens = text(parts.get(1)?)?.parse().ok()?;
                let mut lists = parts.drain(3..);
                let Some(Value::Array(answers)) = lists.next() else { return None };
                let drawn = match lists.next() {
                    Some(Value::Array(drawn)) => drawn,
                    _ => Vec::new(),
                };
                Some(Self::Done { tokens, now, answers, drawn })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn tokens_beyond_2_to_the_53_are_read_exactly() {
        let value = Value::Array(vec![
            bulk("done"),
            bulk("9223372036854775807"),
            bulk("1767225600000000"),
            Value::Array(vec![bulk("x")]),
        ]);
        let said = Said::read(value).unwrap();
        let answers = vec![bulk("x")];
        let (tokens, now, drawn) = (i64::MAX as u64, 1_767_225_600_000_000, Vec::new());
        assert_eq!(said, Said::Done { tokens, now, answers, drawn });
        assert_eq!(Said::read(Value::Array(vec![bulk("reset")])), Some(Said::Reset));
        assert_eq!(Said::read(Value::Okay), None);
    }
}
