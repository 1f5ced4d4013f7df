//! The schemas of `--json`, as `docs/json.md` has them, and whether an object keeps to its own.

use std::collections::BTreeSet;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../../docs/json.md");

/// A row of a schema's table.
struct Field {
    name: String,
    kind: String,
    about: String,
}

/// The table under the heading that names `schema`.
fn fields(schema: &str) -> Vec<Field> {
    let headings = [format!("## `{schema}`"), format!("### {schema}")];
    let lines = DOCUMENT.lines().skip_while(|line| !headings.iter().any(|one| one == line)).skip(1);
    let rows =
        lines.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        let (kind, about) = (cells.next().unwrap().to_owned(), cells.next().unwrap().to_owned());
        Field { name, kind, about }
    })
    .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Asserts that an object has the fields that its schema promises and no others, each of its type.
#[track_caller]
pub fn assert_kept(object: &Value) {
    let schema = object["schema"].as_str().expect("each object names its schema");
    assert_keeps_to(schema, object);
}

#[track_caller]
fn assert_keeps_to(schema: &str, object: &Value) {
    let fields = fields(schema);
    assert!(!fields.is_empty(), "docs/json.md has no schema `{schema}`");
    let known: BTreeSet<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let object = object.as_object().unwrap();
    for name in object.keys() {
        assert!(known.contains(name.as_str()), "`{name}` of {schema} is not in docs/json.md");
    }
    for Field { name, kind: promised, about } in &fields {
        let Some(value) = object.get(name) else {
            assert!(promised.ends_with("may be absent"), "{schema} lacks `{name}`");
            continue;
        };
        let mut kinds = promised.trim_end_matches(", may be absent").split(" or ");
        assert!(kinds.any(|one| one == kind(value)), "`{name}` of {schema} is {value}");
        // A list of words: the value is one of them.
        if let (true, Some(word)) =
            (["state", "what", "verdict"].contains(&name.as_str()), value.as_str())
            && about.starts_with('`')
        {
            assert!(about.contains(&format!("`{word}`")), "`{name}` of {schema} is {word:?}");
        }
        match (name.as_str(), value) {
            ("schema", _) => assert_eq!(value, schema),
            ("lease", lease) => assert_kept(lease),
            ("transitions", Value::Array(all)) => {
                all.iter().for_each(|one| assert_keeps_to("transition", one));
            }
            ("metadata", Value::Object(all)) => assert!(all.values().all(Value::is_string)),
            _ => {}
        }
    }
}
