//! Plans as JSON, and as whatever else serde writes.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Key, Raw, marked};
use crate::{Blank, Plan};

/// One value of the object.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Field<'a> {
    Number(usize),
    Index(&'a [i32]),
    Steps(Vec<i64>),
    Blank(Blank),
}

fn fields(plan: &Plan) -> Vec<(String, Field<'_>)> {
    let mut fields = vec![("tokens".to_string(), Field::Number(plan.tokens()))];
    for (k, order) in plan.orders().iter().enumerate() {
        fields.push((format!("order.{k}"), Field::Index(order.index())));
        for (name, marks) in [("resets", order.resets()), ("silent", order.silent())] {
            let steps = marked(marks);
            if !steps.is_empty() {
                fields.push((format!("{name}.{k}"), Field::Steps(steps)));
            }
        }
        if order.blank() != Blank::default() {
            fields.push((format!("blank.{k}"), Field::Blank(order.blank())));
        }
    }
    fields
}

/// One line per key, for people.
pub(super) fn encode(plan: &Plan) -> serde_json::Result<Vec<u8>> {
    let mut bytes = b"{".to_vec();
    for (i, (key, value)) in fields(plan).iter().enumerate() {
        bytes.extend_from_slice(if i == 0 { b"\n  " } else { b",\n  " });
        serde_json::to_writer(&mut bytes, key)?;
        bytes.extend_from_slice(b": ");
        serde_json::to_writer(&mut bytes, value)?;
    }
    bytes.extend_from_slice(b"\n}\n");
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Raw, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("is not an index file in JSON: {error}"))
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = fields(self);
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for (key, value) in &fields {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plan, D::Error> {
        Raw::deserialize(deserializer)?.into_plan(None).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of order.0, order.1, …, or a list of entries, or of lists of entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(key) = map.next_key::<String>()? {
            let twice = match Key::of(&key).map_err(de::Error::custom)? {
                Key::Tokens => raw.tokens.replace(map.next_value()?).is_some(),
                Key::Order(k) => raw.orders.insert(k, map.next_value()?).is_some(),
                Key::Resets(k) => raw.resets.insert(k, map.next_value()?).is_some(),
                Key::Silent(k) => raw.silent.insert(k, map.next_value()?).is_some(),
                Key::Blank(k) => raw.blanks.insert(k, map.next_value()?).is_some(),
            };
            if twice {
                return Err(de::Error::custom(format!("`{key}` stands there twice")));
            }
        }
        Ok(raw)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        match list.next_element::<Item>()? {
            None => Ok(Raw::default()),
            Some(Item::Entry(first)) => {
                let mut index = vec![first];
                while let Some(entry) = list.next_element()? {
                    index.push(entry);
                }
                Ok(Raw::of_orders(vec![index]))
            }
            Some(Item::Order(first)) => {
                let mut orders = vec![first];
                while let Some(order) = list.next_element()? {
                    orders.push(order);
                }
                Ok(Raw::of_orders(orders))
            }
        }
    }
}

/// First element of a list: an entry of one order, or the first of several orders.
enum Item {
    Entry(i64),
    Order(Vec<i64>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry (an integer) or a list of entries")
    }

    fn visit_i64<E: de::Error>(self, entry: i64) -> Result<Item, E> {
        Ok(Item::Entry(entry))
    }

    fn visit_u64<E: de::Error>(self, entry: u64) -> Result<Item, E> {
        i64::try_from(entry).map(Item::Entry).map_err(|_| E::custom(format!("{entry} is too large an entry")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut index = Vec::new();
        while let Some(entry) = list.next_element()? {
            index.push(entry);
        }
        Ok(Item::Order(index))
    }
}
