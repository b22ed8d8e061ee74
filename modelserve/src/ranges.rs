use serde::{Deserialize, Serialize};

/// Places, as half-open ranges that are sorted and neither overlap nor touch.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Vec<(u32, u32)>")]
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    pub(crate) fn upto(end: u32) -> Self {
        Self::of(0, end)
    }

    /// No places if `end` does not lie behind `start`.
    pub(crate) fn of(start: u32, end: u32) -> Self {
        Self(if start < end { vec![(start, end)] } else { Vec::new() })
    }

    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(crate) fn contains(&self, place: u32) -> bool {
        self.0.iter().any(|(start, end)| (*start..*end).contains(&place))
    }

    pub(crate) fn overlap(&self, other: &Self) -> bool {
        let meet = |a: &(u32, u32), b: &(u32, u32)| a.0 < b.1 && b.0 < a.1;
        self.0.iter().any(|a| other.0.iter().any(|b| meet(a, b)))
    }

    pub(crate) fn within(&self, total: u32) -> bool {
        self.0.last().is_none_or(|(_, end)| *end <= total)
    }

    /// Adds places that are not there yet.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.0.len());
        for (start, end) in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        self.0 = merged;
    }

    /// Takes away the last `count` places, or all.
    pub(crate) fn take_last(&mut self, count: u32) -> Self {
        let (mut taken, mut left) = (Vec::new(), count);
        while 0 < left
            && let Some((start, end)) = self.0.pop()
        {
            let part = left.min(end - start);
            if part < end - start {
                self.0.push((start, end - part));
            }
            taken.push((end - part, end));
            left -= part;
        }
        taken.reverse();
        Self(taken)
    }

    /// Takes away the first `count` places, or all.
    pub(crate) fn take_first(&mut self, count: u32) -> Self {
        let keep = self.len().saturating_sub(count);
        let kept = self.take_last(keep);
        std::mem::replace(self, kept)
    }
}

impl TryFrom<Vec<(u32, u32)>> for Ranges {
    type Error = &'static str;

    fn try_from(ranges: Vec<(u32, u32)>) -> Result<Self, Self::Error> {
        let ordered = ranges.iter().all(|(start, end)| start < end)
            && ranges.iter().zip(ranges.iter().skip(1)).all(|(one, next)| one.1 <= next.0);
        if ordered { Ok(Self(ranges)) } else { Err("ranges must be sorted and must not overlap") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_go_from_one_to_the_other() {
        let (mut first, mut second) = (Ranges::upto(100), Ranges::default());
        second.add(first.take_last(10));
        assert_eq!((&first.0[..], &second.0[..]), (&[(0, 90)][..], &[(90, 100)][..]));
        second.add(first.take_last(10));
        assert_eq!(second.0, [(80, 100)]);
        first.add(second.take_first(5));
        assert_eq!((&first.0[..], &second.0[..]), (&[(0, 85)][..], &[(85, 100)][..]));
        assert_eq!(first.take_last(1_000).len(), 85);
        assert_eq!(first, Ranges::default());
    }

    proptest! {
        #[test]
        fn no_place_is_lost_or_doubled(steps in prop::collection::vec((any::<bool>(), 0..60_u32), 0..30)) {
            let (mut a, mut b) = (Ranges::upto(100), Ranges::default());
            for (there, count) in steps {
                let (from, to) = if there { (&mut a, &mut b) } else { (&mut b, &mut a) };
                let taken = from.take_last(count);
                to.add(taken);
                prop_assert!(!a.overlap(&b));
                prop_assert_eq!(a.len() + b.len(), 100);
                for place in 0..100 {
                    prop_assert!(a.contains(place) != b.contains(place));
                }
                let text = serde_json::to_string(&a).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Ranges>(&text).unwrap(), &a);
            }
        }
    }
}
