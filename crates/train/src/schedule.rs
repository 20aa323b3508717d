//! The learning rate, step by step.

/// Linear warm-up from 0 to the peak, then half a cosine down to the end (Loshchilov & Hutter, arXiv 1608.03983).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest learning rate, reached at the last step of the warm-up.
    pub peak: f64,
    /// Learning rate of the last step.
    pub end: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Seconds of training steps that the run may take, if they and not `total` end it.
    pub seconds: Option<f64>,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0, before which `seconds` were spent in training steps.
    ///
    /// Where seconds end the run, the cosine follows the share of them that is spent, and the warm-up is a factor of it:
    /// so the rate comes down to the end even if the run is over before the warm-up is.
    pub fn learning_rate(&self, step: u64, seconds: f64) -> f64 {
        let climbed = (step + 1) as f64 / self.warmup.max(1) as f64;
        if let Some(total) = self.seconds {
            return self.cosine((seconds / total).min(1.0)) * climbed.min(1.0);
        }
        if step < self.warmup {
            return self.peak * climbed;
        }
        // The last step stands exactly at the end of the cosine.
        let span = self.total.saturating_sub(self.warmup + 1).max(1);
        self.cosine((step - self.warmup).min(span) as f64 / span as f64)
    }

    fn cosine(&self, progress: f64) -> f64 {
        self.end + (self.peak - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_then_falls() {
        let schedule = Schedule { peak: 1.0, end: 0.1, warmup: 4, total: 25, seconds: None };
        let rates: Vec<f64> = (0..25).map(|step| schedule.learning_rate(step, 7.0)).collect();
        assert_eq!(rates[..4], [0.25, 0.5, 0.75, 1.0]);
        assert_eq!((rates[4], rates[14]), (1.0, 0.55));
        assert!((rates[24] - 0.1).abs() < 1e-12);
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn seconds_that_end_the_run_bring_the_rate_down() {
        let schedule = Schedule { peak: 1.0, end: 0.1, warmup: 4, total: 1 << 40, seconds: Some(2.0) };
        assert_eq!(schedule.learning_rate(0, 0.0), 0.25);
        assert_eq!(schedule.learning_rate(3, 0.0), 1.0);
        assert_eq!(schedule.learning_rate(900, 1.0), 0.55);
        assert!((schedule.learning_rate(901, 2.0) - 0.1).abs() < 1e-12);
        // A step may end after the budget, and a warm-up too.
        assert_eq!(schedule.learning_rate(902, 2.5), schedule.learning_rate(901, 2.0));
        assert!((schedule.learning_rate(1, 2.0) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn odd_lengths_stay_in_range() {
        for (warmup, total) in [(0, 1), (1, 1), (0, 2), (5, 3), (3, 4), (0, 0)] {
            let schedule = Schedule { peak: 1.0, end: 0.1, warmup, total, seconds: None };
            for step in 0..total + 3 {
                let rate = schedule.learning_rate(step, 0.0);
                assert!((0.0..=1.0).contains(&rate), "{warmup} {total} {step}: {rate}");
            }
        }
    }
}
