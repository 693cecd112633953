//! Whether a message has only fields that OTLP knows.
//!
//! prost skips unknown fields in silence, so the bytes are walked once more by the descriptors of the published
//! protocol. A field of a wrong wire type is as wrong as an unknown one.

use std::{collections::HashMap, sync::OnceLock};

use anyhow::{Context as _, Result, bail, ensure};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

type Fields = HashMap<u32, FieldDescriptorProto>;

/// Fails at the first field of `message` (a full name such as `.opentelemetry.proto.trace.v1.Span`) that is not in the
/// protocol.
pub fn check(message: &str, mut bytes: &[u8]) -> Result<()> {
    let fields = messages().get(message).with_context(|| format!("no message {message} in the descriptors"))?;
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).context("a field's key")?;
        let field = fields.get(&number).with_context(|| format!("{message} has no field {number}"))?;
        let name = field.name();
        let repeated = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
        let wanted = wire_type(field.r#type());
        let packed = repeated && wire == WireType::LengthDelimited && wanted != WireType::LengthDelimited;
        ensure!(wire == wanted || packed, "{message}.{name} comes as {wire:?}, not {wanted:?}");
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut bytes)?;
                continue;
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut bytes)?)?,
            WireType::StartGroup | WireType::EndGroup => bail!("{message}.{name} is a group"),
        };
        let (value, rest) = bytes.split_at_checked(length).with_context(|| format!("{message}.{name} is cut off"))?;
        bytes = rest;
        match field.r#type() {
            Type::Message => check(field.type_name(), value).with_context(|| format!("in {message}.{name}"))?,
            Type::String => {
                str::from_utf8(value).with_context(|| format!("{message}.{name} is not UTF-8"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The field of `message` that has this name in JSON.
pub fn by_json_name(message: &str, name: &str) -> Option<&'static FieldDescriptorProto> {
    messages().get(message)?.values().find(|field| lower_camel(field.name()) == name)
}

/// As the mapping of protobuf to JSON makes it.
fn lower_camel(name: &str) -> String {
    let mut camel = String::new();
    for (number, word) in name.split('_').enumerate() {
        let mut letters = word.chars();
        let first = letters.next().filter(|_| number > 0).map(|letter| letter.to_ascii_uppercase());
        camel.extend(first);
        camel.push_str(if number > 0 { letters.as_str() } else { word });
    }
    camel
}

fn wire_type(kind: Type) -> WireType {
    match kind {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => WireType::SixtyFourBit,
        Type::Float | Type::Fixed32 | Type::Sfixed32 => WireType::ThirtyTwoBit,
        Type::String | Type::Bytes | Type::Message => WireType::LengthDelimited,
        Type::Group => WireType::StartGroup,
        Type::Int32
        | Type::Int64
        | Type::Uint32
        | Type::Uint64
        | Type::Sint32
        | Type::Sint64
        | Type::Bool
        | Type::Enum => WireType::Varint,
    }
}

fn messages() -> &'static HashMap<String, Fields> {
    static MESSAGES: OnceLock<HashMap<String, Fields>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let set = FileDescriptorSet::decode(opentelemetry_proto::DESCRIPTORS).expect("published descriptors decode");
        let mut messages = HashMap::new();
        for file in set.file {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                collect(&package, message, &mut messages);
            }
        }
        messages
    })
}

fn collect(outer: &str, message: &DescriptorProto, into: &mut HashMap<String, Fields>) {
    let name = format!("{outer}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, into);
    }
    let fields = message.field.iter().map(|field| (field.number().cast_unsigned(), field.clone())).collect();
    into.insert(name, fields);
}
