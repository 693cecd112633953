//! Requests with several resources, held against what prost reads.

use std::collections::BTreeMap;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_sdk::Resource;
use proptest::prelude::*;
use prost::Message as _;

use super::super::envelope::encoded;
use super::super::protobuf::Writer;
use super::super::request::{Request, Requests};
use super::*;

/// An item of an owner, or of the agent: its number, and the length of the rest.
type Item = (Option<u8>, u64, usize);

fn resource(name: &str) -> Resource {
    Resource::builder_empty()
        .with_schema_url([KeyValue::new("service.name", name.to_owned())], "https://example.com/resource")
        .build()
}

fn requests() -> Requests {
    let scope = InstrumentationScope::builder("synfin").with_schema_url("https://example.com/scope").build();
    Requests::new(&resource("agent"), &scope)
}

fn write(item: Item, to: &mut Writer) {
    to.fixed64(7, item.1);
    to.bytes(5, "n".repeat(item.2).as_bytes());
}

fn name(owner: Option<u8>) -> String {
    owner.map_or_else(|| "agent".to_owned(), |owner| format!("owner {owner}"))
}

/// As many items as fit, and the request of them.
fn encode(requests: &mut Requests, items: &[Item]) -> (Request, usize) {
    let mut open = BTreeMap::new();
    let group = |item: &Item, groups: &mut Groups| {
        let owner = item.0?;
        Some(*open.entry(owner).or_insert_with(|| groups.open(encoded(&resource(&name(Some(owner)))).into())))
    };
    requests.encode_grouped(items.iter().copied(), group, write)
}

/// Numbers and lengths of items by resource, as prost reads them. Each resource has to be there once, and to have some.
fn decoded(request: &Request) -> BTreeMap<String, Vec<(u64, usize)>> {
    let mut told = BTreeMap::new();
    for group in ExportTraceServiceRequest::decode(request.message()).unwrap().resource_spans {
        assert_eq!(group.schema_url, "https://example.com/resource");
        let value = group.resource.unwrap().attributes.pop().and_then(|attribute| attribute.value?.value);
        let Some(Value::StringValue(name)) = value else { panic!("{value:?}") };
        let [scope] = &group.scope_spans[..] else { panic!("{} scopes", group.scope_spans.len()) };
        assert_eq!(scope.schema_url, "https://example.com/scope");
        assert_eq!(scope.scope.as_ref().unwrap().name, "synfin");
        assert!(!scope.spans.is_empty(), "{name} has no items");
        let items = scope.spans.iter().map(|span| (span.start_time_unix_nano, span.name.len())).collect();
        assert_eq!(told.insert(name, items), None, "a resource came twice");
    }
    told
}

/// The same, as it should be.
fn wanted(items: &[Item]) -> BTreeMap<String, Vec<(u64, usize)>> {
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (owner, number, length) in items {
        told.entry(name(*owner)).or_default().push((*number, *length));
    }
    told
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let length = prop_oneof![8 => 0..1_000usize, 2 => 0..LONGEST / 4, 1 => LONGEST - 400..LONGEST + 400];
    let item = (prop::option::of(0..6u8), length);
    prop::collection::vec(item, 1..60).prop_map(|items| {
        items.into_iter().enumerate().map(|(number, (owner, length))| (owner, number as u64 + 1, length)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn requests_are_prefixes_within_bounds_and_lose_nothing(items in items()) {
        let mut requests = requests();
        let mut rest = &items[..];
        while !rest.is_empty() {
            let (request, taken) = encode(&mut requests, rest);
            prop_assert!((1..=rest.len()).contains(&taken));
            prop_assert!(taken == 1 || request.message().len() <= LONGEST, "{} bytes", request.message().len());
            prop_assert_eq!(decoded(&request), wanted(&rest[..taken]));
            // What did not fit would have been too much, but for what envelopes are estimated at.
            if let Some(next) = rest.get(taken) {
                prop_assert!(request.message().len() + next.2 + 500 > LONGEST);
            }
            rest = &rest[taken..];
        }
    }
}

#[test]
fn buffers_are_used_again_and_large_ones_given_back() {
    let mut requests = requests();
    let items: Vec<Item> = (0..300).map(|number| (Some((number % 3) as u8), number + 1, 600)).collect();
    for _ in 0..3 {
        drop(encode(&mut requests, &items));
    }
    let places = |groups: &Groups| groups.all.iter().map(|group| group.items.buffer.as_ptr()).collect::<Vec<_>>();
    let before = places(requests.groups());
    for _ in 0..10 {
        drop(encode(&mut requests, &items));
    }
    assert_eq!((before.len(), places(requests.groups())), (3, before));

    // Ten groups that were large once each.
    for owner in 0..10 {
        let many: Vec<Item> =
            (0..=owner).map(|other| (Some(other), 1, if other == owner { LONGEST / 2 } else { 1 })).collect();
        drop(encode(&mut requests, &many));
    }
    let kept: usize = requests.groups().all.iter().map(|group| group.items.buffer.capacity()).sum();
    assert!(kept < KEPT + LONGEST, "{kept} bytes");
}
