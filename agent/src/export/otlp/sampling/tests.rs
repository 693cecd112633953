use proptest::prelude::*;

use super::super::fixtures::{client, ids, refused};
use super::*;

fn sampler(trace_sample_ratio: f64, trace_rate_limit: Option<u32>) -> Sampler {
    Sampler::new(&Settings { trace_sample_ratio, trace_rate_limit, ..Settings::default() })
}

/// The trace of some connection.
fn trace(seed: u32, number: u32) -> TraceId {
    let connection = Connection { sequence_pair: Some((seed, number)), ..client() };
    ids(&connection).trace
}

/// What a backend makes of a `tracestate`, by the specification: its digits filled up with zeroes to 14.
fn probability(state: &str) -> f64 {
    let digits = state.strip_prefix("ot=th:").unwrap();
    assert!((1..=14).contains(&digits.len()) && (digits == "0" || !digits.ends_with('0')), "{state}");
    let threshold = u64::from_str_radix(&format!("{digits:0<14}"), 16).unwrap();
    1.0 - threshold as f64 / (1_u64 << 56) as f64
}

#[test]
fn where_everything_is_kept_each_stands_for_itself() {
    let sampler = sampler(1.0, None);
    let kept = sampler.begin(1).decide(&client(), Some(End::Closed), trace(1, 1));
    assert_eq!(kept, Ok(Kept::Ratio));
    assert_eq!(sampler.terms().state(Kept::Ratio).as_str(), "ot=th:0");
}

#[test]
fn the_abnormal_stand_for_themselves() {
    for sampler in [sampler(0.0, None), sampler(0.5, Some(1)), sampler(1.0, Some(1))] {
        let mut decisions = sampler.begin(1);
        for number in 0..100 {
            let kept = decisions.decide(&refused(), Some(End::Refused), trace(1, number));
            assert_eq!(kept, Ok(Kept::Abnormal(Why::Failed)));
            assert_eq!(sampler.terms().state(kept.unwrap()).as_str(), "ot=th:0");
        }
    }
}

#[test]
fn the_share_kept_is_the_ratio() {
    let sampler = sampler(0.1, None);
    let mut decisions = sampler.begin(1);
    let kept = (0..20_000).filter(|n| decisions.decide(&client(), Some(End::Closed), trace(7, *n)).is_ok()).count();
    assert!((1_850..2_150).contains(&kept), "{kept}");
    assert_eq!(sampler.terms().state(Kept::Ratio).as_str(), "ot=th:e6666666666666");
}

/// Whatever one agent keeps by chance at a higher threshold, another keeps at a lower one.
#[test]
fn of_two_agents_the_one_that_keeps_more_keeps_all_of_the_other() {
    let (few, many) = (sampler(1.0, Some(10)), sampler(1.0, Some(100)));
    let (mut few, mut many) = (few.begin(1), many.begin(1));
    let mut both = 0;
    for number in 0..10_000 {
        let decide = |decisions: &mut Decisions<'_>| decisions.decide(&client(), None, trace(3, number)).is_ok();
        let (in_few, in_many) = (decide(&mut few), decide(&mut many));
        assert!(!in_few || in_many);
        both += u32::from(in_few);
    }
    assert!(both > 10, "{both}");
}

#[test]
fn an_example_is_one_that_was_kept() {
    let sampler = sampler(0.8, Some(50));
    let kept: Vec<bool> = {
        let mut decisions = sampler.begin(1);
        (0..1_000).map(|number| decisions.decide(&client(), Some(End::Closed), trace(5, number)).is_ok()).collect()
    };
    let examples = |number: &usize| sampler.has_kept(&client(), Some(End::Closed), trace(5, *number as u32));
    let examples: Vec<usize> = (0..1_000).filter(examples).collect();
    assert!(examples.len() > 10 && examples.iter().all(|number| kept[*number]), "{examples:?}");
    assert!(sampler.has_kept(&refused(), Some(End::Refused), trace(5, 0)));
}

proptest! {
    /// However spans arrive, those that are kept tell how many there were: the sum of 1 ÷ probability is the number of all but for
    /// chance, whose variance is the sum of 1 ÷ probability - 1 over all of them. And the books balance.
    #[test]
    fn what_is_kept_tells_how_many_there_were(
        seed in any::<u32>(),
        ratio in prop_oneof![Just(1.0), 0.05..1.0],
        limit in prop::option::weighted(0.9, 5..500_u32),
        passes in prop::collection::vec((0..200_u32, 1..200_000_000_u64), 1..100),
    ) {
        let sampler = sampler(ratio, limit);
        let (mut now_ns, mut number) = (1_000_000_000, 0);
        let (mut told, mut variance, mut largest) = (0.0, 0.0_f64, 1.0_f64);
        let (mut kept, mut left_out) = (0, SampledOut::default());
        for (arrivals, pause_ns) in passes {
            now_ns += pause_ns;
            let mut decisions = sampler.begin(now_ns);
            for _ in 0..arrivals {
                number += 1;
                let decided = decisions.decide(&client(), Some(End::TimeWait), trace(seed, number));
                // What the threshold was, whichever way chance went.
                let limit = decisions.rate.as_ref().map_or(0, |rate| rate.digits());
                let of_this = Threshold::of_ratio(ratio).max(Threshold::of_digits(limit)).probability();
                variance += 1.0 / of_this - 1.0;
                largest = largest.max(1.0 / of_this);
                match decided {
                    Ok(how) => {
                        kept += 1;
                        let state = sampler.terms().state(how);
                        let stated = probability(state.as_str());
                        prop_assert!((stated - of_this).abs() < 1e-9, "{stated} is stated, {of_this} was");
                        told += 1.0 / stated;
                    }
                    Err(why) => left_out.add(why),
                }
            }
        }
        prop_assert_eq!(kept + left_out.total(), u64::from(number));
        prop_assert!(ratio < 1.0 || left_out.ratio == 0);
        prop_assert!(limit.is_some() || left_out.rate_limit == 0);
        let error = (told - f64::from(number)).abs();
        prop_assert!(error <= 7.0 * variance.sqrt() + largest, "{told} told of {number}, variance {variance}");
    }
}
