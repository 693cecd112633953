//! The ladder: for each probe the best rung that this kernel takes, found by loading and attaching.

use std::any::Any;
use std::cell::Cell;
use std::fmt;

use aya::programs::{BtfTracePoint, Program, ProgramError, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf};

use super::{memlock, perf, refusal, verifier};
use crate::health::{Cost, Refused, Verdict};
use crate::probes::ProbeSpec;
use crate::rung::Rung;
use crate::tracefs::TraceEvent;

/// What the rungs stand on.
pub(super) struct Ladder {
    /// The best rung that is tried.
    pub(super) max_rung: Rung,
    /// The kernel's types in aya's form, or why there are none.
    pub(super) btf: Result<Btf, String>,
    /// Whether the offsets of the fields are known without which a socket says nothing; else why not.
    pub(super) fields: Result<(), String>,
}

/// What the kernel has of a probe's tracepoint.
#[derive(Debug)]
pub(super) struct Ground {
    /// Whether its types name the tracepoint; true where there are no types.
    pub(super) in_types: bool,
    /// The classic tracepoint, or why it is not to be had.
    pub(super) event: Result<TraceEvent, String>,
}

/// An attached program, until it is dropped.
pub(super) struct Attached {
    pub(super) probe: &'static str,
    /// Name of the program in the object.
    pub(super) program: String,
    /// What it had cost when that could be read last.
    pub(super) cost: Cell<Option<Cost>>,
    /// Held for its end only; each rung has a type of its own.
    link: Option<Box<dyn Any + Send>>,
}

impl Attached {
    /// Detaches the program; it stays loaded, so that the kernel still tells what it has cost.
    pub(super) fn detach(&mut self) {
        drop(self.link.take());
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Why a rung does not hold.
enum Failure {
    /// The kernel lacks what it stands on: nothing was tried.
    Unsupported(String),
    /// The kernel refused every program for it.
    Broken(String),
}

/// How a probe came out.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) refused: Vec<Refused>,
    pub(super) attached: Option<Attached>,
}

impl Ladder {
    /// Tries one rung after the other.
    pub(super) fn climb(&self, ebpf: &mut Ebpf, spec: &ProbeSpec, ground: &Ground) -> Outcome {
        let mut refused = Vec::new();
        let mut broken = false;
        for rung in Rung::ALL.into_iter().filter(|rung| *rung >= self.max_rung) {
            match self.stand(ebpf, spec, ground, rung) {
                Ok(attached) => {
                    let verdict = Verdict::Active { rung, partial: self.fields.is_err() };
                    return Outcome { verdict, refused, attached: Some(attached) };
                }
                Err(Failure::Unsupported(why)) => refused.push(Refused { rung, why }),
                Err(Failure::Broken(why)) => {
                    broken = true;
                    refused.push(Refused { rung, why });
                }
            }
        }
        let why = summary(&refused);
        let verdict = if broken { Verdict::Broken { error: why } } else { Verdict::Unsupported { why } };
        Outcome { verdict, refused, attached: None }
    }

    fn stand(&self, ebpf: &mut Ebpf, spec: &ProbeSpec, ground: &Ground, rung: Rung) -> Result<Attached, Failure> {
        self.check(spec, ground, rung).map_err(Failure::Unsupported)?;
        let mut failure = None;
        for name in spec.programs(rung) {
            let program =
                ebpf.program_mut(&name).ok_or_else(|| Failure::Broken(format!("there is no program {name}")))?;
            match memlock::retry(|| self.attach(program, spec, ground)) {
                Ok(link) => {
                    return Ok(Attached { probe: spec.name, program: name, cost: Cell::default(), link: Some(link) });
                }
                // What the better variant lacks is told; a worse one mostly fails for the same reason.
                Err(error) => failure = failure.or_else(|| Some(refusal::of_program(&name, &error))),
            }
        }
        Err(Failure::Broken(failure.unwrap_or_default()))
    }

    /// Whether the kernel has what a rung stands on.
    fn check(&self, spec: &ProbeSpec, ground: &Ground, rung: Rung) -> Result<(), String> {
        if rung == Rung::Tracepoint {
            return ground.event.as_ref().map(drop).map_err(Clone::clone);
        }
        self.fields.clone()?;
        if rung == Rung::TpBtf {
            self.btf.as_ref().map_err(Clone::clone)?;
        }
        if ground.in_types { Ok(()) } else { Err(format!("this kernel has no tracepoint {}", spec.tracepoint)) }
    }

    fn attach(
        &self,
        program: &mut Program,
        spec: &ProbeSpec,
        ground: &Ground,
    ) -> Result<Box<dyn Any + Send>, ProgramError> {
        match program {
            Program::BtfTracePoint(program) => {
                let btf = self.btf.as_ref().map_err(|_why| ProgramError::NotLoaded)?;
                attach_typed(program, spec, btf).inspect_err(|_error| forget(program.unload()))
            }
            Program::RawTracePoint(program) => attach_raw(program, spec).inspect_err(|_error| forget(program.unload())),
            Program::TracePoint(program) => {
                let event = ground.event.as_ref().map_err(|_why| ProgramError::NotLoaded)?;
                attach_classic(program, event).inspect_err(|_error| forget(program.unload()))
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }
}

fn attach_typed(program: &mut BtfTracePoint, spec: &ProbeSpec, btf: &Btf) -> Result<Box<dyn Any + Send>, ProgramError> {
    verifier::load(|| program.load(spec.tracepoint, btf))?;
    let link = program.attach()?;
    Ok(Box::new(program.take_link(link)?))
}

fn attach_raw(program: &mut RawTracePoint, spec: &ProbeSpec) -> Result<Box<dyn Any + Send>, ProgramError> {
    verifier::load(|| program.load())?;
    let link = program.attach(spec.tracepoint)?;
    Ok(Box::new(program.take_link(link)?))
}

fn attach_classic(program: &mut TracePoint, event: &TraceEvent) -> Result<Box<dyn Any + Send>, ProgramError> {
    use std::os::fd::AsFd as _;

    verifier::load(|| program.load())?;
    let link = perf::attach(program.fd()?.as_fd(), event.id).map_err(ProgramError::IOError)?;
    Ok(Box::new(link))
}

/// A program that was not even loaded cannot be unloaded; nothing is left of it either way.
fn forget(_unloaded: Result<(), ProgramError>) {}

/// The reasons of all rungs; those that are the same for several, once.
fn summary(refused: &[Refused]) -> String {
    let mut parts: Vec<(String, &str)> = Vec::new();
    for Refused { rung, why } in refused {
        match parts.last_mut() {
            Some((rungs, last)) if last == why => {
                rungs.push_str(", ");
                rungs.push_str(rung.name());
            }
            _ => parts.push((rung.name().to_owned(), why)),
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(rungs, why)| format!("{rungs}: {why}")).collect();
    parts.join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::PROBES;

    fn ladder(max_rung: Rung, fields: Result<(), String>) -> Ladder {
        Ladder { max_rung, btf: Err("no BTF".into()), fields }
    }

    fn ground(event: Result<TraceEvent, String>) -> Ground {
        Ground { in_types: false, event }
    }

    #[test]
    fn what_a_rung_stands_on_is_looked_at_before_it_is_tried() {
        let event = TraceEvent { id: 1, layout: synfin_common::layout::Layout::NONE };
        let check = |ladder: &Ladder, rung| ladder.check(&PROBES[0], &ground(Ok(event)), rung);
        let blind = ladder(Rung::TpBtf, Err("no BTF".into()));
        assert_eq!(check(&blind, Rung::TpBtf), Err("no BTF".into()));
        assert_eq!(check(&blind, Rung::RawTracepoint), Err("no BTF".into()));
        assert_eq!(check(&blind, Rung::Tracepoint), Ok(()));
        let other = ladder(Rung::TpBtf, Ok(()));
        let why = check(&other, Rung::RawTracepoint).unwrap_err();
        assert_eq!(why, "this kernel has no tracepoint tcp_destroy_sock");
        let bare = other.check(&PROBES[0], &ground(Err("tracefs is not mounted".into())), Rung::Tracepoint);
        assert_eq!(bare, Err("tracefs is not mounted".into()));
    }

    #[test]
    fn the_same_reason_is_told_once() {
        let refused = |rung, why: &str| Refused { rung, why: why.into() };
        let [typed, raw, classic] = Rung::ALL;
        assert_eq!(summary(&[refused(typed, "a"), refused(raw, "a")]), "tp_btf, raw_tracepoint: a");
        let all = [refused(typed, "a"), refused(raw, "b"), refused(classic, "b")];
        assert_eq!(summary(&all), "tp_btf: a\n    raw_tracepoint, tracepoint: b");
    }
}
