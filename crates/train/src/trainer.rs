//! The loop: from a resolved config to a trained model in a run folder.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use ophidian_core::{
    adapter::{Adapter, Model, Splits},
    tensors::Tensors,
    torch::AdamW,
};
use tch::nn;

use crate::{
    Config, Error, Result,
    checkpoint::{self, About, Best, Checkpoint, State},
    course::Course,
    environment,
    folder::{Mode, RunFolder, write_text},
    interrupt,
    loader::{Loader, Plan, Sampling},
    measure::{Measurement, Reading, measure},
    optimizer::{Average, Optimizer, variables},
    progress::{Progress, count, duration},
    records::{Evaluation, Records, Summary},
    schedule::Schedule,
};

/// The checkpoint that a run resumes from.
const LAST: &str = "last";
/// The checkpoint of the best measurement.
const BEST: &str = "best";
/// Pictures of a run folder.
const PICTURES: [&str; 3] = ["curves", "confusion", "misclassified"];

/// What is asked for.
pub struct Request<'a> {
    /// The resolved config.
    pub config: Config,
    /// The adapter that it names.
    pub adapter: &'a dyn Adapter,
    /// The run folder.
    pub output: &'a Path,
    /// New, resumed or replaced.
    pub mode: Mode,
    /// What the program adds to `environment.json`.
    pub program: &'a [(String, String)],
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All steps were taken.
    Finished,
    /// Accuracy had not risen for `early_stop_epochs`.
    StoppedEarly,
    /// It was interrupted and has saved.
    Interrupted,
}

/// What came out of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Where it stands.
    pub state: State,
    /// Steps of the whole run; none while seconds decide them and are not spent.
    pub steps: Option<u64>,
    /// Trainable numbers in the model.
    pub parameters: i64,
    /// Share of this session's training time spent waiting for data.
    pub data_wait: f64,
    /// Pictures in the run folder.
    pub pictures: Vec<PathBuf>,
}

/// Trains as asked, until done, stopped or interrupted.
///
/// # Errors
/// Config, data, folder or disk; or [`Error::NonFinite`]. The last checkpoint stays as it was.
pub fn train(request: Request, progress: Progress) -> Result<Outcome> {
    let device = request.config.train.device.open()?;
    let splits = request.adapter.open(&request.config.data)?;
    let course = Course::new(&request.config.train, splits.train.len())?;
    let mut about = about(&request, &splits)?;
    let (vs, model) = checkpoint::build(&about, request.adapter, device)?;
    let (folder, resumes) = RunFolder::open(request.output, request.mode)?;
    let last = folder.checkpoint(LAST);
    let checkpoint = (resumes && last.exists())
        .then(|| Checkpoint::read(&last).and_then(|last| agrees(last, &about)))
        .transpose()?;
    if let Some(checkpoint) = &checkpoint {
        about.state = checkpoint.about.state.clone();
    }
    let train = &about.config.train;
    let options = AdamW {
        learning_rate: train.learning_rate,
        betas: (train.betas[0], train.betas[1]),
        weight_decay: train.weight_decay,
        eps: train.eps,
    };
    let mut trainer = Trainer {
        adapter: request.adapter,
        schedule: course.schedule(train),
        optimizer: Optimizer::new(&vs, &*model, options)?,
        average: (train.ema_decay > 0.0).then(|| Average::new(&vs, train.ema_decay)).transpose()?,
        records: Records::open(&folder, &about.state)?,
        seconds_before: about.state.seconds,
        splits,
        course,
        about,
        vs,
        model,
        folder,
        progress,
        session: Session::default(),
        clock: Instant::now(),
    };
    if let Some(checkpoint) = checkpoint {
        trainer.restore(&checkpoint)?;
    }
    trainer.announce(&request)?;
    trainer.run()
}

/// Holds the data to what a run needs.
fn about(request: &Request, splits: &Splits) -> Result<About> {
    let (train, eval) = (&splits.train, &splits.eval);
    let invalid = |reason: String| Err(Error::Core(ophidian_core::Error::invalid(reason)));
    if eval.is_empty() {
        return invalid("there is no example to measure on: the eval split is empty".to_owned());
    }
    if train.classes().len() < 2 {
        return invalid(format!(
            "the data have {}, expected at least 2 classes",
            count(train.classes().len(), "class")
        ));
    }
    if train.classes() != eval.classes() || train.input_shape() != eval.input_shape() {
        return invalid(format!(
            "the splits differ: train has {} classes and inputs {:?}, eval {} classes and inputs {:?}",
            train.classes().len(),
            train.input_shape(),
            eval.classes().len(),
            eval.input_shape()
        ));
    }
    Ok(About {
        config: request.config.clone(),
        classes: train.classes().to_vec(),
        input_shape: train.input_shape(),
        state: State::default(),
    })
}

/// Passes `checkpoint` on if a run with `about` can go on from it to the same end.
fn agrees(checkpoint: Checkpoint, about: &About) -> Result<Checkpoint> {
    let mut differences = checkpoint.about.config.differences(&about.config);
    if checkpoint.about.classes != about.classes || checkpoint.about.input_shape != about.input_shape {
        differences.push(format!(
            "data: the run has {} classes and inputs {:?}, found {} classes and inputs {:?}",
            checkpoint.about.classes.len(),
            checkpoint.about.input_shape,
            about.classes.len(),
            about.input_shape
        ));
    }
    if differences.is_empty() {
        return Ok(checkpoint);
    }
    Err(Error::Folder(format!(
        "{} belongs to a run with another config; resume with the same one, or replace the run with --force:\n  {}",
        checkpoint.path.display(),
        differences.join("\n  ")
    )))
}

/// What a run keeps in memory.
pub(crate) struct Trainer<'a> {
    pub(crate) adapter: &'a dyn Adapter,
    pub(crate) splits: Splits,
    course: Course,
    pub(crate) schedule: Schedule,
    pub(crate) about: About,
    pub(crate) vs: nn::VarStore,
    pub(crate) model: Box<dyn Model>,
    pub(crate) optimizer: Optimizer,
    pub(crate) average: Option<Average>,
    pub(crate) folder: RunFolder,
    records: Records,
    pub(crate) progress: Progress,
    pub(crate) session: Session,
    seconds_before: f64,
    clock: Instant,
}

/// Sums over this process, for progress and for the last word.
#[derive(Default)]
pub(crate) struct Session {
    /// Examples trained on.
    pub(crate) samples: u64,
    /// Seconds spent in training steps.
    pub(crate) seconds: f64,
    /// Of these, seconds spent waiting for data.
    pub(crate) waited: f64,
    /// Learning rate of the last step.
    pub(crate) rate: f64,
}

impl Trainer<'_> {
    /// Takes weights, moments and average from a checkpoint of this run.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint
            .fill(&self.tensors().into_iter().collect::<Vec<_>>(), &["model.", "optimizer.", "ema."])?;
        self.optimizer.set_updates(self.about.state.updates);
        self.end_in_time();
        let state = &self.about.state;
        if state.step > self.course.steps || state.epochs_done > self.course.epochs_ended(state.step) {
            return Err(Error::Checkpoint {
                path: checkpoint.path.clone(),
                reason: format!(
                    "has damaged metadata: step {} and {} epochs done in a run of {} steps",
                    state.step, state.epochs_done, self.course.steps
                ),
            });
        }
        Ok(())
    }

    /// Everything that a checkpoint holds; the tensors are the run's own.
    fn tensors(&self) -> Tensors {
        let mut tensors: Tensors = variables(&self.vs)
            .into_iter()
            .map(|(name, variable)| (format!("model.{name}"), variable))
            .collect();
        tensors.extend(self.optimizer.state());
        tensors.extend(self.average.iter().flat_map(Average::state));
        tensors
    }

    /// Writes down config and environment, and says what is about to happen.
    fn announce(&self, request: &Request) -> Result<()> {
        write_text(&self.folder.config(), &self.about.config.to_documented_toml(self.adapter))?;
        environment::append_session(
            &self.folder.environment(),
            request.mode == Mode::Resume,
            self.about.state.step,
            request.program,
        )?;
        let state = &self.about.state;
        let train = &self.about.config.train;
        let size = train.batch_size * train.accumulate;
        let length = match self.schedule.seconds {
            Some(seconds) => format!("{seconds} s of steps of {size} examples"),
            None => format!(
                "{} steps of {size} examples over {}",
                self.course.steps,
                count(self.course.epochs(), "epoch")
            ),
        };
        self.progress.note(format!(
            "{} parameters · {} training and {} eval examples of {} classes · {length}",
            self.parameters(),
            self.splits.train.len(),
            self.splits.eval.len(),
            self.about.classes.len(),
        ));
        if state.step > 0 {
            let epoch = self.course.epoch_of(state.step) + 1;
            self.progress.note(format!("going on after step {} (epoch {epoch})", state.step));
        } else if request.mode == Mode::Resume {
            self.progress.note("nothing to resume yet: beginning at step 1");
        }
        Ok(())
    }

    /// Epoch of the step taken last, counted from 1.
    pub(crate) fn epoch(&self) -> u64 {
        self.course.epoch_of(self.about.state.step.saturating_sub(1)) + 1
    }

    /// Examples that the run has yet to train on, about.
    pub(crate) fn samples_left(&self) -> u64 {
        let (left, course) = (self.course.steps - self.about.state.step, &self.course);
        left * course.samples / course.steps_per_epoch
    }

    /// Where training example `index` comes from.
    pub(crate) fn name_of(&self, index: usize) -> String {
        self.splits.train.name_of(index)
    }

    /// "epoch 2/10"; without the 10 while seconds decide how many there will be.
    fn epoch_label(&self, epoch: u64) -> String {
        if self.course.is_endless() {
            return format!("epoch {epoch}");
        }
        format!("epoch {epoch}/{}", self.course.epochs())
    }

    /// Ends the run here if its seconds are spent.
    fn end_in_time(&mut self) {
        let (state, most) = (&self.about.state, self.about.config.train.max_seconds);
        self.course.end_in_time(state.step, state.training_seconds, most);
    }

    fn parameters(&self) -> i64 {
        self.vs.trainable_variables().iter().map(|variable| variable.numel() as i64).sum()
    }

    /// The loop.
    fn run(mut self) -> Result<Outcome> {
        let train = self.about.config.train.clone();
        let mut loader = self.loader()?;
        let mut shown = None;
        let ending = loop {
            let state = &self.about.state;
            let ended = self.course.epochs_ended(state.step);
            if ended > state.epochs_done {
                if !self.end_epoch(ended)? {
                    break Ending::Interrupted;
                }
                continue;
            }
            let best = state.best.map_or(0, |best| best.epoch);
            if train.early_stop_epochs > 0 && state.epochs_done >= best + train.early_stop_epochs {
                break Ending::StoppedEarly;
            }
            if state.step == self.course.steps {
                break Ending::Finished;
            }
            if interrupt::asked() {
                break Ending::Interrupted;
            }
            let epoch = self.course.epoch_of(state.step);
            if shown != Some(epoch) {
                shown = Some(epoch);
                let label = self.epoch_label(epoch + 1);
                self.progress.begin(label, self.course.samples, self.course.samples_before(state.step));
            }
            self.step(&mut loader, self.course.batches(self.about.state.step))?;
            self.end_in_time();
            let step = self.about.state.step;
            if step.is_multiple_of(train.log_every_steps) {
                self.touch_clock();
                self.records.interval(&self.about.state, epoch + 1, self.session.rate)?;
                self.about.state.interval = Default::default();
            }
            let every = train.checkpoint_every_steps;
            if every > 0 && step.is_multiple_of(every) && self.course.epochs_ended(step) == epoch {
                self.save(&[LAST])?;
            }
        };
        self.progress.end();
        if ending == Ending::Interrupted {
            self.save(&[LAST])?;
        }
        self.draw_curves();
        self.summarise(ending)?;
        Ok(Outcome {
            ending,
            steps: (!self.course.is_endless()).then_some(self.course.steps),
            parameters: self.parameters(),
            data_wait: self.session.waited / self.session.seconds.max(1e-9),
            pictures: PICTURES
                .map(|name| self.folder.picture(name))
                .into_iter()
                .filter(|p| p.exists())
                .collect(),
            state: self.about.state,
        })
    }

    /// Reads the rest of the run's batches.
    fn loader(&self) -> Result<Loader> {
        let (config, step, steps) = (&self.about.config, self.about.state.step, self.course.steps);
        let end = if steps == 0 { 0 } else { self.course.batches(steps - 1).end };
        let start = if step < steps { self.course.batches(step).start } else { end };
        Loader::start(Plan {
            dataset: self.splits.train.clone(),
            sampling: Sampling::Shuffled { seed: config.seed },
            batch_size: config.train.batch_size,
            batches: start..end,
            workers: config.train.worker_threads(),
            prefetch: config.train.prefetch,
            on_corrupt: config.train.on_corrupt,
            classes: Some(self.about.classes.len() as i64),
            planner: self.model.planner(),
        })
    }

    /// Measures, records, draws and saves after epoch `epoch` (counted from 1). False if interrupted before the end;
    /// nothing has then changed, and the epoch ends anew when the run resumes.
    fn end_epoch(&mut self, epoch: u64) -> Result<bool> {
        let config = self.about.config.train.clone();
        let last = epoch == self.course.epochs();
        let due = last || epoch.is_multiple_of(config.eval_every_epochs);
        let (mut plain, mut averaged) = (None, None);
        if due {
            let Some(found) = self.measure("measuring")? else { return Ok(false) };
            plain = Some(found);
            if let Some(average) = self.average.take() {
                let found = average.with(|| self.measure("measuring the average"));
                self.average = Some(average);
                let Some(found) = found? else { return Ok(false) };
                averaged = Some(found);
            }
        }
        self.touch_clock();
        self.about.state.epochs_done = epoch;
        self.records.epoch(&self.about.state, epoch)?;
        for (kind, found) in [("eval", &plain), ("ema", &averaged)] {
            if let Some(found) = found {
                self.records.measurement(kind, &self.about.state, epoch, found)?;
            }
        }
        self.say_epoch(epoch, plain.as_ref(), averaged.as_ref());
        if let Some(found) = averaged.as_ref().or(plain.as_ref()) {
            Evaluation::of(found, epoch, &self.about.classes).write(&self.folder.evaluation())?;
        }
        let mut names = Vec::new();
        if let Some(found) = averaged.or(plain) {
            let better = |best: Best| {
                found.accuracy > best.accuracy || (found.accuracy == best.accuracy && found.loss < best.loss)
            };
            if self.about.state.best.is_none_or(better) {
                self.about.state.best = Some(Best { epoch, accuracy: found.accuracy, loss: found.loss });
                names.push(BEST.to_owned());
                self.draw_measurement(&found, epoch);
            }
        }
        if config.keep_every_epochs > 0 && epoch.is_multiple_of(config.keep_every_epochs) {
            names.push(format!("epoch-{epoch:04}"));
        }
        // Last of all, so that the others are there when a resumed run goes on behind it.
        names.push(LAST.to_owned());
        self.about.state.epoch = Default::default();
        self.draw_curves();
        self.save(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(true)
    }

    fn measure(&mut self, label: &str) -> Result<Option<Measurement>> {
        let reading = Reading::of(&self.about.config.train, self.vs.device());
        self.progress.begin(label.to_owned(), self.splits.eval.len() as u64, 0);
        let progress = &mut self.progress;
        let found =
            measure(&*self.model, &self.splits.eval, self.about.classes.len(), &reading, |examples| {
                progress.advance(examples, String::new);
            });
        self.progress.end();
        found
    }

    fn say_epoch(&self, epoch: u64, plain: Option<&Measurement>, averaged: Option<&Measurement>) {
        let sums = &self.about.state.epoch;
        let mut line =
            format!("{}  loss {:.4}", self.epoch_label(epoch), sums.loss / sums.samples.max(1) as f64);
        for (name, found) in [("eval", plain), ("average", averaged)] {
            if let Some(found) = found {
                line.push_str(&format!(
                    "  {name} loss {:.4} accuracy {:.2}%",
                    found.loss,
                    100.0 * found.accuracy
                ));
            }
        }
        line.push_str(&format!(
            "  {:.0} samples/s  {}",
            sums.samples as f64 / sums.seconds.max(1e-9),
            duration(self.about.state.seconds)
        ));
        self.progress.note(line);
        let skipped = plain.map_or(0, |found| found.skipped.len());
        if skipped > 0 {
            self.progress.note(format!("  {skipped} eval examples could not be read and were skipped"));
        }
    }

    /// Writes the run as it stands to the checkpoints called `names`.
    fn save(&mut self, names: &[&str]) -> Result<()> {
        self.touch_clock();
        self.records.settle(&mut self.about.state)?;
        let tensors = self.tensors();
        for name in names {
            checkpoint::write(&self.folder.checkpoint(name), &self.about, &tensors)?;
        }
        Ok(())
    }

    /// Writes down how the run ended, for reports.
    fn summarise(&self, ending: Ending) -> Result<()> {
        let (about, state) = (&self.about, &self.about.state);
        let classes = about.classes.len() as i64;
        Summary {
            ending,
            step: state.step,
            steps: if self.course.is_endless() { state.step } else { self.course.steps },
            epochs: state.epochs_done,
            best_accuracy: state.best.map(|best| best.accuracy),
            parameters: self.parameters(),
            flops: self.adapter.describe(&about.config.model, &about.input_shape, classes)?.flops,
            input_shape: about.input_shape.clone(),
            classes: about.classes.len(),
            training_examples: self.course.samples,
            seconds: state.seconds,
            training_seconds: Some(state.training_seconds),
            max_seconds: self.schedule.seconds,
        }
        .write(&self.folder.summary())
    }

    fn touch_clock(&mut self) {
        self.about.state.seconds = self.seconds_before + self.clock.elapsed().as_secs_f64();
    }
}
