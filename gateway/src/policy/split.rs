//! How a route's requests are shared out over its backends.

/// A smooth weighted split: over any run of requests the shares follow the weights, and no backend is bunched.
///
/// The order is that of smooth weighted round robin (nginx's, by M. Dounin, 2012), laid out once as a table of one
/// period; a request's ticket picks a place. Pure: who counts the tickets is the caller's affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    period: Box<[u16]>,
}

/// Every weight is zero: there is nowhere to send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all weights are 0")]
pub struct AllZero;

impl Split {
    /// A split by these weights, in the order of the backends.
    ///
    /// # Errors
    /// When all weights are zero, or there are none.
    pub fn new(weights: &[u32]) -> Result<Self, AllZero> {
        let divisor = weights.iter().copied().fold(0, gcd);
        if divisor == 0 {
            return Err(AllZero);
        }
        let weights: Vec<i64> = weights.iter().map(|w| i64::from(w / divisor)).collect();
        let total: i64 = weights.iter().sum();
        let mut current = vec![0; weights.len()];
        let period = (0..total)
            .map(|_| {
                let mut best = None;
                for (n, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
                    current[n] += weight;
                    if best.is_none_or(|b: usize| current[n] > current[b]) {
                        best = Some(n);
                    }
                }
                let best = best.expect("a weight is above zero");
                current[best] -= total;
                u16::try_from(best).expect("a route has fewer than 65536 backends")
            })
            .collect();
        Ok(Self { period })
    }

    /// The backend of this ticket. Tickets count up by one, and may wrap.
    #[must_use]
    pub fn pick(&self, ticket: u64) -> usize {
        let place = ticket % self.period.len() as u64;
        usize::from(self.period[place as usize])
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn smooth() {
        let split = Split::new(&[5, 1, 1]).unwrap();
        assert_eq!((0..7).map(|n| split.pick(n)).collect::<Vec<_>>(), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn all_zero_is_an_error() {
        assert_eq!(Split::new(&[0, 0]), Err(AllZero));
        assert_eq!(Split::new(&[]), Err(AllZero));
    }

    #[test]
    fn one_left_gets_all() {
        let split = Split::new(&[0, 3, 0]).unwrap();
        assert!((0..100).all(|n| split.pick(n) == 1));
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights_over_any_run(
            weights in prop::collection::vec(0u32..50, 1..6), start in any::<u32>(), run in 1u64..2_000
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let split = Split::new(&weights).unwrap();
            let mut counts = vec![0f64; weights.len()];
            for n in 0..run {
                counts[split.pick(u64::from(start) + n)] += 1.0;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let share = run as f64 * f64::from(*weight) / f64::from(total);
                // Never off by more than one request for each other backend.
                prop_assert!((count - share).abs() <= weights.len() as f64, "{} of {}", count, share);
                prop_assert!(*weight > 0 || *count == 0.0);
            }
        }

        #[test]
        fn a_whole_period_is_exact(weights in prop::collection::vec(0u32..200, 1..5), start in any::<u32>()) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let split = Split::new(&weights).unwrap();
            let mut counts = vec![0; weights.len()];
            for n in 0..u64::from(total) {
                counts[split.pick(u64::from(start) + n)] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}
