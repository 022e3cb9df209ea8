//! Progress bars: one for all results, one for each worker. Silent unless standard error is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bars.
pub(super) struct Progress {
    bars: MultiProgress,
    overall: ProgressBar,
    workers: Vec<ProgressBar>,
}

impl Progress {
    pub(super) fn new(tasks: u64, workers: usize, slow: Option<usize>) -> Self {
        // indicatif draws nothing on a standard error that is no terminal.
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style =
            |template| ProgressStyle::with_template(template).expect("the templates here are constants");
        let overall = bars.add(ProgressBar::new(tasks).with_prefix("results"));
        overall.set_style(style("{prefix:<16} [{bar:40}] {human_pos}/{human_len}  {per_sec}  {eta}"));
        let workers = (0..workers)
            .map(|worker| {
                let slow = if slow == Some(worker) { " (slow)" } else { "" };
                let bar =
                    bars.add(ProgressBar::new(tasks).with_prefix(format!("worker {}{slow}", worker + 1)));
                bar.set_style(style("{prefix:<16} [{bar:40}] {human_pos}"));
                bar
            })
            .collect();
        Self { bars, overall, workers }
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Shows that `results` have arrived, `results_of_worker` of them from this worker.
    pub(super) fn show(&self, results: u64, worker: usize, results_of_worker: u64) {
        self.overall.set_position(results);
        if let Some(bar) = self.workers.get(worker) {
            bar.set_position(results_of_worker);
        }
    }

    /// Takes the bars away, so that the table stands alone.
    pub(super) fn clear(&self) {
        self.overall.finish_and_clear();
        self.workers.iter().for_each(ProgressBar::finish_and_clear);
        // Only a terminal that is gone can make this fail.
        let _ = self.bars.clear();
    }
}
