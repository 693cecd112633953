//! Values of series: as they are told, and as they are kept from one collection to the next.

use crate::distribution::Histogram;

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Whole.
    Integer(i64),
    /// With fractions.
    Real(f64),
    /// A distribution.
    Distribution(&'a Histogram),
}

impl Data<'_> {
    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Integer(value) => value == 0,
            Self::Real(value) => value == 0.0,
            Self::Distribution(histogram) => histogram.count() == 0,
        }
    }
}

/// The same, kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Kept {
    #[default]
    Nothing,
    Integer(i64),
    Real(f64),
    Distribution(Box<Histogram>),
}

impl Kept {
    pub(super) fn of(data: Data<'_>) -> Self {
        match data {
            Data::Integer(value) => Self::Integer(value),
            Data::Real(value) => Self::Real(value),
            Data::Distribution(histogram) => Self::Distribution(Box::new(histogram.clone())),
        }
    }

    pub(super) fn data(&self) -> Option<Data<'_>> {
        match self {
            Self::Nothing => None,
            Self::Integer(value) => Some(Data::Integer(*value)),
            Self::Real(value) => Some(Data::Real(*value)),
            Self::Distribution(histogram) => Some(Data::Distribution(histogram)),
        }
    }

    pub(super) fn add(&mut self, data: Data<'_>) {
        match (&mut *self, data) {
            (Self::Integer(sum), Data::Integer(value)) => *sum += value,
            (Self::Real(sum), Data::Real(value)) => *sum += value,
            (Self::Distribution(sum), Data::Distribution(histogram)) => sum.merge(histogram),
            (_, data) => *self = Self::of(data),
        }
    }

    /// What has come since it was `self`; [`Kept::Nothing`] if nothing has.
    pub(super) fn until(&self, now: Data<'_>) -> Self {
        let new = match (self, now) {
            (Self::Integer(before), Data::Integer(now)) => Self::Integer(now - before),
            (Self::Real(before), Data::Real(now)) => Self::Real(now - before),
            // Nothing is ever taken out of a distribution, so that as many values are the same values.
            (Self::Distribution(before), Data::Distribution(now)) if before.count() == now.count() => Self::Nothing,
            (Self::Distribution(before), Data::Distribution(now)) => Self::Distribution(Box::new(now.since(before))),
            (_, now) => Self::of(now),
        };
        if new.data().is_some_and(Data::is_zero) { Self::Nothing } else { new }
    }
}
