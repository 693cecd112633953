//! Attributes as they are told, before any exporter has made something of them.

/// Value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `string`
    Text(&'a str),
    /// `bool`
    Flag(bool),
    /// `int`
    Integer(i64),
    /// `double`
    Real(f64),
}

/// A key and its value.
pub type Attribute<'a> = (&'static str, Value<'a>);

/// An attribute whose value is a name.
pub const fn text<'a>(key: &'static str, value: &'a str) -> Attribute<'a> {
    (key, Value::Text(value))
}

/// An attribute whose value is a number.
pub const fn integer(key: &'static str, value: i64) -> Attribute<'static> {
    (key, Value::Integer(value))
}
