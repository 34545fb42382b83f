//! JSON read so that no key of an object is taken twice: which of the two was meant, nobody knows.

use std::cell::RefCell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value, and the places of the keys that stood there twice, such as `metadata.order`.
pub(super) fn read(text: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let twice = RefCell::default();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Place { path: String::new(), twice: &twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, twice.into_inner()))
}

/// Where a value lies.
struct Place<'a> {
    path: String,
    twice: &'a RefCell<Vec<String>>,
}

impl Place<'_> {
    fn member(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Place { path, twice: self.twice }
    }

    fn item(&self, n: usize) -> Self {
        Place { path: format!("{}[{n}]", self.path), twice: self.twice }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.item(list.len()))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let place = self.member(&key);
            let path = object.contains_key(&key).then(|| place.path.clone());
            self.twice.borrow_mut().extend(path);
            object.insert(key, members.next_value_seed(place)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_ever_and_what_stood_twice_is_told_with_its_place() {
        let text = br#"{"a":[1,-2,2.5,null,true,"x\u00fc"],"b":{"c":{}}}"#;
        assert_eq!(read(text).unwrap(), (serde_json::from_slice(text).unwrap(), Vec::new()));
        let (_, twice) = read(br#"{"a":1,"b":[{"c":1,"c":2}],"a":2,"m":{"x":"1","x":"1"}}"#).unwrap();
        assert_eq!(twice, ["b[0].c", "a", "m.x"]);
        for bad in ["", "{", "{}x", "[1,]", &"[".repeat(1000)] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
