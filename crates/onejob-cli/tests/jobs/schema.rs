//! The part of JSON Schema (draft 2020-12) that docs/schema uses, and stricter: a key that the schema does not
//! name is an error, and so is a keyword that this file does not know.

use std::{fs, path::Path};

use serde_json::Value;

pub(crate) struct Schema {
    root: Value,
}

impl Schema {
    /// The schema of this name in docs/schema.
    pub(crate) fn read(name: &str) -> Schema {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
        let text = fs::read_to_string(dir.join(format!("{name}.json"))).unwrap();
        Schema { root: serde_json::from_str(&text).unwrap() }
    }

    pub(crate) fn of(root: Value) -> Schema {
        Schema { root }
    }

    /// Why a document does not have this schema.
    pub(crate) fn faults(&self, document: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(&self.root, document, "", &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let mut fault = |what: String| faults.push(format!("{place}: {what}: {value}"));
        let schema = schema.as_object().expect("a schema is an object");
        for (keyword, wanted) in schema {
            match &keyword[..] {
                "$schema" | "title" | "description" | "$defs" | "properties" | "items" | "$ref"
                | "anyOf" => {}
                "type" if !has_type(wanted, value) => fault(format!("is not of type {wanted}")),
                "const" if value != wanted => fault(format!("is not {wanted}")),
                "enum" if !wanted.as_array().unwrap().contains(value) => {
                    fault(format!("is none of {wanted}"));
                }
                "minimum" if value.as_f64().is_some_and(|n| n < wanted.as_f64().unwrap()) => {
                    fault(format!("is less than {wanted}"));
                }
                "pattern"
                    if value.as_str().is_some_and(|text| !fits(wanted.as_str().unwrap(), text)) =>
                {
                    fault(format!("does not match {wanted}"));
                }
                "required" if value.is_object() => {
                    for key in wanted.as_array().unwrap() {
                        if value.get(key.as_str().unwrap()).is_none() {
                            fault(format!("has no {key}"));
                        }
                    }
                }
                "type" | "const" | "enum" | "minimum" | "pattern" | "required" => {}
                unknown => panic!("unknown keyword {unknown}"),
            }
        }
        if let Some(reference) = schema.get("$ref") {
            let name = reference.as_str().unwrap().strip_prefix("#/$defs/").expect("a definition");
            self.check(&self.root["$defs"][name], value, place, faults);
        }
        if let Some(choices) = schema.get("anyOf") {
            let attempts = choices.as_array().unwrap().iter().map(|choice| {
                let mut faults = Vec::new();
                self.check(choice, value, place, &mut faults);
                faults
            });
            let least = attempts.min_by_key(Vec::len).unwrap_or_default();
            faults.extend(least);
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            for (at, value) in values.iter().enumerate() {
                self.check(items, value, &format!("{place}/{at}"), faults);
            }
        }
        if let (Some(properties), Some(object)) = (schema.get("properties"), value.as_object()) {
            for (key, value) in object {
                match properties.get(key) {
                    Some(schema) => self.check(schema, value, &format!("{place}/{key}"), faults),
                    None => faults.push(format!("{place}: the key {key} is not in the schema")),
                }
            }
        }
    }
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("unknown type {unknown}"),
    };
    match wanted {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

/// A pattern of single characters, `[.]`, `[0-9]` and `{N}` between `^` and `$`.
fn fits(pattern: &str, text: &str) -> bool {
    let pattern =
        pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).expect("anchors");
    let (mut rest, mut text) = (pattern, text.chars());
    while !rest.is_empty() {
        let (is_digit, literal, after) = if let Some(after) = rest.strip_prefix("[0-9]") {
            (true, ' ', after)
        } else if let Some(after) = rest.strip_prefix("[.]") {
            (false, '.', after)
        } else {
            (false, rest.chars().next().unwrap(), &rest[1..])
        };
        let count = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (count, after) = count.map_or((1, after), |(n, after)| (n.parse().unwrap(), after));
        for _ in 0..count {
            let next = text.next();
            if !next.is_some_and(|c| if is_digit { c.is_ascii_digit() } else { c == literal }) {
                return false;
            }
        }
        rest = after;
    }
    text.next().is_none()
}
