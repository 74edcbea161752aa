//! Takes a list and some work, does the work for each, so many at a time.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, anyhow};

/// Does it for each; what came of them, in their order.
pub fn each<T: Sync, R: Send>(
    all: &[T],
    at_a_time: NonZeroUsize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mine = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            all.get(index).map(|item| (index, work(item)))
        });
        mine.collect::<Vec<_>>()
    };
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time.get().min(all.len())).map(|_| scope.spawn(take)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked")));
        ended.collect::<Result<Vec<Vec<_>>>>()
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use anyhow::bail;

    use super::*;

    #[test]
    fn two_at_a_time_come_back_in_their_order() {
        let two = NonZeroUsize::new(2).unwrap();
        // Neither of the first two ends before the other has begun.
        let both = Barrier::new(2);
        let seen = each(&[0, 1, 2], two, |number| {
            if *number < 2 {
                both.wait();
            }
            Ok(number * 10)
        });
        assert_eq!(seen.unwrap(), [0, 10, 20]);
        let failed =
            each(&[1, 2], NonZeroUsize::MIN, |number| if *number == 1 { bail!("no") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }
}
