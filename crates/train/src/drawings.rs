//! The pictures that a run draws as it goes.

use crate::{Result, measure::Measurement, pictures, trainer::Trainer};

impl Trainer<'_> {
    pub(crate) fn draw_curves(&self) {
        let drawn = pictures::curves(&self.folder.metrics(), &self.folder.picture("curves"));
        self.say_if_failed(drawn);
    }

    pub(crate) fn draw_measurement(&self, found: &Measurement, epoch: u64) {
        let classes = &self.about.classes;
        let title = format!("{}, after epoch {epoch}", found.title());
        self.say_if_failed(pictures::confusion(found, classes, &title, &self.folder.picture("confusion")));
        let draw = |index: usize| {
            let input = self.splits.eval.sample(index, None).ok()?.input;
            self.adapter.picture(&self.about.config.data, &input, &self.about.input_shape)
        };
        let path = self.folder.picture("misclassified");
        self.say_if_failed(pictures::mistakes(found, classes, &title, draw, &path));
    }

    /// A picture that cannot be drawn is no reason to lose the run.
    fn say_if_failed(&self, drawn: Result<()>) {
        if let Err(error) = drawn {
            self.progress.note(format!("warning: {error}"));
        }
    }
}
