//! Sends a batch that the far end refuses as a whole in halves, until it is known which alert it is that is refused.

use super::{Failure, Sent};
use crate::spool::Entry;

/// What the far end said to some alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has dealt with all of them.
    Sent(Sent),
    /// It has none of them, and would not have these another time either.
    Refused(String),
}

/// Sends all of them with `once`.
pub(super) fn send(
    batch: &[Entry],
    once: &mut impl FnMut(&[Entry]) -> Result<Answer, Failure>,
) -> Result<Sent, Failure> {
    let why = match once(batch)? {
        Answer::Sent(sent) => return Ok(sent),
        Answer::Refused(why) => why,
    };
    if batch.len() <= 1 {
        return Err(Failure { refused: true, ..Failure::of(why) });
    }
    let (first, second) = batch.split_at(batch.len() / 2);
    let mut sent = send(first, once)?;
    match send(second, once) {
        Ok(more) => {
            sent.add(more, first.len());
            Ok(sent)
        }
        Err(mut failure) => {
            sent.add(std::mem::take(&mut failure.sent), first.len());
            Err(Failure { settled: first.len() + failure.settled, sent, ..failure })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, sample};

    fn batch(counts: std::ops::Range<u64>) -> Vec<Entry> {
        counts.map(|count| sample::entry(&Alert { count, ..sample::alert() })).collect()
    }

    #[test]
    fn what_is_refused_is_found_and_what_comes_before_it_is_sent() {
        let all = batch(0..100);
        for poison in [0, 1, 50, 63, 99] {
            let mut taken = Vec::new();
            let result = send(&all, &mut |part| {
                if part.iter().any(|entry| entry.alert.count == poison) {
                    return Ok(Answer::Refused("too long".to_owned()));
                }
                taken.extend(part.iter().map(|entry| entry.alert.count));
                Ok(Answer::Sent(Sent { bytes: part.len(), rejected: Vec::new() }))
            });
            let failure = result.unwrap_err();
            assert!(failure.refused && failure.why == "too long");
            assert_eq!((failure.settled, failure.sent.bytes), (poison as usize, poison as usize));
            assert!(taken.into_iter().eq(0..poison));
        }
    }

    #[test]
    fn places_of_the_rejected_are_those_in_the_whole_batch() {
        let all = batch(0..8);
        let sent = send(&all, &mut |part| {
            if part.len() > 2 {
                return Ok(Answer::Refused("too many".to_owned()));
            }
            Ok(Answer::Sent(Sent { bytes: 1, rejected: vec![(1, "odd".to_owned())] }))
        })
        .unwrap();
        let places: Vec<usize> = sent.rejected.iter().map(|(place, _)| *place).collect();
        assert_eq!((sent.bytes, places), (4, vec![1, 3, 5, 7]));
    }
}
